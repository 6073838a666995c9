"""`contrique-jax convert from-torch CKPT OUT`: a PyTorch checkpoint as a model folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.config import FEATURES, INPUT_SCALINGS, Config
from contrique_jax.convert.from_conviqt import SAYS, adopt_conviqt, is_conviqt
from contrique_jax.convert.from_opinions import from_opinions, is_of_opinions
from contrique_jax.convert.torch_file import listed, read_state_dict
from contrique_jax.convert.torch_names import COUNTER, Family, architecture, as_recipes, our_names, recognise
from contrique_jax.errors import UserError, printable
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.recipe_extractor import RecipeExtractor
from contrique_jax.networks.description import DESCRIPTION, check_sizes
from contrique_jax.networks.model_folder import (
    NO_LICENCE,
    content_hash,
    from_flat,
    save_model,
    shapes_of,
)
from contrique_jax.recipes import recipe_named
from contrique_jax.recipes.arniqa.config import CROPS, WHOLE
from contrique_jax.recipes.conviqt.config import ConviqtConfig
from contrique_jax.recipes.recipe import Recipe

GUESS = " (a guess, as the file has no classifier: give --input-scaling imagenet for a backbone cut from torchvision's)"
_SCALING = {
    "unit": "images as they are, in [0, 1]",
    "imagenet": "images less ImageNet's mean, over its deviation",
    "centred": "bytes less 127, over 128",
}


def from_torch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A PyTorch state dict as a model folder: of the original CONTRIQUE, CONVIQT, ARNIQA, Re-IQA, MoCo, torchvision's "
        "ResNet-10 to 152, or the EfficientNet-Lite0 of efficientnet_lite_pytorch or timm; of AHIQ (--vit, --resnet) and "
        "IQA-Conformer, which are meters; or timm's ViT and Inception-ResNet-v2, which such systems are trained on. "
        "Recognised by its names; in half precision, behind module. or inside a training checkpoint too; timm's also as "
        ".safetensors. Only tensors are loaded; a file that would run code is refused. An encoder without CONTRIQUE's "
        "projector gives features, and can only be where training starts "
        "(config.train.init_from); ARNIQA's encoder with its projector and Re-IQA's with its head become models of those "
        "recipes. Features are of the image and its half, L2-normalised if pooled (Re-IQA's are not)."
    )
    parser.epilog = "Example: contrique-jax convert from-torch checkpoint_25.tar models/original"
    parser.add_argument("checkpoint", metavar="CKPT", help=".tar, .pth, .pt, .ckpt or .safetensors")
    parser.add_argument("out", metavar="OUT", help="the model folder")
    parser.add_argument(
        "--input-scaling",
        choices=INPUT_SCALINGS,
        help="what the network expects: unit is [0, 1], imagenet less mean and over deviation, centred bytes less 127 and "
        "over 128 (default: what the program "
        "of the file does; for Re-IQA unit is the quality-aware model and imagenet the content-aware one, whose names do not "
        "differ: if the file's name has content in it, imagenet)",
    )
    parser.add_argument(
        "--features",
        choices=FEATURES,
        default="pooled",
        help="what an image's vector is: pooled is the mean of the last map, stages means and deviations of each stage's "
        "last map (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder-only",
        action="store_true",
        help="without a projector: of ARNIQA's and Re-IQA's files too an encoder of CONTRIQUE's kind, which has maps, can "
        "stand under other networks (config.model.trunk) and be written by to-onnx and to-torch",
    )
    parser.add_argument(
        "--crops",
        choices=CROPS,
        help="of ARNIQA's files, what an image's features are of: five is the mean over crops at its centre and in its "
        "corners, as in its test and for its regressors; whole is all of it, as its torch.hub model takes it (default: five)",
    )
    parser.add_argument(
        "--trunk",
        metavar="M",
        help="of CONVIQT's checkpoint, which has no encoder: the converted CONTRIQUE that it stands on",
    )
    for flag, network in (("--vit", "ViT"), ("--resnet", "ResNet-50")):
        parser.add_argument(
            flag,
            metavar="FILE",
            help=f"of AHIQ's heads, which have no frozen networks: timm's {network} that they stand on, a PyTorch file",
        )
    parser.add_argument(
        "--licence", metavar="TEXT", default=NO_LICENCE, help="of the weights, kept in the model folder"
    )


def from_torch(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no such checkpoint; nothing is written then."""
    path, out = Path(args.checkpoint).expanduser(), Path(args.out).expanduser()
    tensors, others = read_state_dict(path)
    for flag in ("crops", "encoder_only"):
        if getattr(args, flag) and (is_conviqt(tensors) or is_of_opinions(tensors)):
            name = flag.replace("_", "-")
            raise UserError(f"{path}: no encoder with a projector, which --{name} is for; leave it out.")
    if is_conviqt(tensors):
        _from_conviqt(args, path, out, tensors)
        return
    if is_of_opinions(tensors):
        _check_place(out)
        from_opinions(args, path, out, tensors, others)
        return
    family, model, flat, left = adopt(path, tensors, args.input_scaling, args.features, args.crops, args.encoder_only)
    for name, array in flat.items():
        if name.endswith(COUNTER) and not (array.size == 1 and np.isfinite(array).all()):
            raise UserError(f"{path}: {name} should be one number and is {array.ravel()[:3]}; save the model again.")
    _check_place(out)
    variables = from_flat({name: array for name, array in flat.items() if not name.endswith(COUNTER)})
    counts = {name: int(array.item()) for name, array in flat.items() if name.endswith(COUNTER) and np.any(array)}
    provenance = {"converted from": path.name, "recognised as": family.says, **({COUNTER: counts} if counts else {})}
    content = _hash(family.recipe, model, variables)
    if _holds_another(out, content):
        raise UserError(f"{out}: holds another model, to which probes may be tied; name another folder.")
    save_model(out, model, variables, provenance=provenance, licence=args.licence, recipe=family.recipe)
    print(f"{out}: {model.encoder} from {path.name} (names of {family.says}), model {content}")
    guess = GUESS if not args.input_scaling and _is_bare(family, tensors) else ""
    print(f"input: {_SCALING[model.input_scaling]}{guess}")
    if family.kinds and family.recipe != Config.recipe:
        print(
            f"a {model.kind} model of the recipe {family.recipe!r}, with its projector; --input-scaling says which kind"
        )
    elif family.crops:
        looks = "at the whole image" if model.crops == WHOLE else f"at {model.looked_at}"
        print(
            f"a model of the recipe {family.recipe!r}, with its projector; it looks {looks}, at full and at half size"
        )
    elif not model.projection_dim:
        print("no projector of CONTRIQUE's in it: it gives features, no projections")
    if left or others:
        print(printable("left out: " + ", ".join(listed(left, others))))


def _hash(recipe: str, model: Any, variables: Any) -> str:
    """What names the model, and ties probes to it."""
    if recipe == Config.recipe:
        return content_hash(model, variables)
    return RecipeExtractor(_config_of(recipe_named(recipe), model), variables).model_hash


def _config_of(recipe: Recipe, model: Any) -> Any:
    config = recipe.Config()
    config.model = model
    return config


def _check_place(out: Path) -> None:
    run_folder = out.absolute().parent if out.name == "model" else out  # a run's own model lies in it
    if (run_folder / "checkpoints").exists():
        raise UserError(f"{out}: belongs to a training run; name another folder.")


def _from_conviqt(args: argparse.Namespace, path: Path, out: Path, tensors: Mapping[str, np.ndarray]) -> None:
    _check_place(out)
    if (out / DESCRIPTION).exists():
        raise UserError(f"{out}: holds a model, to which probes may be tied; name another folder.")
    model, variables = adopt_conviqt(path, tensors, args.trunk)
    provenance = {"converted from": path.name, "recognised as": SAYS, "trunk": args.trunk}
    save_model(out, model, variables, provenance=provenance, licence=args.licence, recipe=ConviqtConfig.recipe)
    print(
        f"{out}: {SAYS} from {path.name} on {args.trunk}, a GRU of {model.hidden_width} over {model.block_frames} frames"
    )


def _holds_another(folder: Path, content: str) -> bool:
    try:
        return (folder / DESCRIPTION).exists() and open_extractor(str(folder)).model_hash != content
    except UserError:  # a damaged one may be replaced
        return False


def adopt(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    input_scaling: str | None,
    features: str = "pooled",
    crops: str | None = None,
    encoder_only: bool = False,
) -> tuple[Family, Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(whose names they are, the architecture, the arrays by our names, those left out by theirs).

    Raises UserError if the arrays are of no network of ours, after a list of both sides' names and shapes on stderr.
    """
    try:
        family = recognise(tensors, whole=features == "pooled" and not encoder_only)
        names = our_names(tensors, family, encoder_only)
        flat = {ours: tensors[theirs] for ours, theirs in names.items()}
        plain = architecture(flat, input_scaling or _scaling(path, family, tensors), features)
        model = as_recipes(family, plain, crops)
        check_sizes(model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    recipe = recipe_named(family.recipe)
    wanted = shapes_of(recipe.variable_shapes(_config_of(recipe, model)))
    weights = {name: array for name, array in flat.items() if not name.endswith(COUNTER)}
    differences = two_sided(weights, wanted, names)
    if differences:
        lines = ["name, in the file, in " + model.encoder, *map(printable, differences)]
        print("\n".join(lines), file=sys.stderr)
        raise UserError(
            f"{path}: {len(differences)} arrays do not fit a {model.encoder} of base width {model.base_width}, the nearest "
            "by its names; see the list above."
        )
    broken = [name for name, array in weights.items() if not np.isfinite(array).all()]
    if broken:
        raise UserError(f"{path}: NaN or infinity in {names[broken[0]]}; take an earlier checkpoint.")
    negative = [name for name, array in weights.items() if name.endswith("running_var") and (array < 0).any()]
    if negative:
        raise UserError(f"{path}: {names[negative[0]]} holds a negative variance; take an earlier checkpoint.")
    kept = set(names.values())
    return family, model, flat, {name: array for name, array in tensors.items() if name not in kept}


def two_sided(
    found: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], names: Mapping[str, str]
) -> list[str]:
    """A line for every array in which the two differ: its name, what the file has, what the architecture has.

    `names`: our name -> the file's, which is shown; ours if the file has no such array.
    """
    lines = []
    for name in sorted(found.keys() | wanted.keys()):
        array = found.get(name)
        there = "-" if array is None else f"{array.dtype}{list(array.shape)}"
        here = f"float32{list(wanted[name])}" if name in wanted else "-"
        if there != here:
            lines.append(f"  {names.get(name, name):<44} {there:<28} {here}")
    return lines


def _scaling(path: Path, family: Family, tensors: Mapping[str, np.ndarray]) -> str:
    named = [scaling for scaling, kind in family.kinds.items() if kind in path.name.lower()]
    if named:
        return named[0]
    return "unit" if _is_bare(family, tensors) else family.input_scaling


def _is_bare(family: Family, tensors: Mapping[str, np.ndarray]) -> bool:
    """A bare ResNet without a classifier is not torchvision's own file: to-torch --encoder-only writes such ones."""
    return not family.prefix and not family.first.endswith("conv_stem") and "fc.weight" not in tensors
