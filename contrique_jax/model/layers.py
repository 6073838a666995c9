"""What the encoders are built of: convolutions without bias, BatchNorm, and sizes inside a padded batch.

Maps are NHWC, kernels HWIO. Parameters and BatchNorm statistics are float32; convolutions run in the compute dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.model.convolution import convolve

MOMENTUM = 0.1  # torch's sense: the share of the new batch in the running statistics
EPSILON = 1e-5

Map = Float[Array, "n h w c"]
Sizes = Int[Array, "n 2"]


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
        self.weight = nnx.Param(jnp.zeros((size, size, inputs, outputs), jnp.float32))

    def __call__(self, x: Map) -> Map:
        return convolve(x.astype(self.dtype), self.weight[...].astype(self.dtype), self.stride, self.padding)


class BatchNorm(nnx.Module):
    """Normalises over all axes but the last, in float32, and returns the dtype it was given.

    In training the first axis holds several batches in turn (the two views of each image), and each is normalised by its
    own statistics, as if it went through alone; a batch is the global one, however it is sharded. The running ones move
    by `momentum` once a batch; the running variance is the unbiased one, as in torch.
    """

    def __init__(self, width: int, *, momentum: float = MOMENTUM, epsilon: float = EPSILON):
        self.momentum, self.epsilon = momentum, epsilon
        self.weight = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.running_mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32))
        self.running_var = nnx.BatchStat(jnp.ones((width,), jnp.float32))

    def __call__(self, x: Float[Array, "n *rest c"], statistics: Statistics) -> Float[Array, "n *rest c"]:
        wide = x.astype(jnp.float32)
        if statistics.batches:
            mean, variance = self._batch_statistics(wide, statistics)
        else:
            mean, variance = self.running_mean[...], self.running_var[...]
        scale = self.weight[...] * lax.rsqrt(variance + self.epsilon)
        offset = self.bias[...] - mean * scale
        if statistics.batches:
            scale, offset = _each_row(scale, x.shape), _each_row(offset, x.shape)
        return (wide * scale + offset).astype(x.dtype)

    def _batch_statistics(
        self, x: Float[Array, "n *rest c"], statistics: Statistics
    ) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
        def mean_of_batches(x: Array) -> Array:
            # each row first: the map keeps its shape, which a reshape of it to batches would cost in copies
            rows = jnp.mean(x, tuple(range(1, x.ndim - 1)))
            mean = jnp.mean(rows.reshape(-1, statistics.batches, x.shape[-1]), 0)
            return mean if statistics.axis is None else lax.pmean(mean, statistics.axis)

        mean = mean_of_batches(x)
        here, devices = mean, 1
        if statistics.axis is not None:  # or the backward pass would sum over devices what belongs to single rows
            here, devices = lax.pcast(mean, statistics.axis, to="varying"), lax.axis_size(statistics.axis)
        variance = mean_of_batches(jnp.square(x - _each_row(here, x.shape)))
        count = x.size // x.shape[-1] // statistics.batches * devices
        unbiased = variance * (count / max(count - 1, 1))
        for batch in range(statistics.batches):
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running[...] = (1 - self.momentum) * running[...] + self.momentum * lax.stop_gradient(new[batch])
        return mean, variance


def _each_row(of_batch: Float[Array, "b c"], shape: tuple[int, ...]) -> Float[Array, "n *ones c"]:
    """What belongs to each batch, at each row of a map of that shape."""
    rows = jnp.tile(of_batch, (shape[0] // len(of_batch), 1))
    return rows.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1])


def kept_or_again(layer: Callable[..., Map], remat: bool) -> Callable[..., Map]:
    """A layer as a function of (module, map, statistics, ...), its inside kept for the backward pass or computed again."""
    return nnx.remat(layer, static_argnums=(2,)) if remat else layer


def halved(valid: Sizes | None, stride: int) -> Sizes | None:
    """Sizes after a strided layer: padding (k - 1) // 2 and TensorFlow's SAME both make it ceil(size / stride)."""
    return valid if valid is None or stride == 1 else (valid - 1) // stride + 1


def inside(x: Map, valid: Sizes | None) -> Map:
    if valid is None:
        return x
    rows = jnp.arange(x.shape[1])[None, :] < valid[:, :1]
    columns = jnp.arange(x.shape[2])[None, :] < valid[:, 1:]
    mask = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(mask, x, jnp.zeros((), x.dtype))
