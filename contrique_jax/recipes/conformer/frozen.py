"""The frozen network under IQA-Conformer, and the maps that it takes of it."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from contrique_jax.networks.backbones import (
    InceptionBackbone,
    load_backbone,
    one_of,
    stages_of,
    together,
)
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.inception_resnet import InceptionResNet
from contrique_jax.networks.layers import RUNNING, Map
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.recipes.conformer.config import STRIDES, ConformerModel
from contrique_jax.recipes.opinions import on_backbones
from contrique_jax.recipes.opinions.on_backbones import still, unit


def network(model: ConformerModel) -> Skeleton[Any]:
    """Inception-ResNet-v2's."""
    return skeleton(InceptionResNet, jnp.dtype(model.compute_dtype))


def shapes(model: ConformerModel) -> Variables:
    """Of the frozen network, without memory for it."""
    return together({"inception": network(model).shapes()}) if model.of_paper else on_backbones.trunk_shapes(model)


def load(model: ConformerModel) -> Variables:
    """The weights that `model` names, on the host. Raises UserError if there are none, or they are of another network."""
    return _loaded(model.inception) if model.of_paper else on_backbones.load_own(model)


@functools.lru_cache(maxsize=2)
def _loaded(spec: str) -> Variables:
    return together({"inception": load_backbone(spec, InceptionBackbone(), "config.model.inception")})


def maps(model: ConformerModel, variables: Variables, images: Array) -> Map:
    """All tapped maps side by side, of bytes or floats in [0, 1]; no gradient runs through them."""
    if model.of_paper:
        tapped = network(model).bind(one_of(variables, "inception"))(unit(images), RUNNING)
        return still(jnp.concatenate(tapped, axis=3))
    stages, side = on_backbones.trunk_maps(model, variables, images), images.shape[1] // max(STRIDES)
    strides = [stride for stride, _ in stages_of(model.of_trunk)]
    kept = [_means(x, side) for stride, x in zip(strides, stages, strict=True) if stride in STRIDES]
    return still(jnp.concatenate(kept, axis=3))


def _means(x: Map, side: int) -> Map:
    """A map brought to so many pixels a side."""
    times = x.shape[1] // side
    return x.reshape(len(x), side, times, side, times, -1).mean((2, 4))
