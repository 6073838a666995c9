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
    moved = offsets.reshape(n, height, width, size, size, 2)
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] - (size - 1) // 2
    columns = jnp.arange(width, dtype=jnp.float32) - (size - 1) // 2
    out = jnp.zeros((), x.dtype)
    for i in range(size):
        for j in range(size):
            y, z = rows + i + moved[:, :, :, i, j, 0], columns + j + moved[:, :, :, i, j, 1]
            out = out + _tap(flat, y.reshape(n, -1), z.reshape(n, -1), kernel[i, j], (height, width))
    return out.reshape(n, height, width, -1)


@functools.partial(jax.checkpoint, static_argnums=(4,))
def _tap(
    flat: Float[Array, "n p c"], y: Float[Array, "n q"], x: Float[Array, "n q"], matrix: Array, sides: tuple[int, int]
) -> Float[Array, "n q d"]:
    precision = lax.Precision.HIGHEST if flat.dtype == jnp.float32 else None
    return jnp.dot(bilinear(flat, y, x, sides), matrix, precision=precision)


def bilinear(
    flat: Float[Array, "n p c"], y: Float[Array, "n q"], x: Float[Array, "n q"], sides: tuple[int, int]
) -> Float[Array, "n q c"]:
    """Maps of the height and width `sides`, their pixels in a row, at places between them; zero outside."""
    corners = []
    for place, side in ((y, sides[0]), (x, sides[1])):
        place = jnp.clip(place, -2, side + 1)  # farther out is zero too, and no whole number overflows
        first = jnp.floor(place)
        share, low = place - first, first.astype(jnp.int32)
        ends = ((low, 1 - share), (low + 1, share))
        corners.append([(jnp.clip(at, 0, side - 1), jnp.where((at >= 0) & (at < side), part, 0)) for at, part in ends])
    total = jnp.zeros((), flat.dtype)
    for row, of_row in corners[0]:
        for column, of_column in corners[1]:
            seen = jax.vmap(lambda pixels, at: pixels[at])(flat, row * sides[1] + column)
            total = total + seen * (of_row * of_column)[:, :, None].astype(flat.dtype)
    return total
