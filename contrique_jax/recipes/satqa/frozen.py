"""The frozen networks under SaTQA's judge, and what it takes of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.backbones import load_backbone, one_of, part_of, together
from contrique_jax.networks.description import DESCRIPTION, folder_at, read_description, stored_architecture
from contrique_jax.networks.encoder import Variables, scaled
from contrique_jax.networks.grid_encoder import GridEncoder
from contrique_jax.networks.layers import RUNNING
from contrique_jax.networks.model_folder import read_weights
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.networks.trunk import load_trunk
from contrique_jax.networks.vit import ViT, as_map
from contrique_jax.recipes.opinions.on_backbones import PARTS, still
from contrique_jax.recipes.satqa.config import TAPS, GridModel, PretrainConfig, SatqaModel

# of a trunk, under its own name and the judge's
SAME = (("encoder", "encoder"), ("base_width", "base_width"), ("input_scaling", "input_scaling"), ("patches", "cells"))
WIDTH = (("reduced_width", "reduced_width"),)


class Given(NamedTuple):
    """What the judge is given of images."""

    tokens: Float[Array, "n h w t"]
    grid: Float[Array, "n g g c"]


def skeletons(model: SatqaModel) -> tuple[Skeleton[ViT], Skeleton[GridEncoder]]:
    return skeleton(ViT, model.backbone.size(TAPS), jnp.dtype(model.compute_dtype)), skeleton(GridEncoder, model.grid)


def shapes(model: SatqaModel) -> Variables:
    """Of all frozen networks, without memory for any."""
    vit, encoder = (part.shapes() for part in skeletons(model))
    return _together(vit, encoder)


def load(model: SatqaModel) -> Variables:
    """The weights that `model` names, on the host. Raises UserError if there are none, or they are of other networks."""
    kept = ("vit", "trunk", "patch", "vit_width", "vit_heads", "vit_side", *(ours for _, ours in (*SAME, *WIDTH)))
    return _loaded(*((name, getattr(model, name)) for name in kept))


@functools.lru_cache(maxsize=2)
def _loaded(*fields: tuple[str, Any]) -> Variables:
    model = SatqaModel(**dict(fields))
    vit, encoder = skeletons(model)
    found = part_of(load_backbone(model.vit, model.backbone, "config.model.vit"), vit)
    return _together(found, _trunk(model, encoder))


def _together(vit: Variables, encoder: Variables) -> Variables:
    named = together({"vit": vit})
    return {part: named[part] | encoder[part] for part in PARTS}


def _trunk(model: SatqaModel, wanted: Skeleton[GridEncoder]) -> Variables:
    if model.trunk == "random":
        return wanted.init(0)
    folder = folder_at(Path(model.trunk).expanduser())
    if folder is not None and (said := read_description(folder)).get("recipe") == PretrainConfig.recipe:
        found = stored_architecture(said.get("architecture"), GridModel, folder / DESCRIPTION)
        for theirs, ours in (*SAME, *WIDTH):
            if (value := getattr(found, theirs)) != getattr(model, ours):
                raise UserError(
                    f"config.model.trunk={model.trunk}: its {theirs} is {value!r} and config.model.{ours} is "
                    f"{getattr(model, ours)!r}; set --config.model.{ours}={value} or name another trunk."
                )
        return part_of(read_weights(folder, skeleton(GridEncoder, found.grid).shapes()), wanted)
    if model.reduced_width:
        raise UserError(
            f"config.model.trunk={model.trunk}: is no model of {PretrainConfig.recipe}; train one, or set "
            "--config.model.reduced_width=0 for the maps of another encoder as they are."
        )
    return part_of(load_trunk(model), wanted)


def given(model: SatqaModel, variables: Variables, images: Array) -> Given:
    """Of bytes, or floats in [0, 1]; no gradient runs through it."""
    vit, encoder = skeletons(model)
    tokens = vit.bind(one_of(variables, "vit"))(_scaled(model.vit_scaling, images))
    sides = tuple(side // model.patch for side in images.shape[1:3])
    side_by_side = jnp.concatenate([as_map(each, (sides[0], sides[1])) for each in tokens], axis=3)
    return still(Given(side_by_side, encoder.bind(variables).grid(_scaled(model.input_scaling, images), RUNNING)))


def _scaled(scaling: str, images: Array) -> Float[Array, "n h w 3"]:
    return scaled(ModelConfig(input_scaling=scaling), images)
