"""Deformable convolution (Dai et al. 2017, arXiv 1703.06211; without modulation), as gathered pixels and matrix products.

Every tap of the kernel looks at a place of its own at every pixel: its usual one plus an offset, between pixels bilinearly,
zero outside the map. One group, stride 1, the output as large as the input.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from contrique_jax.networks.layers import Map, like_torch, parameter


class DeformableConv(nnx.Module):
    """A square kernel of odd size, padded by (size - 1) // 2, with a bias or without; both drawn as torch's."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, bias: bool = True, dtype: jnp.dtype):
        draw = functools.partial(like_torch, size * size * inputs)
        self.dtype = dtype
        self.weight = parameter((size, size, inputs, outputs), draw)
        if bias:
            self.bias = parameter((outputs,), draw, decays=False)

    def __call__(self, x: Map, offsets: Float[Array, "n h w 2*t"]) -> Map:
        """`offsets` in pixels, down and right, of each tap in turn, row by row: dy, dx, dy, dx, ... as torchvision's.
        Computed in the layer's dtype, places in float32."""
        out = deformable_convolve(
            x.astype(self.dtype), offsets.astype(jnp.float32), self.weight[...].astype(self.dtype)
        )
        return out + self.bias[...].astype(self.dtype) if hasattr(self, "bias") else out


def deformable_convolve(x: Map, offsets: Float[Array, "n h w 2*t"], kernel: Float[Array, "k k c d"]) -> Map:
    """The sum over the taps of (the map where the tap looks) @ (the tap's matrix).

    The backward pass gathers again: what a tap sees is as large as the map.
    """
    size, (n, height, width, channels) = len(kernel), x.shape
    flat = x.reshape(n, height * width, channels)
    moved = jnp.moveaxis(offsets.reshape(n, height * width, size**2, 2), 2, 0)
    usual = jnp.stack(jnp.mgrid[:height, :width], axis=-1).reshape(1, height * width, 2)
    taps = jnp.stack(jnp.mgrid[:size, :size], axis=-1).reshape(size**2, 1, 1, 2) - (size - 1) // 2
    places, matrices = moved + (usual + taps), kernel.reshape(size**2, channels, -1)
    first = _tap(flat, places[0], matrices[0], (height, width))

    def add(total: Array, tap: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _tap(flat, *tap, (height, width)), None

    return lax.scan(add, first, (places[1:], matrices[1:]))[0].reshape(n, height, width, -1)


@functools.partial(jax.checkpoint, static_argnums=(3,))
def _tap(
    flat: Float[Array, "n p c"], places: Float[Array, "n q 2"], matrix: Float[Array, "c d"], sides: tuple[int, int]
) -> Float[Array, "n q d"]:
    precision = lax.Precision.HIGHEST if flat.dtype == jnp.float32 else None
    return jnp.dot(bilinear(flat, places, sides), matrix, precision=precision)


def bilinear(
    flat: Float[Array, "n p c"], places: Float[Array, "n q 2"], sides: tuple[int, int]
) -> Float[Array, "n q c"]:
    """Maps of the height and width `sides`, their pixels in a row, at places (down, right) between them; zero outside."""
    corners = []
    for axis, side in enumerate(sides):
        place = jnp.clip(places[:, :, axis], -2, side + 1)  # farther out is zero too, and no whole number overflows
        first = jnp.floor(place)
        share, low = place - first, first.astype(jnp.int32)
        at, part = jnp.stack([low, low + 1], -1), jnp.stack([1 - share, share], -1)
        corners.append((jnp.clip(at, 0, side - 1), jnp.where((at >= 0) & (at < side), part, 0)))
    (rows, of_rows), (columns, of_columns) = corners
    index = (rows[:, :, :, None] * sides[1] + columns[:, :, None, :]).reshape(len(flat), -1, 4)
    weights = (of_rows[:, :, :, None] * of_columns[:, :, None, :]).reshape(index.shape).astype(flat.dtype)
    seen = jax.vmap(lambda pixels, at: pixels[at])(flat, index)
    return jnp.sum(seen * weights[:, :, :, None], axis=2)
