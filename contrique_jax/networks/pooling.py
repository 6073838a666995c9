"""From maps to vectors: means of the last map, or means and deviations of each stage's last map;
of whole images, of patches in training, of overlapping windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.networks.host_pooling import LEAST_VARIANCE, WINDOW, WINDOWS
from contrique_jax.networks.layers import AtEnd, Map, Sizes, heights_and_widths, inside


def normalise(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """x divided by its L2 norm along the last axis; zero stays zero."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def global_mean(x: Map, valid: Sizes | None) -> Float[Array, "n c"]:
    """Means over the map, in float32. With `valid` over that part of it; outside, the map is zero."""
    total = jnp.sum(x.astype(jnp.float32), (1, 2))
    if valid is None:
        return total / (x.shape[1] * x.shape[2])
    return total / jnp.prod(heights_and_widths(valid), axis=1, keepdims=True).astype(jnp.float32)


def global_statistics(maps: Sequence[tuple[Map, Sizes | None]]) -> Float[Array, "n d"]:
    """Of each map in turn: means over it, then deviations, in float32; of the part that its sizes cover, if it has any."""
    vectors = []
    for x, valid in maps:
        wide = inside(x.astype(jnp.float32), valid)
        mean = global_mean(wide, valid)
        off = inside(wide - mean[:, None, None], valid)
        vectors += [mean, _deviation(global_mean(jnp.square(off), valid))]
    return jnp.concatenate(vectors, axis=1)


def window_means(x: Map, valid: Sizes | None) -> Float[Array, "n g g c"]:
    """Means over `WINDOWS` x `WINDOWS` overlapping windows, row by row, in float32. Each spans `WINDOW` of the height and
    of the width, of the part that `valid` covers; the first begins at the top left corner, the last ends at the bottom
    right one. A pixel that a window's edge cuts counts by its share."""
    valid = jnp.array([x.shape[1:3]], jnp.int32) if valid is None else valid
    rows, columns = (_shares_in(x.shape[axis + 1], valid, axis) for axis in (0, 1))
    count = (len(x), WINDOWS)
    rows, columns = (jnp.broadcast_to(weights, (*count, weights.shape[2])) for weights in (rows, columns))
    means = jnp.einsum("ngh,nhwc->ngwc", rows, x.astype(jnp.float32), precision=lax.Precision.HIGHEST)
    return jnp.einsum("nkw,ngwc->ngkc", columns, means, precision=lax.Precision.HIGHEST)


def window_statistics(maps: Sequence[tuple[Map, Sizes | None]]) -> Float[Array, "n g g d"]:
    """As `global_statistics`, over each of the windows of `window_means`."""
    vectors = []
    for x, valid in maps:
        wide = inside(x.astype(jnp.float32), valid)
        mean = global_mean(wide, valid)[:, None, None]
        off = inside(wide - mean, valid)  # about the mean, so that the difference below keeps its digits
        shift = window_means(off, valid)
        variance = jnp.maximum(window_means(jnp.square(off), valid) - jnp.square(shift), 0)
        vectors += [mean + shift, _deviation(variance)]
    return jnp.concatenate(vectors, axis=3)


def _shares_in(side: int, valid: Sizes, axis: int) -> Float[Array, "n g side"]:
    shares = window_shares(side, heights_and_widths(valid)[:, axis])
    if not isinstance(valid, AtEnd):
        return shares
    return jax.vmap(lambda share, length: jnp.roll(share, side - length, 1))(shares, valid.sizes[:, axis])


def window_shares(cells: int, valid: Int[Array, " n"]) -> Float[Array, "n g cells"]:
    """What each of `cells` pixels counts in each window along a side of which the first `valid` belong to the image."""
    length = valid.astype(jnp.float32)[:, None, None]
    first = jnp.linspace(0, 1 - WINDOW, WINDOWS)[None, :, None] * length
    pixel = jnp.arange(cells, dtype=jnp.float32)
    shared = jnp.minimum(pixel + 1, first + WINDOW * length) - jnp.maximum(pixel, first)
    return jnp.maximum(shared, 0) / (WINDOW * length)


def adaptive_average_pool(x: Float[Array, "n h w c"], patches: int) -> Float[Array, "n p c"]:
    """Means over patches x patches cells, row by row; cell i of a side spans floor(i s / p) to ceil((i + 1) s / p)."""
    return jnp.stack([jnp.mean(cell, (1, 2)) for cell in _cells(x, patches)], axis=1)


def cell_means(x: Map, valid: Sizes | None, cells: int) -> Float[Array, "n g g c"]:
    """Means over cells x cells cells, as `adaptive_average_pool`'s, of that part of each map that `valid` covers; float32."""
    valid = jnp.broadcast_to(jnp.array(x.shape[1:3]), (len(x), 2)) if valid is None else valid
    place = jnp.arange(cells)[None, :, None]

    def shares(side: int, axis: int) -> Float[Array, "n g side"]:
        length = heights_and_widths(valid)[:, axis][:, None, None]
        at = jnp.arange(side) - (side - length if isinstance(valid, AtEnd) else 0)
        first, last = place * length // cells, -(-(place + 1) * length // cells)
        return ((at >= first) & (at < last)) / (last - first).astype(jnp.float32)

    exact, rows, columns = lax.Precision.HIGHEST, shares(x.shape[1], 0), shares(x.shape[2], 1)
    x = inside(x.astype(jnp.float32), valid)  # outside a map may hold anything
    means = jnp.einsum("ngh,nhwc->ngwc", rows, x, precision=exact)
    return jnp.einsum("nkw,ngwc->ngkc", columns, means, precision=exact)


def adaptive_statistics(maps: Sequence[Map], patches: int) -> Float[Array, "n p d"]:
    """Of each of patches x patches cells, row by row: means and deviations over its part of each map, in float32.

    A cell spans the same share of every map. What belongs to one map is divided by its L2 norm: the stages' maps differ in
    scale and in number of channels, and none is to outweigh the others where they are first multiplied together; how a
    deviation compares with the means beside it, which is what a blur changes, stays. The whole vector has norm 1, as
    the last map's in the paper.
    """
    parts = []
    for x in maps:
        cells = _cells(x.astype(jnp.float32), patches)
        both = [jnp.concatenate([jnp.mean(cell, (1, 2)), _deviation(jnp.var(cell, (1, 2)))], axis=1) for cell in cells]
        parts.append(normalise(jnp.stack(both, axis=1)))
    return jnp.concatenate(parts, axis=2) / math.sqrt(len(maps))


def _cells(x: Map, patches: int) -> list[Map]:
    height, width = x.shape[1:3]
    rows = [(i * height // patches, -(-(i + 1) * height // patches)) for i in range(patches)]
    columns = [(i * width // patches, -(-(i + 1) * width // patches)) for i in range(patches)]
    return [x[:, a:b, c:d] for a, b in rows for c, d in columns]


def _deviation(variance: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    return jnp.sqrt(variance + LEAST_VARIANCE)
