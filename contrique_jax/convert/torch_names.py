"""The names that PyTorch programs give an encoder's arrays, and ours for them.

Ours are torchvision's behind `encoder.`; programs that wrap a torchvision ResNet in an `nn.Sequential` number its parts. An
EfficientNet-Lite0's are timm's; the package efficientnet_lite_pytorch counts all blocks in one row.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contrique_jax.config import Config, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.lite0 import STAGES
from contrique_jax.networks.resnet import ARCHITECTURES, Bottleneck
from contrique_jax.recipes import recipe_named

COUNTER = "num_batches_tracked"  # torch counts batches in every BatchNorm; its arithmetic does not depend on the count
_NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
_PARTS = {number: part for part, number in _NUMBERS.items()}
_OURS = re.compile(r"encoder\.layer([1-4])\.(\d+)\.")

_PACKAGE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_PACKAGE_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PACKAGE_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


@dataclass(frozen=True)
class Family:
    """How one kind of file names its encoder."""

    says: str
    prefix: str
    first: str  # its first kernel, behind the prefix
    input_scaling: str  # what its program does to images
    recipe: str = Config.recipe  # whose model it is, if its projector is there too
    projector: str = ""  # of another recipe's: what its names begin with
    kinds: Mapping[str, str] = field(default_factory=dict)  # of a recipe with several kinds of model: by input scaling
    crops: str = ""  # of a recipe that knows several: in which its program's test looks at an image


# the first that fits is taken
FAMILIES = (
    Family(
        "Re-IQA",
        "encoder.",
        "conv1",
        "unit",
        recipe="reiqa",
        projector="head.",
        kinds={"unit": "quality", "imagenet": "content"},
    ),
    Family("CONTRIQUE", "encoder.", "0", "unit"),
    Family("ARNIQA", "model.", "0", "imagenet", recipe="arniqa", projector="projector.", crops="five"),
    Family(
        "ARNIQA in training",
        "encoder.model.",
        "0",
        "imagenet",
        recipe="arniqa",
        projector="encoder.projector.",
        crops="five",
    ),
    Family("ARNIQA's encoder", "model.", "0", "imagenet"),
    Family("ARNIQA's encoder in training", "encoder.model.", "0", "imagenet"),
    Family("this program", "encoder.", "conv1", "unit"),
    Family("MoCo", "encoder_q.", "conv1", "imagenet"),
    Family("torchvision", "", "conv1", "imagenet"),
    Family("an encoder alone as nn.Sequential", "", "0", "unit"),
    Family("efficientnet_lite_pytorch", "", "_conv_stem", "centred"),
    Family("timm's tf_efficientnet_lite0", "", "conv_stem", "centred"),
    Family("this program's EfficientNet-Lite0", "encoder.", "conv_stem", "centred"),
)
_LITE_PARTS = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")


def recognise(names: Iterable[str], whole: bool = True) -> Family:
    """The family whose name for the first kernel is among `names`, and of another recipe's its projector's too. Not `whole`: a
    family of encoders alone. Raises UserError if there is none."""
    known = set(names)
    for family in FAMILIES:
        fits = not family.projector or f"{family.projector}0.weight" in known
        if fits and f"{family.prefix}{family.first}.weight" in known:
            return family if whole else dataclasses.replace(family, recipe=Config.recipe, projector="", crops="")
    examples = ", ".join(sorted(known)[:3])
    raise UserError(
        f"no network by the names of {', '.join(family.says for family in FAMILIES)} among its {len(known)} tensors "
        f"({examples}, ...); give the state dict of such a model."
    )


def our_names(names: Iterable[str], family: Family, encoder_only: bool = False) -> dict[str, str]:
    """Our name of every array that a model of ours can hold -> its name in the file. Others, such as a classifier or
    another projector, are left out; `encoder_only`: any projector."""
    known = list(names)
    lite = family.first.endswith("conv_stem")
    renamed = {}
    for name in known:
        bare = name.removeprefix(family.prefix)
        part, _, rest = (_of_package(bare) if family.first == "_conv_stem" else bare).partition(".")
        part = _PARTS.get(part, "") if family.first == "0" else part
        if name.startswith(family.prefix) and part in (_LITE_PARTS if lite else _NUMBERS) and rest:
            renamed[f"encoder.{part}.{rest}"] = name
    if encoder_only:
        return renamed
    if family.projector:
        for name in known:
            if name.startswith(family.projector):
                renamed[f"projector.{name.removeprefix(family.projector)}"] = name
    elif family.says == "CONTRIQUE" or "projector.1.running_mean" in known:  # others' has no BatchNorm
        renamed |= {name: name for name in known if name.startswith("projector.")}
    return renamed


def _of_package(name: str) -> str:
    """A name in efficientnet_lite_pytorch -> timm's: _blocks.1._expand_conv.weight -> blocks.1.0.conv_pw.weight."""
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{_PACKAGE.get(part, part)}.{rest}"
    number, _, rest = rest.partition(".")
    layer, _, leaf = rest.partition(".")
    places = [(stage, i, shape[2]) for stage, shape in enumerate(STAGES) for i in range(shape[-1])]
    if not number.isdigit() or int(number) >= len(places):
        return name
    stage, i, expansion = places[int(number)]
    layers = _PACKAGE_BLOCK if expansion > 1 else _PACKAGE_FIRST_BLOCK
    return f"blocks.{stage}.{i}.{layers.get(layer, layer)}.{leaf}"


def original_name(name: str) -> str:
    """Our name -> the original program's: encoder.layer1.0.bn1.weight -> encoder.4.0.bn1.weight. Other encoders' stay."""
    head, part, rest = name.split(".", 2)
    return f"{head}.{_NUMBERS[part]}.{rest}" if head == "encoder" and part in _NUMBERS else name


def counters(names: Iterable[str]) -> list[str]:
    """Names of the batch counters that go with the BatchNorms among `names`."""
    return [name.replace("running_mean", COUNTER) for name in names if name.endswith("running_mean")]


def as_recipes(family: Family, model: ModelConfig, crops: str | None) -> Any:
    """The architecture as a model of the family's recipe; `crops`: in which it looks at an image, if not as its program's test.
    Raises UserError for an input scaling that it has no kind for, and for crops where the family has none."""
    if crops and not family.crops:
        raise UserError(f"of {family.says} and not a whole file of ARNIQA's, which --crops is for; leave it out.")
    if family.recipe == Config.recipe:
        return model
    fields = dataclasses.asdict(model) | {"patches": 1} | ({"crops": crops or family.crops} if family.crops else {})
    if family.kinds:
        if model.input_scaling not in family.kinds:
            known = " or ".join(f"{scaling} ({kind})" for scaling, kind in family.kinds.items())
            raise UserError(f"of {family.says}, whose images are {known}, not {model.input_scaling}.")
        fields["kind"] = family.kinds[model.input_scaling]
    theirs = dataclasses.replace(recipe_named(family.recipe).Config().model, **fields)
    theirs.validate()
    return theirs


def architecture(flat: Mapping[str, np.ndarray], input_scaling: str, features: str = "pooled") -> ModelConfig:
    """The architecture of ours with the nearest numbers of blocks; the shapes of its arrays say whether these are of it."""
    lasts = ("projector.3.weight", "projector.4.weight", "projector.2.weight")
    last = next((flat[name] for name in lasts if name in flat), None)
    projection_dim = 0 if last is None or not last.ndim else int(last.shape[0])
    if "encoder.conv_stem.weight" in flat:
        return ModelConfig(
            encoder="efficientnet_lite0",
            projection_dim=projection_dim,
            input_scaling=input_scaling,
            features=features,
        )
    blocks = {(match[1], match[2]) for match in map(_OURS.match, flat) if match}
    depths = tuple(sum(stage == str(i) for stage, _ in blocks) for i in range(1, 5))
    wide = "encoder.layer1.0.conv3.weight" in flat
    alike = {name: wanted for name, (block, wanted) in ARCHITECTURES.items() if (block is Bottleneck) == wide}
    nearest = min(alike, key=lambda name: sum(abs(a - b) for a, b in zip(alike[name], depths, strict=True)))
    kernel = flat["encoder.conv1.weight"]
    return ModelConfig(
        encoder=nearest,
        base_width=int(kernel.shape[0]) if kernel.ndim else 0,
        projection_dim=projection_dim,
        input_scaling=input_scaling,
        features=features,
    )
