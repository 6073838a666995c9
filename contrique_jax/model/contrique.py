"""The CONTRIQUE network: ResNet, patch pooling, projector (paper, section III).

Outside this module there are plain nested dicts of float32 arrays only: `Variables` holds "params" and "batch_stats",
both named as torchvision names them (encoder/layer1/0/conv1/weight, projector/1/running_mean). Maps are NHWC, kernels
HWIO, linear weights [inputs, outputs].
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.model.resnet import ARCHITECTURES, RUNNING, BatchNorm, ResNet, Statistics

Variables = dict[str, dict[str, Any]]
# of ImageNet's photographs in [0, 1], red, green, blue: what torchvision's classifiers and their offspring expect taken off
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Linear(nnx.Module):
    """x @ weight without bias, computed in `dtype`, returned in float32."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype):
        self.dtype = dtype
        self.weight = nnx.Param(jnp.zeros((inputs, outputs), jnp.float32))

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


class Contrique(nnx.Module):
    """Encoder and projector; no projector where its `projection_dim` is 0."""

    def __init__(self, model: ModelConfig):
        dtype = jnp.dtype(model.compute_dtype)
        self.patches = model.patches
        self.encoder = ResNet(model.encoder, model.base_width, dtype=dtype)
        if model.projection_dim:
            self.projector = Projector(feature_width(model), model.projection_dim, dtype=dtype)

    def patch_features(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, remat: bool = False
    ) -> Float[Array, "n p c"]:
        x, _ = self.encoder(images, statistics, remat=remat)
        return normalise(adaptive_average_pool(x.astype(jnp.float32), self.patches))

    def projections(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, remat: bool = False
    ) -> Float[Array, "n p d"]:
        return self.projector(self.patch_features(images, statistics, remat), statistics)

    def features(self, images: Float[Array, "n h w 3"], valid: Int[Array, "n 2"] | None) -> Float[Array, "n c"]:
        x, sizes = self.encoder(images, RUNNING, valid)
        total = jnp.sum(x.astype(jnp.float32), (1, 2))
        if sizes is None:
            return normalise(total / (x.shape[1] * x.shape[2]))
        return normalise(total / jnp.prod(sizes, axis=1, keepdims=True).astype(jnp.float32))


def feature_width(model: ModelConfig) -> int:
    """Numbers in a feature vector of one scale: 2048 for a ResNet-50 of base width 64."""
    block, depths = ARCHITECTURES[model.encoder]
    return (model.base_width << (len(depths) - 1)) * block.expansion


def init_model(model: ModelConfig, seed: int) -> Variables:
    """Fresh weights on the host by torchvision's and torch's rules: Kaiming normal over fan-out for convolutions,
    Kaiming uniform with a = sqrt(5) for linear layers, BatchNorm 1 and 0.

    Each array is drawn from (seed, its name) alone, so it does not change when the network around it does.
    """

    def fill(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = ".".join(str(part.key) for part in path[1:])
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(leaf.shape) == 4:
            fan_out = leaf.shape[0] * leaf.shape[1] * leaf.shape[3]
            return generator.standard_normal(leaf.shape, np.float32) * np.float32(math.sqrt(2 / fan_out))
        if len(leaf.shape) == 2:
            bound = 1 / math.sqrt(leaf.shape[0])
            return generator.uniform(-bound, bound, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, float(name.endswith(("weight", "running_var"))), np.float32)

    return jax.tree_util.tree_map_with_path(fill, variable_shapes(model))


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
    joint = _scaled(model, views.reshape(-1, *views.shape[2:]))
    z = network.projections(joint, Statistics(count if model.norm_per_view else 1, axis), remat)
    return z.reshape(images, count, *z.shape[1:]).swapaxes(0, 1), nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))


def encode(
    model: ModelConfig,
    variables: Variables,
    images: Float[Array, "n h w 3"] | UInt8[Array, "n h w 3"],
    valid: Int[Array, "n 2"] | None = None,
) -> Float[Array, "n c"]:
    """L2-normalised global features of images of any size, BatchNorm in evaluation mode, float32.

    `images` are float in [0, 1] (or uint8). `valid` gives the height and width of each image where the batch is padded
    at the bottom and right; the features are then those of the image alone, whatever the padding holds.
    """
    return _bind(model, variables).features(_scaled(model, images), valid)


def normalise(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """x divided by its L2 norm along the last axis; zero stays zero."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def adaptive_average_pool(x: Float[Array, "n h w c"], patches: int) -> Float[Array, "n p c"]:
    """Means over patches x patches cells, row by row; cell i of a side spans floor(i s / p) to ceil((i + 1) s / p)."""
    height, width = x.shape[1:3]
    rows = [(i * height // patches, -(-(i + 1) * height // patches)) for i in range(patches)]
    columns = [(i * width // patches, -(-(i + 1) * width // patches)) for i in range(patches)]
    return jnp.stack([jnp.mean(x[:, a:b, c:d], (1, 2)) for a, b in rows for c, d in columns], axis=1)


def _scaled(model: ModelConfig, images: Array) -> Float[Array, "n h w 3"]:
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    if model.input_scaling == "imagenet":
        images = (images - jnp.array(IMAGENET_MEAN)) / jnp.array(IMAGENET_DEVIATION)
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
