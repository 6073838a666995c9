"""The names that PyTorch programs give a ResNet's arrays, and ours for them.

Ours are torchvision's behind `encoder.`; programs that wrap a torchvision ResNet in an `nn.Sequential` number its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.model.resnet import ARCHITECTURES, Bottleneck

COUNTER = "num_batches_tracked"  # torch counts batches in every BatchNorm; its arithmetic does not depend on the count
_NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_PARTS = {number: part for part, number in _NUMBERS.items()}
_OURS = re.compile(r"encoder\.layer([1-4])\.(\d+)\.")


@dataclass(frozen=True)
class Family:
    """How one kind of file names its encoder."""

    says: str
    prefix: str
    numbered: bool
    input_scaling: str  # what its program does to images


# the first that fits is taken
FAMILIES = (
    Family("CONTRIQUE", "encoder.", True, "unit"),
    Family("ARNIQA", "model.", True, "imagenet"),
    Family("ARNIQA in training", "encoder.model.", True, "imagenet"),
    Family("Re-IQA or this program", "encoder.", False, "unit"),
    Family("MoCo", "encoder_q.", False, "imagenet"),
    Family("torchvision", "", False, "imagenet"),
    Family("an encoder alone as nn.Sequential", "", True, "unit"),
)


def recognise(names: Iterable[str]) -> Family:
    """The family whose names for the first kernel is among `names`. Raises UserError where there is none."""
    known = set(names)
    for family in FAMILIES:
        if f"{family.prefix}{'0' if family.numbered else 'conv1'}.weight" in known:
            return family
    examples = ", ".join(sorted(known)[:3])
    raise UserError(
        f"no ResNet by the names of {', '.join(family.says for family in FAMILIES)} among its {len(known)} tensors "
        f"({examples}, ...); give the state dict of such a model."
    )


def our_names(names: Iterable[str], family: Family) -> dict[str, str]:
    """Our name of every array that a model of ours can hold -> its name in the file. Others, such as a classifier or
    another projector, are left out."""
    known = list(names)
    renamed = {}
    for name in known:
        part, _, rest = name.removeprefix(family.prefix).partition(".")
        part = _PARTS.get(part, "") if family.numbered else part
        if name.startswith(family.prefix) and part in _NUMBERS and rest:
            renamed[f"encoder.{part}.{rest}"] = name
    if family.says == "CONTRIQUE" or "projector.1.running_mean" in known:  # ARNIQA's has no BatchNorm
        renamed |= {name: name for name in known if name.startswith("projector.")}
    return renamed


def original_name(name: str) -> str:
    """Our name -> the original program's: encoder.layer1.0.bn1.weight -> encoder.4.0.bn1.weight."""
    head, part, rest = name.split(".", 2)
    return f"{head}.{_NUMBERS[part]}.{rest}" if head == "encoder" else name


def counters(names: Iterable[str]) -> list[str]:
    """Names of the batch counters that go with the BatchNorms among `names`."""
    return [name.replace("running_mean", COUNTER) for name in names if name.endswith("running_mean")]


def architecture(flat: Mapping[str, np.ndarray], input_scaling: str) -> ModelConfig:
    """The architecture of ours with the nearest numbers of blocks; `flat_shapes` says whether the arrays are of it."""
    blocks = {(match[1], match[2]) for match in map(_OURS.match, flat) if match}
    depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(1, 5))
    wide = "encoder.layer1.0.conv3.weight" in flat
    alike = {name: wanted for name, (block, wanted) in ARCHITECTURES.items() if (block is Bottleneck) == wide}
    nearest = min(alike, key=lambda name: sum(abs(a - b) for a, b in zip(alike[name], depths, strict=True)))
    kernel = flat["encoder.conv1.weight"]
    last = next((flat[name] for name in ("projector.3.weight", "projector.4.weight") if name in flat), None)
    return ModelConfig(
        encoder=nearest,
        base_width=int(kernel.shape[0]) if kernel.ndim else 0,
        projection_dim=0 if last is None or not last.ndim else int(last.shape[0]),
        input_scaling=input_scaling,
    )
