"""Networks that other programs trained and that stay as they are: their model folders, and the part of one that is used.

A folder holds a ViT or an Inception-ResNet-v2 whole; who needs fewer blocks takes those. A ResNet's is CONTRIQUE's own kind of
folder, an encoder without a projector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.description import DESCRIPTION, read_description, stored_architecture
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.inception_resnet import InceptionResNet
from contrique_jax.networks.lite0 import STAGE_WIDTHS
from contrique_jax.networks.model_folder import load_model, read_weights, save_model, to_flat
from contrique_jax.networks.resnet import stage_widths
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.networks.vit import Size, ViT
from contrique_jax.networks.weights_file import embedded_folder

FLOAT32 = jnp.dtype("float32")
FOLDER = "backbone of {}"  # what a folder says in place of a recipe


@dataclass
class VitBackbone:
    """A Vision Transformer of timm's."""

    patch: int = 8
    width: int = 768
    heads: int = 12
    side: int = 28  # squares along the images that its positions were learned on
    depth: int = 12

    kind = "vit"

    def size(self, taps: tuple[int, ...]) -> Size:
        return Size(self.patch, self.width, self.heads, self.side, taps)

    @property
    def whole(self) -> Skeleton[Any]:
        return skeleton(ViT, self.size((self.depth - 1,)), FLOAT32)


@dataclass
class InceptionBackbone:
    """Inception-ResNet-v2 up to its tenth small block."""

    kind = "inception_resnet_v2"

    @property
    def whole(self) -> Skeleton[Any]:
        return skeleton(InceptionResNet, FLOAT32)


KINDS = (VitBackbone.kind, InceptionBackbone.kind)


def is_backbone(recipe: str) -> bool:
    """Whether a folder that says so in place of a recipe holds such a network."""
    return recipe in map(FOLDER.format, KINDS)


def save_backbone(folder: Path, backbone: Any, weights: Variables, provenance: Mapping[str, Any], licence: str) -> None:
    """Raises UserError if the place cannot be written."""
    save_model(folder, backbone, weights, provenance=provenance, licence=licence, recipe=FOLDER.format(backbone.kind))


def load_backbone(spec: str, wanted: Any, field: str) -> Variables:
    """All weights of the folder `spec`, which must hold the backbone `wanted`, a ViT of at least its depth; of "random" the
    same drawn anew. Raises UserError, naming the field, if there is no such folder or it is another network."""
    if spec == "random":
        return wanted.whole.init(0)
    path = Path(spec).expanduser()
    if not (path / DESCRIPTION).is_file():
        raise UserError(
            f"{field}={spec}: there is no such folder of a frozen {wanted.kind}; make one with `contrique-jax convert "
            "from-torch FILE FOLDER`, or set it to random."
        )
    said = read_description(path)
    if said.get("recipe") != FOLDER.format(wanted.kind):
        raise UserError(
            f"{field}={spec}: holds {said.get('recipe', 'contrique')!r:.60}, not a frozen {wanted.kind}; name another."
        )
    found = stored_architecture(said.get("architecture"), type(wanted), path / DESCRIPTION)
    for name, ours in vars(wanted).items():
        theirs = getattr(found, name)
        if theirs < ours if name == "depth" else theirs != ours:
            raise UserError(
                f"{field}={spec}: its {name} is {theirs} and this run's is {ours}; name a network of that {name}."
            )
    return read_weights(path, found.whole.shapes())


def load_resnet(spec: str, name: str, base_width: int, wanted: Skeleton[Any], field: str) -> Variables:
    """The encoder's weights of a model folder that holds such a ResNet; of "random" the part that is `wanted` drawn anew.
    Raises UserError as `load_backbone`."""
    if spec == "random":
        return wanted.init(0)
    path = Path(spec).expanduser()
    folder = path if (path / DESCRIPTION).is_file() else embedded_folder(spec)
    if folder is None:
        raise UserError(
            f"{field}={spec}: there is no such model folder; make one with `contrique-jax convert from-torch FILE FOLDER` of a "
            f"{name}, or set it to random."
        )
    model, weights = load_model(folder)
    if (model.encoder, model.base_width) != (name, base_width):
        raise UserError(
            f"{field}={spec}: it is a {model.encoder} of base width {model.base_width}, and must be a {name} of {base_width}."
        )
    return {part: weights[part]["encoder"] for part in ("params", "batch_stats")}


def stages_of(model: ModelConfig) -> list[tuple[int, int]]:
    """Stride and channels of the last map of each stage of an encoder."""
    if model.encoder == "efficientnet_lite0":
        return list(zip((2, 4, 8, 16, 16, 32, 32), STAGE_WIDTHS, strict=True))
    return list(zip((4, 8, 16, 32), stage_widths(model.encoder, model.base_width), strict=True))


def part_of(variables: Variables, wanted: Skeleton[Any]) -> Variables:
    """Of a network's variables those that a smaller one has."""
    shapes = wanted.shapes()
    return {part: _common(variables[part], shapes[part]) for part in ("params", "batch_stats")}


def _common(tree: Any, wanted: Any) -> Any:
    return {key: _common(tree[key], below) for key, below in wanted.items()} if isinstance(wanted, Mapping) else tree


def together(networks: Mapping[str, Variables]) -> Variables:
    """The variables of several networks as those of one, each behind its name."""
    return {
        part: {name: own[part] for name, own in networks.items() if own[part]} for part in ("params", "batch_stats")
    }


def one_of(variables: Variables, name: str) -> Variables:
    """Of several networks' variables those of one."""
    return {part: variables[part].get(name, {}) for part in ("params", "batch_stats")}


def hash_of(variables: Variables) -> str:
    """Twelve hexadecimal digits that name these weights, the same on every machine."""
    digest = hashlib.sha256()
    for name, array in sorted(to_flat(variables).items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()[:12]
