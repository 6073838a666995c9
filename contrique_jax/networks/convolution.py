"""Convolution and max-pooling: the one place where the platform chooses the formulation.

XLA compiles its own convolutions well for GPU and TPU, and there they are used as they are; on CUDA the gradient of
max-pooling is not. On CPU it is slow at 1x1 convolutions, at 3x3 ones of colours, at both gradients of strided ones, at
depthwise ones and at the gradient of max-pooling; those are written with matrix products and slices. The numbers agree to
rounding. The choice is made when a function is compiled, for the platform it is compiled for, so a program compiled for a
TPU on a CPU host gets the TPU's.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int8

from contrique_jax.networks.depthwise import LAX, TAPS, Pads

Map = Float[Array, "n h w c"]
Kernel = Float[Array, "k k c d"]
Tap = tuple[int, int]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_POOL = 3
_FEW_CHANNELS = 16
_FEW_PRODUCTS = 3 * 3 * 3
# how each platform computes depthwise convolutions; "default" is every platform that is not named
DEPTHWISE = {"cpu": TAPS, "default": LAX}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: Map, kernel: Kernel, stride: int = 1, padding: int = 0) -> Float[Array, "n oh ow d"]:
    """Cross-correlation as in torch: `padding` zeros on every side, out = (size + 2 padding - k) // stride + 1.

    float32 operands are multiplied in full float32 on every platform.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _cpu_convolve(x, kernel, stride, padding),
        default=lambda x, kernel: _convolve(x, kernel, stride, padding),
    )


def _convolve_forward(x: Map, kernel: Kernel, stride: int, padding: int) -> tuple[Map, tuple[Map, Kernel]]:
    return convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride: int, padding: int, saved: tuple[Map, Kernel], gradient: Map) -> tuple[Map, Kernel]:
    return lax.platform_dependent(
        *saved,
        gradient,
        cpu=lambda x, kernel, g: _cpu_gradients(x, kernel, g, stride, padding),
        default=lambda x, kernel, g: jax.vjp(lambda x, k: _convolve(x, k, stride, padding), x, kernel)[1](g),
    )


convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: Map, kernel: Float[Array, "k k 1 c"], stride: int, pads: Pads) -> Float[Array, "n oh ow c"]:
    """Cross-correlation of each channel with a kernel of its own, k at least `stride`.

    `pads`: zeros around the map, ((top, bottom), (left, right)); out = (size + both pads - k) // stride + 1. The taps sum
    their products in float32; the result has the dtype of `x`.

    On two shared cores, float32, a map of 8x48x64x144 under 5x5 took 8 to 19 ms by taps and 230 by XLA's own, its gradients 78
    and 1168. On an H200, bfloat16, 256x64x64x96 under 3x3: 0.56 ms by taps and 0.31 by cuDNN, 2.7 and 0.5 (docs/gpu.md).
    """
    return lax.platform_dependent(
        x, kernel, **{name: lambda *xs, own=own: own.value(*xs, stride, pads) for name, own in DEPTHWISE.items()}
    )


def _depthwise_forward(x: Map, kernel: Kernel, stride: int, pads: Pads) -> tuple[Map, tuple[Map, Kernel]]:
    return depthwise(x, kernel, stride, pads), (x, kernel)


def _depthwise_backward(stride: int, pads: Pads, saved: tuple[Map, Kernel], gradient: Map) -> tuple[Map, Kernel]:
    return lax.platform_dependent(
        *saved,
        gradient,
        **{name: lambda *xs, own=own: own.gradients(*xs, stride, pads) for name, own in DEPTHWISE.items()},
    )


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@jax.custom_vjp
def max_pool(x: Map) -> Float[Array, "n oh ow c"]:
    """3x3 maxima, stride 2, padding 1. The gradient goes to the first of equal maxima, row by row."""
    return _max_pool(x)


def _max_pool_forward(x: Map) -> tuple[Map, Map]:
    return max_pool(x), x


def _max_pool_backward(x: Map, gradient: Map) -> tuple[Map]:
    return lax.platform_dependent(
        x,
        gradient,
        **{name: lambda x, g: (_max_pool_gradient(x, g),) for name in ("cpu", "cuda")},
        default=lambda x, g: jax.vjp(_max_pool, x)[1](g),
    )


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _precision(dtype: jnp.dtype) -> lax.Precision | None:
    return lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _convolve(x: Map, kernel: Kernel, stride: int, padding: int) -> Map:
    pads = [(padding, padding)] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, precision=_precision(x.dtype)
    )


def _cpu_convolve(x: Map, kernel: Kernel, stride: int, padding: int) -> Map:
    if kernel.shape[0] == 1 and not padding:
        return _product(x[:, ::stride, ::stride], kernel[0, 0])
    if math.prod(kernel.shape[:3]) <= _FEW_PRODUCTS:
        return _few_products(x, kernel, stride, padding)
    return _convolve(x, kernel, stride, padding)


def _few_products(x: Map, kernel: Kernel, stride: int, padding: int) -> Map:
    """A 3x3 convolution of colours, product by product in one pass, which a matrix product does not fill: on two quiet cores
    1.9 ms of CPU in place of 7.4 for the stem of EfficientNet-Lite0 at 512x384."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))).astype(jnp.float32)
    rows, columns = ((side - size) // stride + 1 for side, size in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    out = jnp.zeros((len(x), rows, columns, kernel.shape[3]), jnp.float32)
    for i, j, channel in np.ndindex(kernel.shape[:3]):
        down, across = (slice(at, at + stride * (n - 1) + 1, stride) for at, n in ((i, rows), (j, columns)))
        out += x[:, down, across, channel, None] * kernel[i, j, channel].astype(jnp.float32)
    return out.astype(kernel.dtype)


def _product(x: Map, matrix: Float[Array, "c d"]) -> Map:
    """x @ matrix as one product of two matrices: with more axes XLA transposes the maps in the gradient."""
    rows = jnp.dot(x.reshape(-1, x.shape[-1]), matrix, precision=_precision(x.dtype))
    return rows.reshape(x.shape[:-1] + (-1,))


def _cpu_gradients(x: Map, kernel: Kernel, gradient: Map, stride: int, padding: int) -> tuple[Map, Kernel]:
    if stride == 1:
        value = _cpu_convolve if kernel.shape[0] == 1 else _convolve
        return jax.vjp(lambda x, k: value(x, k, stride, padding), x, kernel)[1](gradient)
    size = kernel.shape[0]
    kernel_gradient = _strided_kernel_gradient(x, gradient, size, stride, padding)
    taps = (((i, j), _product(gradient, kernel[i, j].T)) for i in range(size) for j in range(size))
    return _spread(taps, x.shape, stride, padding), kernel_gradient


def _strided_kernel_gradient(x: Map, gradient: Map, size: int, stride: int, padding: int) -> Kernel:
    """One product of matrices a tap; a single one over all taps where there are too few channels to fill it."""
    rows, columns = (stride * (side - 1) + 1 for side in gradient.shape[1:3])
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [x[:, i:, j:][:, :rows:stride, :columns:stride] for i in range(size) for j in range(size)]
    if x.shape[-1] < _FEW_CHANNELS:
        taps = [jnp.concatenate(taps, axis=-1)]
    products = [_rows_product(tap, gradient) for tap in taps]
    return jnp.concatenate(products).reshape(size, size, x.shape[-1], -1)


def _rows_product(x: Map, y: Map) -> Float[Array, "c d"]:
    """The sum over all pixels of the outer products of their channels."""
    return jnp.dot(x.reshape(-1, x.shape[-1]).T, y.reshape(-1, y.shape[-1]), precision=_precision(x.dtype))


def max_pool_inside(x: Map, padding: int = 0) -> Map:
    """3x3 maxima, stride 2, as `max_pool` but with no padding, or that one; without its gradient."""
    window, strides, pads = (1, _POOL, _POOL, 1), (1, 2, 2, 1), ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


def _max_pool(x: Map) -> Map:
    return max_pool_inside(x, 1)


def _max_pool_gradient(x: Map, gradient: Map) -> Map:
    winner = _first_maximum(x)
    zero = jnp.zeros((), gradient.dtype)
    taps = (((i, j), jnp.where(winner == _POOL * i + j, gradient, zero)) for i in range(_POOL) for j in range(_POOL))
    return _spread(taps, x.shape, 2, 1)


def _first_maximum(x: Map) -> Int8[Array, "n oh ow c"]:
    """Which of the nine positions of each window, row by row, holds its first maximum."""
    height, width = ((side - 1) // 2 + 1 for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    best, winner = x[:, : 2 * height - 1 : 2, : 2 * width - 1 : 2], jnp.zeros((), jnp.int8)
    for position in range(1, _POOL * _POOL):
        i, j = divmod(position, _POOL)
        value = x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        higher = value > best
        best, winner = jnp.where(higher, value, best), jnp.where(higher, jnp.int8(position), winner)
    return winner


def _spread(taps: Iterable[tuple[Tap, Map]], shape: tuple[int, ...], stride: int, padding: int) -> Map:
    """Sums maps into one of `shape`: position (a, b) of tap (i, j) lands on (a stride + i - padding, ...)."""
    placed = []
    for tap, value in taps:
        config = [(0, 0, 0)]
        for offset, side, length in zip(tap, shape[1:3], value.shape[1:3], strict=True):
            low = offset - padding
            config.append((low, side - low - (stride * (length - 1) + 1), stride - 1))
        placed.append(lax.pad(value, jnp.zeros((), value.dtype), config + [(0, 0, 0)]))
    return functools.reduce(jnp.add, placed)
