"""Layers computed a few rows at a time, so that what lies between them never exists as a whole map.

On a CPU the expanded maps of a large image do not fit its caches, nor those of a photograph of 12 megapixels its memory. The
numbers are the same: a strip sees the rows around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Map = Float[Array, "n h w c"]

ELEMENTS = 1 << 21  # of the widest map inside a strip


class Part(NamedTuple):
    """A map that a layer reads: row i of the layer's output needs its rows i x step to i x step + size - 1."""

    map: Map
    step: int
    size: int


def wanted(shape: tuple[int, ...], width: int) -> bool:
    """Whether a map [n, h, w] with so many channels is worth it: of one image alone, since several lie too far apart for a
    strip to be one piece. GPUs have the memory, and want all rows at once."""
    return jax.default_backend() == "cpu" and shape[0] == 1 and shape[1] * shape[2] * width > ELEMENTS


def by_strips(layer: Callable[..., Map], parts: Sequence[Part], rows: int, width: int) -> Map:
    """`layer` of strips of the parts, each with the rows it needs -> `rows` rows of output, put together.

    `width`: channels of the widest map inside, at the resolution of the first part.
    """
    first = parts[0]
    row = first.map.shape[0] * first.map.shape[2] * width * first.step
    count = -(-rows // max(ELEMENTS // row, 1))
    per = -(-rows // count)
    padded = []
    for part in parts:
        needed = (count * per - 1) * part.step + part.size
        below = max(needed - part.map.shape[1], 0)
        padded.append(jnp.pad(part.map, ((0, 0), (0, below), (0, 0), (0, 0))))

    def strip(index: Array) -> Map:
        seen = []
        for whole, part in zip(padded, parts, strict=True):
            length = (per - 1) * part.step + part.size
            seen.append(lax.dynamic_slice_in_dim(whole, index * per * part.step, length, 1))
        return layer(*seen)

    made = jnp.moveaxis(lax.map(strip, jnp.arange(count)), 0, 1)
    return made.reshape(made.shape[0], count * per, *made.shape[3:])[:, :rows]
