"""The CONTRIQUE network: encoder, patch pooling, projector (paper, section III).

Outside this module there are plain nested dicts of float32 arrays only: `Variables` holds "params" and "batch_stats",
both named as torchvision and timm name them (encoder/layer1/0/conv1/weight, projector/1/running_mean). Maps are NHWC,
kernels HWIO, linear weights [inputs, outputs].
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.efficientnet import EfficientNetLite0
from contrique_jax.networks.layers import RUNNING, BatchNorm, Statistics, decayed, drawn, kaiming_uniform, parameter
from contrique_jax.networks.lite0 import CENTRE, HALF_RANGE, HEAD, STAGE_WIDTHS
from contrique_jax.networks.pooling import (
    adaptive_average_pool,
    adaptive_statistics,
    global_mean,
    global_statistics,
    normalise,
    window_means,
    window_statistics,
)
from contrique_jax.networks.resnet import ResNet, stage_widths

Variables = dict[str, dict[str, Any]]
# of ImageNet's photographs in [0, 1], red, green, blue: what torchvision's classifiers and their offspring expect taken off
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Linear(nnx.Module):
    """x @ weight without bias, computed in `dtype`, returned in float32."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype):
        self.dtype = dtype
        self.weight = parameter((inputs, outputs), kaiming_uniform)

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        precision = lax.Precision.HIGHEST if self.dtype == jnp.float32 else None
        weight = self.weight[...].astype(self.dtype)
        return jnp.dot(x.astype(self.dtype), weight, precision=precision, preferred_element_type=jnp.float32)


class Projector(nnx.Module):
    """Linear, BatchNorm, ReLU, Linear, BatchNorm, numbered as in the original."""

    def __init__(self, width: int, outputs: int, *, dtype: jnp.dtype):
        setattr(self, "0", Linear(width, width, dtype=dtype))
        setattr(self, "1", BatchNorm(width))
        setattr(self, "3", Linear(width, outputs, dtype=dtype))
        setattr(self, "4", BatchNorm(outputs))

    def __call__(self, x: Float[Array, "n p i"], statistics: Statistics) -> Float[Array, "n p o"]:
        x = jax.nn.relu(getattr(self, "1")(getattr(self, "0")(x), statistics))
        return getattr(self, "4")(getattr(self, "3")(x), statistics)


def encoder_of(model: ModelConfig) -> ResNet | EfficientNetLite0:
    """The encoder's module."""
    dtype = jnp.dtype(model.compute_dtype)
    if model.encoder == "efficientnet_lite0":
        return EfficientNetLite0(dtype=dtype)
    return ResNet(model.encoder, model.base_width, dtype=dtype)


class Contrique(nnx.Module):
    """Encoder and projector; no projector where its `projection_dim` is 0."""

    def __init__(self, model: ModelConfig):
        dtype = jnp.dtype(model.compute_dtype)
        self.patches, self.of_stages = model.patches, model.features == "stages"
        self.encoder = encoder_of(model)
        if model.projection_dim:
            self.projector = Projector(feature_width(model), model.projection_dim, dtype=dtype)

    def patch_features(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, remat: bool = False
    ) -> Float[Array, "n p c"]:
        if self.of_stages:
            maps = self.encoder.stages(images, statistics, remat=remat)
            return adaptive_statistics([x for x, _ in maps], self.patches)
        x, _ = self.encoder(images, statistics, remat=remat)
        return normalise(adaptive_average_pool(x.astype(jnp.float32), self.patches))

    def projections(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, remat: bool = False
    ) -> Float[Array, "n p d"]:
        return self.projector(self.patch_features(images, statistics, remat), statistics)

    def features(
        self, images: Float[Array, "n h w 3"], valid: Int[Array, "n 2"] | None, unit: bool
    ) -> Float[Array, "n c"]:
        if self.of_stages:
            return global_statistics(self.encoder.stages(images, RUNNING, valid))
        means = global_mean(*self.encoder(images, RUNNING, valid))
        return normalise(means) if unit else means

    def windows(
        self, images: Float[Array, "n h w 3"], valid: Int[Array, "n 2"] | None
    ) -> tuple[Float[Array, "n c"], Float[Array, "n g g c"]]:
        if self.of_stages:
            maps = self.encoder.stages(images, RUNNING, valid)
            return global_statistics(maps), window_statistics(maps)
        x, place = self.encoder(images, RUNNING, valid)
        return normalise(global_mean(x, place)), normalise(window_means(x, place))


def feature_width(model: ModelConfig) -> int:
    """Numbers in a feature vector of one scale. Pooled: channels of the last map, 2048 for a ResNet-50 of base width 64,
    1280 for an EfficientNet-Lite0. Stages: twice the channels of all stages, 7680 and 1568."""
    lite = model.encoder == "efficientnet_lite0"
    stages = STAGE_WIDTHS if lite else stage_widths(model.encoder, model.base_width)
    if model.features == "stages":
        return 2 * sum(stages)
    return HEAD if lite else stages[-1]


def init_model(model: ModelConfig, seed: int) -> Variables:
    """Fresh weights on the host, each layer's by its own rule."""
    _, params, batch_stats = _skeleton(dataclasses.astuple(model))
    return {"params": drawn(params, seed), "batch_stats": drawn(batch_stats, seed)}


def decays(model: ModelConfig) -> dict[str, Any]:
    """A tree of booleans like the parameters: which of them weight decay touches."""
    return decayed(_skeleton(dataclasses.astuple(model))[1])


def variable_shapes(model: ModelConfig) -> Variables:
    """`Variables` with `jax.ShapeDtypeStruct` for arrays."""
    _, params, batch_stats = _skeleton(dataclasses.astuple(model))
    return {"params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(batch_stats)}


def project(
    model: ModelConfig,
    variables: Variables,
    views: UInt8[Array, "n v h w 3"] | Float[Array, "n v h w 3"],
    *,
    remat: bool = False,
    axis: str | None = None,
) -> tuple[Float[Array, "v n p d"], dict[str, Any]]:
    """Projections of each view's patches x patches local vectors, row by row, with BatchNorm in training mode.

    `views` are uint8, or float in [0, 1]: of each of n images its v views, which go through the network together. BatchNorm
    takes its statistics over one view at a time (`model.norm_per_view`) or over all of them. With `remat` a backward pass
    keeps the input of each residual block only, and computes the rest again. `axis`: inside a `shard_map`, the mesh axis over
    which images are split; BatchNorm takes its statistics over all of them. Returns float32 projections, not yet normalised
    (the loss does that), and the moved running statistics, `variables["batch_stats"]` of the next step. Raises
    UserError where the model is an encoder without a projector.
    """
    if not model.projection_dim:
        raise UserError("this model is an encoder without a projector: it gives features, and cannot be trained on.")
    network = _bind(model, variables)
    images, count = views.shape[:2]
    joint = scaled(model, views.reshape(-1, *views.shape[2:]))
    z = network.projections(joint, Statistics(count if model.norm_per_view else 1, axis), remat)
    return z.reshape(images, count, *z.shape[1:]).swapaxes(0, 1), nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))


def encode(
    model: ModelConfig,
    variables: Variables,
    images: Float[Array, "n h w 3"] | UInt8[Array, "n h w 3"],
    valid: Int[Array, "n 2"] | None = None,
    *,
    unit: bool = True,
) -> Float[Array, "n c"]:
    """Global features of images of any size, BatchNorm in evaluation mode, float32.

    `model.features` "pooled": means over the last map, L2-normalised if `unit`. "stages": means and deviations over the
    last map of each stage, as they are; an EfficientNet-Lite0's head then takes no part. `images` are float in [0, 1]
    (or uint8).
    `valid` gives the height and width of each image where the batch is padded at the bottom and right; the features are
    then those of the image alone, whatever the padding holds.
    """
    return _bind(model, variables).features(scaled(model, images), valid, unit)


def stage_maps(
    model: ModelConfig, variables: Variables, images: Float[Array, "n h w 3"] | UInt8[Array, "n h w 3"]
) -> list[Float[Array, "n h w c"]]:
    """The last map of each stage of images of one size, BatchNorm in evaluation mode; as `encode`."""
    return [x for x, _ in _bind(model, variables).encoder.stages(scaled(model, images), RUNNING)]


def last_two_maps(
    model: ModelConfig, variables: Variables, images: Float[Array, "n h w 3"] | UInt8[Array, "n h w 3"]
) -> tuple[Float[Array, "n H W d"], Float[Array, "n h w c"]]:
    """Those of strides 16 and 32."""
    maps = stage_maps(model, variables, images)
    return maps[_middle(model)], maps[-1]


def last_two_widths(model: ModelConfig) -> tuple[int, int]:
    """Channels of what `last_two_maps` gives."""
    lite = model.encoder == "efficientnet_lite0"
    stages = STAGE_WIDTHS if lite else stage_widths(model.encoder, model.base_width)
    return stages[_middle(model)], stages[-1]


def _middle(model: ModelConfig) -> int:
    """The last stage of stride 16; an EfficientNet-Lite0 has two of stride 32 behind it."""
    return -3 if model.encoder == "efficientnet_lite0" else -2


def encode_windows(
    model: ModelConfig,
    variables: Variables,
    images: Float[Array, "n h w 3"] | UInt8[Array, "n h w 3"],
    valid: Int[Array, "n 2"] | None = None,
) -> tuple[Float[Array, "n c"], Float[Array, "n g g c"]]:
    """Features as `encode` gives them, and those of every window (`pooling.window_means`) of the same maps."""
    return _bind(model, variables).windows(scaled(model, images), valid)


def scaled(model: ModelConfig, images: Array) -> Float[Array, "n h w 3"]:
    """Bytes, or floats in [0, 1], as the encoder expects them (`model.input_scaling`)."""
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    if model.input_scaling == "imagenet":
        images = (images - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_DEVIATION)
    elif model.input_scaling == "centred":
        images = (255 * images - CENTRE) / HALF_RANGE
    return images


def _bind(model: ModelConfig, variables: Variables) -> Contrique:
    graph, params, batch_stats = _skeleton(dataclasses.astuple(model))
    params, batch_stats = (jax.tree.map(lambda leaf: leaf, state) for state in (params, batch_stats))
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(batch_stats, jax.tree.map(jnp.asarray, variables["batch_stats"]))  # written to in training
    return nnx.merge(graph, params, batch_stats)


@functools.lru_cache(maxsize=16)
def _skeleton(model: tuple[Any, ...]) -> tuple[nnx.GraphDef[Contrique], nnx.State, nnx.State]:
    network = nnx.eval_shape(lambda: Contrique(ModelConfig(*model)))
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    return graph, states[0], states[1]
