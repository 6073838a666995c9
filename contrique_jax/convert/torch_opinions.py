"""PyTorch files of systems that are trained on opinions, and of the frozen networks under them: whose names they carry.

Names of ours are the files' own but for IQA-Conformer's backbone, which its program cuts into pieces of its own; ours are
those of pretrainedmodels, as in the file that it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from contrique_jax.convert.torch_names import COUNTER
from contrique_jax.errors import UserError
from contrique_jax.networks.backbones import VitBackbone

VIT, INCEPTION, AHIQ, CONFORMER = "timm's ViT", "pretrainedmodels' Inception-ResNet-v2", "AHIQ's heads", "IQA-Conformer"
FIRST = {  # an array that no other file has
    VIT: "patch_embed.proj.weight",
    INCEPTION: "conv2d_1a.conv.weight",
    AHIQ: "deform_net.conv_offset.weight",
    CONFORMER: "mixed5b.0.conv.weight",
}
MOST_BLOCKS = 64
HEAD_WIDTH = 64  # channels of an attention head in all of timm's ViTs
_STEM = {"0": "conv2d_1a", "1": "conv2d_2a", "2": "conv2d_2b", "4": "conv2d_3b", "5": "conv2d_4a", "7": "mixed_5b"}
_BLOCK = re.compile(r"block35_(\d+)\.([01])\.(.+)")
_PARTS = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "mixed_5b", "repeat")


def kind_of(names: Iterable[str]) -> str | None:
    """Which of `FIRST` it is; None if it is none."""
    known = set(names)
    return next((kind for kind, first in FIRST.items() if first in known), None)


def vit_names(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Our name -> the file's, of all that a backbone has; the final norm and the classifier are left out."""
    kept = ("cls_token", "pos_embed", "patch_embed.", "blocks.")
    return {name: name for name in tensors if name.startswith(kept)}


def vit_of(tensors: Mapping[str, np.ndarray]) -> VitBackbone:
    """The architecture, by the shapes of its arrays. Raises UserError if they are of no plain ViT of timm's."""
    kernel, table = tensors[FIRST[VIT]], tensors.get("pos_embed")
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or kernel.shape[0] % HEAD_WIDTH:
        raise UserError(f"patch_embed.proj.weight is {list(kernel.shape)}, which is of no ViT with square patches.")
    side = 0 if table is None or table.ndim != 3 else round(max(table.shape[1] - 1, 0) ** 0.5)
    if table is None or table.shape != (1, 1 + side**2, kernel.shape[0]) or "cls_token" not in tensors:
        raise UserError("it has no class token and learned positions of a square grid; give a plain ViT of timm's.")
    depth = 1 + max((int(name.split(".")[1]) for name in tensors if re.match(r"blocks\.\d+\.", name)), default=-1)
    if not 1 <= depth <= MOST_BLOCKS:
        raise UserError(f"it has {depth or 'no'} blocks, and a ViT has 1 to {MOST_BLOCKS}; give the whole state dict.")
    width = int(kernel.shape[0])
    return VitBackbone(int(kernel.shape[2]), width, width // HEAD_WIDTH, side, depth)


def inception_names(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """As `vit_names`, of the stem, Mixed_5b and the small blocks."""
    return {name: name for name in tensors if name.split(".")[0] in _PARTS and not name.endswith(COUNTER)}


def conformer_names(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """As `vit_names`; the backbone's behind `inception.`."""
    found = {}
    for name in tensors:
        part, _, rest = name.partition(".")
        block = _BLOCK.fullmatch(name)
        if name.endswith(COUNTER):
            continue
        if part == "mixed5b":
            number, _, rest = rest.partition(".")
            found[f"inception.{_STEM.get(number, number)}.{rest}"] = name
        elif block:
            found[f"inception.repeat.{int(block[1]) - 2 + int(block[2])}.{block[3]}"] = name
        else:
            found[name] = name
    return found
