"""PyTorch files of AHIQ, IQA-Conformer and the networks under them -> model folders."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.convert import torch_opinions as names
from contrique_jax.convert.torch_file import listed, read_state_dict
from contrique_jax.errors import UserError, printable
from contrique_jax.networks.backbones import InceptionBackbone, hash_of, save_backbone
from contrique_jax.networks.description import DESCRIPTION
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.model_folder import from_flat, save_model, shapes_of
from contrique_jax.recipes import recipe_named
from contrique_jax.recipes.ahiq.config import TAPS, AhiqModel
from contrique_jax.recipes.conformer.config import ConformerModel
from contrique_jax.recipes.opinions.on_backbones import frozen_of

Tensors = Mapping[str, np.ndarray]
# what the heads were trained on: timm 0.5.4's; a plain `vit_base_patch8_224` of today has other weights (augreg2)
VIT_TAG = "vit_base_patch{}_224.augreg_in21k_ft_in1k"
RESNET_TAG = "resnet50.a1_in1k"
ELO_MEAN, ELO_DEVIATION = 1448.9595, 121.5351  # of PIPAL's training part, which IQA-Conformer's targets are in
ELO_RANGE = 1000.0, 1700.0  # between which its answers on PIPAL's test part lie


def is_of_opinions(tensors: Tensors) -> bool:
    return names.kind_of(tensors) is not None


def from_opinions(args: argparse.Namespace, path: Path, out: Path, tensors: Tensors, others: list[str]) -> None:
    """Raises UserError for files that are not what they should be; nothing is written then."""
    if (out / DESCRIPTION).exists():
        raise UserError(f"{out}: holds a model, to which probes may be tied; name another folder.")
    kind = names.kind_of(tensors)
    provenance = {"converted from": path.name, "recognised as": kind}
    if kind in (names.VIT, names.INCEPTION):
        backbone, weights, used = _backbone(path, kind, tensors)
        save_backbone(out, backbone, weights, provenance, args.licence)
        print(f"{out}: a frozen network for training, {kind} from {path.name}, weights {hash_of(weights)}")
        if kind == names.VIT:
            print(f"patches of {backbone.patch} pixels, {backbone.depth} blocks of width {backbone.width}")
    else:
        of = _ahiq if kind == names.AHIQ else _conformer
        recipe, model, weights, used, said = of(args, path, tensors)
        save_model(out, model, weights, provenance=provenance | said, licence=args.licence, recipe=recipe)
        print(f"{out}: {kind} from {path.name}, a meter that compares an image with its reference")
        print(
            f"frozen weights {model.trunk_hash}; scores {model.score_low:g} to {model.score_high:g}, higher is better"
        )
    left = {name: array for name, array in tensors.items() if name not in used and not name.endswith(names.COUNTER)}
    if left or others:
        print(printable("left out: " + ", ".join(listed(left, others))))


def _backbone(path: Path, kind: str, tensors: Tensors) -> tuple[Any, Variables, set[str]]:
    """The whole network of a file, and which of its names that are."""
    vit = kind == names.VIT
    try:
        backbone: Any = names.vit_of(tensors) if vit else InceptionBackbone()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    found = (names.vit_names if vit else names.inception_names)(tensors)
    flat = {ours: tensors[theirs] for ours, theirs in found.items()}
    return backbone, fitted(path, flat, backbone.whole.shapes(), found), set(found.values())


def _ahiq(args: argparse.Namespace, path: Path, heads: Tensors) -> tuple[str, Any, Variables, set[str], dict[str, str]]:
    """The recipe's name, the architecture, all weights, the heads' names, and where the frozen ones are from."""
    if args.vit is None or args.resnet is None:
        raise UserError(
            f"{path}: AHIQ's heads, which stand on two frozen networks of timm's: give --vit the file of "
            f"{VIT_TAG.format(8)} (16 for the model of patch 16) and --resnet that of {RESNET_TAG}."
        )
    vit_file, resnet_file = (Path(name).expanduser() for name in (args.vit, args.resnet))
    tensors, _ = read_state_dict(vit_file)
    if names.FIRST[names.VIT] not in tensors:
        raise UserError(f"{vit_file}: is no ViT of timm's; give the file of {VIT_TAG.format(8)}.")
    resnet, _ = read_state_dict(resnet_file)
    if getattr(resnet.get("layer1.2.conv3.weight"), "ndim", 0) != 4:
        raise UserError(f"{resnet_file}: is no ResNet-50 of timm's or torchvision's; give the file of {RESNET_TAG}.")
    vit, weights, _ = _backbone(vit_file, names.VIT, tensors)
    named = re.search(r"p(?:atch)?[_-]?(8|16)(?!\d)", path.name)
    if named and int(named[1]) != vit.patch:
        raise UserError(
            f"{path}: its name says patches of {named[1]} pixels, and those of {vit_file} are of {vit.patch}; give "
            f"{VIT_TAG.format(named[1])}."
        )
    if vit.patch not in (8, 16) or vit.depth <= max(TAPS):
        raise UserError(
            f"{vit_file}: patches of {vit.patch} and {vit.depth} blocks; AHIQ's has 8 or 16, and at least 5."
        )

    def channels(name: str, axis: int) -> int:
        array = heads.get(name)
        if array is None or array.ndim != 4:
            raise UserError(f"{path}: {name} is missing or no kernel; give the whole file of AHIQ's heads.")
        return int(array.shape[axis])

    deep, wanted = channels("deform_net.conv_offset.weight", 1), len(TAPS) * vit.width
    if deep != wanted:
        raise UserError(
            f"{path}: was trained on {deep} channels of a ViT, and {vit_file} gives {wanted}; give the ViT it was trained on."
        )
    model = AhiqModel(
        patch=vit.patch, vit_width=vit.width, vit_heads=vit.heads, vit_side=vit.side,
        base_width=len(resnet["layer1.2.conv3.weight"]) // 4, crop_size=vit.side * vit.patch,
        fused=channels("deform_net.deform.weight", 0), bottleneck=channels("deform_net.conv1.0.weight", 0),
        projected=channels("regressor.down_channel.weight", 0),
        smoothed=channels("regressor.feat_smoothing.0.weight", 0), compute_dtype="float32",
    )  # fmt: skip
    below = {f"vit.{name}": tensors[name] for name in names.vit_names(tensors) if _tapped(name)}
    below |= {f"resnet50.{name}": a for name, a in resnet.items() if name.startswith(("conv1.", "bn1.", "layer1."))}
    flat = {name: array for name, array in (below | dict(heads)).items() if not name.endswith(names.COUNTER)}
    del weights  # checked above; of the ViT only the first blocks are kept
    said = {"vit": vit_file.name, "resnet": resnet_file.name}
    return ("ahiq", *_whole(path, "ahiq", model, flat, {name: name for name in flat}), set(heads), said)


def _tapped(name: str) -> bool:
    return not name.startswith("blocks.") or int(name.split(".")[1]) <= max(TAPS)


def _conformer(
    args: argparse.Namespace, path: Path, tensors: Tensors
) -> tuple[str, Any, Variables, set[str], dict[str, str]]:
    found = names.conformer_names(tensors)
    flat = {ours: tensors[theirs] for ours, theirs in found.items()}
    plain = "emb_q.weight" in flat  # the transformer's token
    feed = "ff_module" if plain else "ff_module1"
    wide, hidden = flat.get("conv_proj.weight"), flat.get(f"encoder.blocks.0.{feed}.layers.1.weight")
    if wide is None or wide.ndim != 4 or hidden is None or hidden.ndim != 2:
        raise UserError(f"{path}: conv_proj or the encoder's blocks are missing; give the whole checkpoint.")
    model = ConformerModel(
        width=len(wide), hidden=len(hidden), crops="ten", compute_dtype="float32", score_zero=ELO_MEAN,
        score_unit=ELO_DEVIATION, score_low=ELO_RANGE[0], score_high=ELO_RANGE[1],
        kind="transformer" if plain else "conformer",
    )  # fmt: skip
    return ("conformer", *_whole(path, "conformer", model, flat, found), set(found.values()), {})


def _whole(path: Path, recipe: str, model: Any, flat: Tensors, found: Mapping[str, str]) -> tuple[Any, Variables]:
    """The architecture with the hash of the frozen weights, and all weights."""
    try:
        model.validate()
    except UserError as error:
        raise UserError(f"{path}: its arrays are of no such network ({error})") from error
    config = recipe_named(recipe).Config()
    config.model = model
    weights = fitted(path, flat, recipe_named(recipe).variable_shapes(config), found)
    model.trunk_hash = hash_of(frozen_of(model, weights))
    return model, weights


def fitted(path: Path, flat: Tensors, wanted: Variables, found: Mapping[str, str]) -> Variables:
    """Arrays by our names as variables. Raises UserError if names, shapes or numbers are not those of the network."""
    shapes = shapes_of(wanted)
    for name in sorted(shapes.keys() | flat.keys()):
        here, there = shapes.get(name), tuple(flat[name].shape) if name in flat else None
        if here != there:
            raise UserError(
                f"{path}: {found.get(name, name)} is {'not there' if there is None else list(there)}, where the network has "
                f"{'none' if here is None else list(here)}; give its whole state dict."
            )
    for name, array in flat.items():
        if not np.isfinite(array).all() or (name.endswith("running_var") and (array < 0).any()):
            raise UserError(
                f"{path}: NaN, infinity or a negative variance in {found.get(name, name)}; take another file."
            )
    return from_flat(flat)
