"""What the encoders are built of: convolutions without bias, BatchNorm, and sizes inside a padded batch.

Maps are NHWC, kernels HWIO. Parameters and BatchNorm statistics are float32; convolutions run in the compute dtype.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.networks.convolution import convolve

MOMENTUM = 0.1  # torch's sense: the share of the new batch in the running statistics
EPSILON = 1e-5

Map = Float[Array, "n h w c"]


class AtEnd(NamedTuple):
    """Heights and widths of images that lie in the bottom right corner of their maps."""

    sizes: Int[Array, "n 2"]


Sizes = Int[Array, "n 2"] | AtEnd  # of images in the top left corner, or in the other


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def ones(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)


def zeros(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def kaiming_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of a kernel [k, k, inputs, outputs], over its fan-out; torchvision's rule for convolutions."""
    return generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / (shape[0] * shape[1] * shape[3])))


def kaiming_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of a matrix [inputs, outputs], with a = sqrt(5); torch's rule for linear layers."""
    bound = 1 / math.sqrt(shape[0])
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def parameter(shape: tuple[int, ...], draw: Draw, *, decays: bool = True) -> nnx.Param[Array]:
    """A float32 parameter that says how it is drawn, and whether weight decay touches it; until it is drawn, ones if that is
    what it begins with, else zeros."""
    return nnx.Param(jnp.full(shape, float(draw is ones), jnp.float32), draw=draw, decays=decays)


def drawn(state: nnx.State, seed: int) -> dict[str, Any]:
    """Nested arrays for a network's state, each drawn as its layer says, from (seed, its name) alone: it does not change when
    the network around it does."""
    arrays = {}
    for path, variable in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        arrays[tuple(map(str, path))] = variable.get_metadata()["draw"](generator, variable.shape)
    return unflatten_dict(arrays)


def decayed(params: nnx.State) -> dict[str, Any]:
    """A tree of booleans like the parameters: which of them weight decay touches, as their layers say."""
    flat = nnx.to_flat_state(params)
    return unflatten_dict({tuple(map(str, path)): variable.get_metadata()["decays"] for path, variable in flat})


class Statistics(NamedTuple):
    """Whose mean and variance BatchNorm takes."""

    batches: (
        int  # the first axis holds so many batches in turn, and each has its own; 0: the running ones, of the module
    )
    axis: str | None = None  # inside a `shard_map`: the mesh axis over which the rows of every batch are split


RUNNING = Statistics(0)


class Conv(nnx.Module):
    """A square convolution without bias, padded by (size - 1) // 2."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, dtype: jnp.dtype):
        self.stride, self.padding, self.dtype = stride, (size - 1) // 2, dtype
        self.weight = parameter((size, size, inputs, outputs), kaiming_normal)

    def __call__(self, x: Map) -> Map:
        return convolve(x.astype(self.dtype), self.weight[...].astype(self.dtype), self.stride, self.padding)


class BiasedConv(Conv):
    """The same with a bias; both drawn as torch's. Computed in `dtype`, returned in it."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, dtype: jnp.dtype):
        super().__init__(inputs, outputs, size, stride, dtype=dtype)
        draw = functools.partial(like_torch, size * size * inputs)
        self.weight = parameter((size, size, inputs, outputs), draw)
        self.bias = parameter((outputs,), draw, decays=False)

    def __call__(self, x: Map) -> Map:
        return super().__call__(x) + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Normalises over all axes but the last, in float32, and returns the dtype it was given.

    In training the first axis holds several batches in turn (the two views of each image), and each is normalised by its
    own statistics, as if it went through alone; a batch is the global one, however it is sharded. The running ones move
    by `momentum` once a batch; the running variance is the unbiased one, as in torch.
    """

    def __init__(self, width: int, *, momentum: float = MOMENTUM, epsilon: float = EPSILON):
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = parameter((width,), ones, decays=False)
        self.bias = parameter((width,), zeros, decays=False)
        self.running_mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32), draw=zeros)
        self.running_var = nnx.BatchStat(jnp.ones((width,), jnp.float32), draw=ones)

    def __call__(self, x: Float[Array, "n *rest c"], statistics: Statistics) -> Float[Array, "n *rest c"]:
        weight, bias = self.weight[...], self.bias[...]
        if not statistics.batches:
            scale = weight * lax.rsqrt(self.running_var[...] + self.epsilon)
            return (x.astype(jnp.float32) * scale + (bias - self.running_mean[...] * scale)).astype(x.dtype)
        y, mean, variance = normalised(x, weight, bias, statistics, self.epsilon)
        count = _values(x, statistics)
        unbiased = variance * (count / max(count - 1, 1))
        for batch in range(statistics.batches):
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running[...] = (1 - self.momentum) * running[...] + self.momentum * lax.stop_gradient(new[batch])
        return y


class LayerNorm(nnx.Module):
    """Each row with mean 0 and variance 1 in float32, then a weight and a bias a channel; returns the dtype it was given."""

    def __init__(self, width: int, *, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self.weight = parameter((width,), ones, decays=False)
        self.bias = parameter((width,), zeros, decays=False)

    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        wide = x.astype(jnp.float32)
        off = wide - jnp.mean(wide, -1, keepdims=True)
        root = lax.rsqrt(jnp.mean(jnp.square(off), -1, keepdims=True) + self.epsilon)
        return (off * root * self.weight[...] + self.bias[...]).astype(x.dtype)


class BiasedLinear(nnx.Module):
    """x @ weight + bias, computed in `dtype`, returned in float32; both drawn as torch's, or the weight by `draw` and the bias
    as zeros."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype, draw: Draw | None = None):
        self.dtype = dtype
        self.weight = parameter((inputs, outputs), draw or kaiming_uniform)
        bias = zeros if draw else functools.partial(like_torch, inputs)
        self.bias = parameter((outputs,), bias, decays=False)

    def __call__(self, x: Float[Array, "*n i"]) -> Float[Array, "*n o"]:
        precision = lax.Precision.HIGHEST if self.dtype == jnp.float32 else None
        weight = self.weight[...].astype(self.dtype)
        product = jnp.dot(x.astype(self.dtype), weight, precision=precision, preferred_element_type=jnp.float32)
        return product + self.bias[...]


def like_torch(inputs: int, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Torch's rule for the bias of a layer with so many inputs, and for the kernel of a convolution."""
    bound = 1 / np.sqrt(inputs)
    return generator.uniform(-bound, bound, shape).astype(np.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalised(
    x: Float[Array, "n *rest c"],
    weight: Float[Array, " c"],
    bias: Float[Array, " c"],
    statistics: Statistics,
    epsilon: float,
) -> tuple[Float[Array, "n *rest c"], Float[Array, "b c"], Float[Array, "b c"]]:
    """x normalised by its own batches, in its dtype, and their means and (biased) variances, which have no gradient.

    The gradient is written out, because a map is large and each look at it costs: two sums in one pass, then the result in
    another (Ioffe and Szegedy 2015, section 3). In float32 the variance is taken about the mean; in bfloat16, whose rounding
    is coarser than what cancels, the mean of squares comes in one pass with the mean.
    """
    return _normalised(x, weight, bias, statistics, epsilon)[0]


def _normalised(x: Array, weight: Array, bias: Array, statistics: Statistics, epsilon: float) -> tuple[Any, Any]:
    wide, count = x.astype(jnp.float32), _values(x, statistics)

    def mean_of(values: Array) -> Float[Array, "b c"]:
        mean = _batch_sums(values, statistics) / count
        return mean if statistics.axis is None else lax.psum(mean, statistics.axis)

    mean = mean_of(wide)
    if x.dtype == jnp.float32:
        variance = mean_of(jnp.square(wide - _each_row(mean, x.shape)))
    else:
        variance = jnp.maximum(mean_of(jnp.square(wide)) - jnp.square(mean), 0)
    root = lax.rsqrt(variance + epsilon)
    scale = weight * root
    offset = bias - mean * scale
    y = (wide * _each_row(scale, x.shape) + _each_row(offset, x.shape)).astype(x.dtype)
    return (y, mean, variance), (x, weight, mean, root)


def _gradients(
    statistics: Statistics, epsilon: float, saved: tuple[Array, ...], pulls: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    x, weight, mean, root = saved
    pull = pulls[0].astype(jnp.float32)
    standard = (x.astype(jnp.float32) - _each_row(mean, x.shape)) * _each_row(root, x.shape)
    of_bias, of_weight = here = _batch_sums(pull, statistics), _batch_sums(pull * standard, statistics)
    if statistics.axis is not None:  # what a mean pulls back is of all devices; the parameters' share is of this one
        here = lax.psum(here, statistics.axis)
    constant, linear = (_each_row(total / _values(x, statistics), x.shape) for total in here)
    of_x = _each_row(weight * root, x.shape) * (pull - constant - standard * linear)
    return of_x.astype(x.dtype), jnp.sum(of_weight, 0), jnp.sum(of_bias, 0)


normalised.defvjp(_normalised, _gradients)


def _batch_sums(x: Float[Array, "n *rest c"], statistics: Statistics) -> Float[Array, "b c"]:
    """Sums over each batch, of this device's rows."""
    # each row first: the map keeps its shape, which a reshape of it to batches would cost in copies
    rows = jnp.sum(x, tuple(range(1, x.ndim - 1)))
    return jnp.sum(rows.reshape(-1, statistics.batches, x.shape[-1]), 0)


def _values(x: Float[Array, "n *rest c"], statistics: Statistics) -> int:
    """How many values of a channel a batch has, over all devices."""
    devices = 1 if statistics.axis is None else lax.axis_size(statistics.axis)
    return x.size // x.shape[-1] // statistics.batches * devices


def _each_row(of_batch: Float[Array, "b c"], shape: tuple[int, ...]) -> Float[Array, "n *ones c"]:
    """What belongs to each batch, at each row of a map of that shape."""
    rows = jnp.tile(of_batch, (shape[0] // len(of_batch), 1))
    return rows.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1])


def kept_or_again(layer: Callable[..., Map], remat: bool) -> Callable[..., Map]:
    """A layer as a function of (module, map, statistics, ...), its inside kept for the backward pass or computed again."""
    return nnx.remat(layer, static_argnums=(2,)) if remat else layer


def halved(valid: Sizes | None, stride: int) -> Sizes | None:
    """Sizes after a strided layer: padding (k - 1) // 2 and TensorFlow's SAME both make it ceil(size / stride)."""
    if valid is None or stride == 1:
        return valid
    return AtEnd((valid.sizes - 1) // stride + 1) if isinstance(valid, AtEnd) else (valid - 1) // stride + 1


def heights_and_widths(valid: Sizes) -> Int[Array, "n 2"]:
    """The sizes, whatever the corner."""
    return valid.sizes if isinstance(valid, AtEnd) else valid


def inside(x: Map, valid: Sizes | None) -> Map:
    """The map with zeros outside the images."""
    if valid is None:
        return x
    real = []
    for axis, side in enumerate(x.shape[1:3]):
        at, sizes = jnp.arange(side)[None, :], heights_and_widths(valid)[:, axis : axis + 1]
        real.append(at >= side - sizes if isinstance(valid, AtEnd) else at < sizes)
    return jnp.where(real[0][:, :, None, None] & real[1][:, None, :, None], x, jnp.zeros((), x.dtype))
