"""Two formulations of a depthwise convolution and of its gradients, with equal numbers: XLA's own, and tap by tap.

Maps are [n, h, w, c], kernels [k, k, 1, c]; `pads` are zeros around a map, ((top, bottom), (left, right)). Which
formulation a platform gets is `convolution.DEPTHWISE`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Map = Float[Array, "n h w c"]
Kernel = Float[Array, "k k 1 c"]
Pads = tuple[tuple[int, int], tuple[int, int]]


class Formulation(NamedTuple):
    """A way to compute it."""

    value: Callable[[Map, Kernel, int, Pads], Map]
    gradients: Callable[[Map, Kernel, Map, int, Pads], tuple[Map, Kernel]]  # of the map and of the kernel


def _conv(x: Map, kernel: Kernel, stride: int, pads: Pads) -> Map:
    """XLA's own convolution, in as many groups as channels."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
        precision=lax.Precision.HIGHEST if x.dtype == jnp.float32 else None,
    )


def _conv_gradients(x: Map, kernel: Kernel, gradient: Map, stride: int, pads: Pads) -> tuple[Map, Kernel]:
    return jax.vjp(lambda x, kernel: _conv(x, kernel, stride, pads), x, kernel)[1](gradient)


def _taps(x: Map, kernel: Float[Array, "a b 1 c"], stride: int, pads: Pads) -> Map:
    """Pads, then shifts, multiplies and adds, tap by tap, in float32."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = ((padded.shape[axis + 1] - kernel.shape[axis]) // stride + 1 for axis in (0, 1))
    wide = kernel.astype(jnp.float32)
    products = (_shifted(padded, i, j, rows, columns, stride) * wide[i, j] for i, j in _places(kernel))
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _taps_gradients(x: Map, kernel: Kernel, gradient: Map, stride: int, pads: Pads) -> tuple[Map, Kernel]:
    """The map's gradient tap by tap too, the kernel's as sums over all pixels of one product a tap, in float32."""
    padded, wide = jnp.pad(x, ((0, 0), *pads, (0, 0))), gradient.astype(jnp.float32)
    rows, columns = gradient.shape[1:3]
    products = [_shifted(padded, i, j, rows, columns, stride) * wide for i, j in _places(kernel)]
    # one pass along each row for all taps together: a processor's cache then holds what they share
    zeros = (jnp.zeros((), jnp.float32),) * len(products)
    along = lax.reduce(tuple(products), zeros, lambda these, those: tuple(map(jnp.add, these, those)), (2,))
    of_kernel = jnp.stack([jnp.sum(each, (0, 1)) for each in along]).reshape(kernel.shape).astype(kernel.dtype)
    return _map_gradient(x.shape, kernel, gradient, stride, pads), of_kernel


def _map_gradient(shape: tuple[int, ...], kernel: Kernel, gradient: Map, stride: int, pads: Pads) -> Map:
    """Row a x stride + r of the padded map meets taps r, r + stride, ... alone: for each r a correlation without stride,
    of the gradient with those taps in reverse; the results interleave."""
    n, height, width, channels = shape
    (top, bottom), (left, right) = pads
    rows, columns = -(-(top + height + bottom) // stride), -(-(left + width + right) // stride)
    below, beyond = rows - gradient.shape[1], columns - gradient.shape[2]
    phases = []
    for r in range(stride):
        for s in range(stride):
            part = kernel[r::stride, s::stride][::-1, ::-1]
            around = ((part.shape[0] - 1, below), (part.shape[1] - 1, beyond))
            phases.append(_taps(gradient, part, 1, around))
    if stride == 1:
        whole = phases[0]
    else:
        whole = jnp.stack(phases, 3).reshape(n, rows, columns, stride, stride, channels)
        whole = whole.swapaxes(2, 3).reshape(n, rows * stride, columns * stride, channels)
    return whole[:, top : top + height, left : left + width]


def _places(kernel: Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


def _shifted(padded: Map, i: int, j: int, rows: int, columns: int, stride: int) -> Map:
    """What tap (i, j) sees, in float32."""
    seen = padded[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
    return seen.astype(jnp.float32)


LAX = Formulation(_conv, _conv_gradients)
TAPS = Formulation(_taps, _taps_gradients)
