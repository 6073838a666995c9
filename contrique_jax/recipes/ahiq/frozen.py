"""The frozen networks under AHIQ, and the maps that it takes of them."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from contrique_jax.networks.ahiq import Pair
from contrique_jax.networks.backbones import (
    VitBackbone,
    load_backbone,
    load_resnet,
    one_of,
    part_of,
    stages_of,
    together,
)
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.layers import RUNNING, Map
from contrique_jax.networks.resnet import ResNet, Stage
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.networks.vit import ViT, as_map
from contrique_jax.recipes.ahiq.config import TAPS, AhiqModel
from contrique_jax.recipes.opinions import on_backbones
from contrique_jax.recipes.opinions.on_backbones import still, unit

RESNET = "resnet50"


class FirstLayer(ResNet):
    """A ResNet-50 up to its first layer."""

    def __init__(self, base_width: int, dtype: jnp.dtype):
        super().__init__(RESNET, base_width, dtype=dtype, layers=1)

    def maps(self, images: Array) -> Map:
        """The maps of its three blocks side by side."""
        first: Stage = getattr(self, "layer1")  # noqa: B009
        return jnp.concatenate([x for x, _ in first.blocks(self.stem(images, RUNNING), RUNNING)], axis=3)


def skeletons(model: AhiqModel) -> dict[str, Skeleton[Any]]:
    """Of the ViT and the ResNet, by their names in the variables."""
    dtype = jnp.dtype(model.compute_dtype)
    return {
        "vit": skeleton(ViT, _vit(model).size(TAPS), dtype),
        RESNET: skeleton(FirstLayer, model.base_width, dtype),
    }


def shapes(model: AhiqModel) -> Variables:
    """Of all frozen networks, without memory for any."""
    if not model.of_paper:
        return on_backbones.trunk_shapes(model)
    return together({name: part.shapes() for name, part in skeletons(model).items()})


def load(model: AhiqModel) -> Variables:
    """The weights that `model` names, on the host. Raises UserError if there are none, or they are of other networks."""
    if not model.of_paper:
        return on_backbones.load_own(model)
    where = model.vit, model.patch, model.vit_width, model.vit_heads, model.vit_side
    return _loaded(*where, model.resnet, model.base_width)


@functools.lru_cache(maxsize=2)
def _loaded(vit: str, patch: int, width: int, heads: int, side: int, resnet: str, base_width: int) -> Variables:
    model = AhiqModel(patch=patch, vit_width=width, vit_heads=heads, vit_side=side, base_width=base_width)
    own = skeletons(model)
    found = {
        "vit": load_backbone(vit, _vit(model), "config.model.vit"),
        RESNET: load_resnet(resnet, RESNET, base_width, own[RESNET], "config.model.resnet"),
    }
    return together({name: part_of(weights, own[name]) for name, weights in found.items()})


def maps(model: AhiqModel, variables: Variables, images: Array) -> Pair:
    """Deep and shallow map of bytes, or floats in [0, 1]; no gradient runs through them."""
    if not model.of_paper:
        strides = [stride for stride, _ in stages_of(model.of_trunk)]
        by_stride = dict(zip(strides, on_backbones.trunk_maps(model, variables, images), strict=True))
        coarse = jnp.repeat(jnp.repeat(by_stride[16], 2, 1), 2, 2)
        return still(Pair(jnp.concatenate([by_stride[8], coarse], axis=3), by_stride[4]))
    vit, resnet = (part.bind(one_of(variables, name)) for name, part in skeletons(model).items())
    x, grid = unit(images), (images.shape[1] // model.patch, images.shape[2] // model.patch)
    deep = jnp.concatenate([as_map(tokens, grid) for tokens in vit(x)], axis=3)
    return still(Pair(deep, resnet.maps(x)))


def _vit(model: AhiqModel) -> VitBackbone:
    return VitBackbone(model.patch, model.vit_width, model.vit_heads, model.vit_side, max(TAPS) + 1)
