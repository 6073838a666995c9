"""SaTQA's encoder (arXiv 2312.06995): the maps of four stages on one small grid, and the projector of its pre-training.

`Variables` are named as in `encoder`: encoder/..., pool1/conv and pool2/conv (the 1x1 convolutions that narrow the third and
fourth stage), projector/2 and projector/5 (Linear), projector/3 (BatchNorm).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from contrique_jax.config import ModelConfig
from contrique_jax.networks.backbones import stages_of
from contrique_jax.networks.encoder import encoder_of
from contrique_jax.networks.layers import BatchNorm, BiasedConv, BiasedLinear, Map, Sizes, Statistics
from contrique_jax.networks.pooling import cell_means, normalise

STRIDES = (4, 8, 16, 32)  # of the maps, each the last one of its stride


class Size(NamedTuple):
    """What the network is; `projections` 0: without a projector."""

    encoder: str
    base_width: int
    cells: int  # along each side of the grid
    reduced: int  # channels that the third and the fourth stage are brought to; 0: they stay as they are
    hidden: int
    projections: int
    dtype: str


class Narrowed(nnx.Module):
    """A 1x1 convolution under the original's name."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype):
        self.conv = BiasedConv(inputs, outputs, 1, dtype=dtype)


class GridEncoder(nnx.Module):
    """Encoder, 1x1 convolutions, grid; then each place's L2 norm, the mean of all, Linear, BatchNorm, ReLU, Linear."""

    def __init__(self, size: Size):
        dtype = jnp.dtype(size.dtype)
        self.size = size
        self.encoder = encoder_of(_model(size))
        *_, third, fourth = _map_widths(size)
        if size.reduced:
            self.pool1 = Narrowed(third, size.reduced, dtype=dtype)
            self.pool2 = Narrowed(fourth, size.reduced, dtype=dtype)
        if size.projections:
            self.projector = nnx.Module()
            setattr(self.projector, "2", BiasedLinear(grid_width(size), size.hidden, dtype=dtype))
            setattr(self.projector, "3", BatchNorm(size.hidden))
            setattr(self.projector, "5", BiasedLinear(size.hidden, size.projections, dtype=dtype))

    def grid(
        self,
        images: Float[Array, "n h w 3"],
        statistics: Statistics,
        valid: Int[Array, "n 2"] | None = None,
        remat: bool = False,
    ) -> Float[Array, "n g g c"]:
        """The four maps on the grid, side by side, as they are, float32. `valid`: sizes of images in a padded batch."""
        stages = self.encoder.stages(images, statistics, valid, remat)
        by_stride = dict(zip((stride for stride, _ in stages_of(_model(self.size))), stages, strict=True))
        maps = [by_stride[stride] for stride in STRIDES]

        def narrowed(layer: Narrowed, of: tuple[Map, Sizes | None]) -> tuple[Map, Sizes | None]:
            return layer.conv(of[0]), of[1]

        if self.size.reduced:
            maps = [*maps[:2], narrowed(self.pool1, maps[2]), narrowed(self.pool2, maps[3])]
        return jnp.concatenate([cell_means(x, place, self.size.cells) for x, place in maps], axis=-1)

    def features(self, grid: Float[Array, "n g g c"]) -> Float[Array, "n c"]:
        """The mean over the grid of its places' vectors, each of length 1."""
        return jnp.mean(normalise(grid), (1, 2))

    def projected(self, grid: Float[Array, "n g g c"], statistics: Statistics) -> Float[Array, "n d"]:
        """What the loss compares, not yet normalised."""
        x = getattr(self.projector, "2")(self.features(grid))
        return getattr(self.projector, "5")(jax.nn.relu(getattr(self.projector, "3")(x, statistics)))


def _model(size: Size) -> ModelConfig:
    return ModelConfig(encoder=size.encoder, base_width=size.base_width, compute_dtype=size.dtype)


def _map_widths(size: Size) -> list[int]:
    by_stride = dict(stages_of(_model(size)))
    return [by_stride[stride] for stride in STRIDES]


def grid_width(size: Size) -> int:
    """Channels of the grid: 1792 for a ResNet-50 narrowed to 512."""
    first, second, *deep = _map_widths(size)
    return first + second + (2 * size.reduced or sum(deep))
