"""Inception-ResNet-v2 (Szegedy et al. 2017) up to its tenth small residual block, as maps of several depths.

Names are those of the package pretrainedmodels, whose ImageNet weights (`inceptionresnetv2-520b38e4.pth`) load as they are. An
image of 192 pixels a side gives maps of 21 x 21.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from contrique_jax.networks.convolution import max_pool_inside
from contrique_jax.networks.layers import BatchNorm, BiasedConv, Conv, Map, Statistics

EPSILON = 1e-3  # of every BatchNorm
SCALE = 0.17  # of what a residual block adds
BLOCKS = 10
TAPS = (0, 2, 4, 6, 8, 10)  # outputs of Mixed_5b and of these of the blocks
WIDTH = 320  # channels of each tapped map


class Basic(nnx.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0, *, dtype: jnp.dtype):
        self.conv = Conv(inputs, outputs, size, stride, dtype=dtype)
        self.conv.padding = padding
        self.bn = BatchNorm(outputs, epsilon=EPSILON)

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        return jax.nn.relu(self.bn(self.conv(x), statistics))


class Row(nnx.Module):
    """Layers one after the other, named "0", "1", ...; None leaves a number out."""

    def __init__(self, *layers: Basic | None):
        self.numbers = tuple(i for i, layer in enumerate(layers) if layer is not None)
        for i in self.numbers:
            setattr(self, str(i), layers[i])

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        for i in self.numbers:
            x = getattr(self, str(i))(x, statistics)
        return x


class Mixed(nnx.Module):
    """Mixed_5b: 1x1; 1x1 and 5x5; 1x1 and twice 3x3; means of 3x3 and 1x1, side by side."""

    def __init__(self, dtype: jnp.dtype):
        self.branch0 = Basic(192, 96, 1, dtype=dtype)
        self.branch1 = Row(Basic(192, 48, 1, dtype=dtype), Basic(48, 64, 5, 1, 2, dtype=dtype))
        self.branch2 = Row(
            Basic(192, 64, 1, dtype=dtype), Basic(64, 96, 3, 1, 1, dtype=dtype), Basic(96, 96, 3, 1, 1, dtype=dtype)
        )
        self.branch3 = Row(None, Basic(192, 64, 1, dtype=dtype))

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        sides = [branch(x, statistics) for branch in (self.branch0, self.branch1, self.branch2)]
        return jnp.concatenate([*sides, self.branch3(mean_pool(x), statistics)], axis=3)


class Block35(nnx.Module):
    """Three branches, joined by a 1x1 convolution with a bias, scaled and added to the input; ReLU."""

    def __init__(self, dtype: jnp.dtype):
        self.branch0 = Basic(WIDTH, 32, 1, dtype=dtype)
        self.branch1 = Row(Basic(WIDTH, 32, 1, dtype=dtype), Basic(32, 32, 3, 1, 1, dtype=dtype))
        self.branch2 = Row(
            Basic(WIDTH, 32, 1, dtype=dtype), Basic(32, 48, 3, 1, 1, dtype=dtype), Basic(48, 64, 3, 1, 1, dtype=dtype)
        )
        self.conv2d = BiasedConv(128, WIDTH, 1, dtype=dtype)

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        branches = [branch(x, statistics) for branch in (self.branch0, self.branch1, self.branch2)]
        return jax.nn.relu(x + SCALE * self.conv2d(jnp.concatenate(branches, axis=3)))


class InceptionResNet(nnx.Module):
    """Stem, Mixed_5b and ten residual blocks; what follows in the classifier is left out."""

    def __init__(self, dtype: jnp.dtype):
        self.conv2d_1a = Basic(3, 32, 3, 2, dtype=dtype)
        self.conv2d_2a = Basic(32, 32, 3, dtype=dtype)
        self.conv2d_2b = Basic(32, 64, 3, 1, 1, dtype=dtype)
        self.conv2d_3b = Basic(64, 80, 1, dtype=dtype)
        self.conv2d_4a = Basic(80, 192, 3, dtype=dtype)
        self.mixed_5b = Mixed(dtype)
        self.repeat = nnx.Module()
        for i in range(BLOCKS):
            setattr(self.repeat, str(i), Block35(dtype))

    def __call__(self, images: Float[Array, "n h w 3"], statistics: Statistics) -> list[Map]:
        """The maps of `TAPS`, each of `WIDTH` channels. `images`: (v - 1/2) / (1/2) of v in [0, 1], as its weights expect."""
        x = self.conv2d_2a(self.conv2d_1a(images, statistics), statistics)
        x = max_pool_inside(self.conv2d_2b(x, statistics))
        x = max_pool_inside(self.conv2d_4a(self.conv2d_3b(x, statistics), statistics))
        x = self.mixed_5b(x, statistics)
        maps = [x]
        for i in range(BLOCKS):
            x = getattr(self.repeat, str(i))(x, statistics)
            maps.append(x)
        return [maps[i] for i in TAPS]


def grid_of(side: int) -> int:
    """Pixels along a map of an image of so many; below 1 if nothing is left of it."""
    for shrink, stride in ((3, 2), (3, 1), (3, 2), (3, 1), (3, 2)):  # two stem layers, pool, layer, pool
        side = (side - shrink) // stride + 1
    return side


def mean_pool(x: Map) -> Map:
    """Means of 3x3, stride 1; at the edges of what lies inside the map."""

    def sums(x: Map) -> Map:
        return lax.reduce_window(x, jnp.zeros((), x.dtype), lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
