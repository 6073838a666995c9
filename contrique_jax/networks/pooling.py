"""From maps to vectors: means of the last map, or means and deviations of each stage's last map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from contrique_jax.networks.layers import Map, Sizes, inside

LEAST_VARIANCE = 1e-6  # added to a variance before the root, whose gradient is then finite at 0


def normalise(x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """x divided by its L2 norm along the last axis; zero stays zero."""
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def global_mean(x: Map, valid: Sizes | None) -> Float[Array, "n c"]:
    """Means over the map, in float32. With `valid` over that part of it; outside, the map is zero."""
    total = jnp.sum(x.astype(jnp.float32), (1, 2))
    if valid is None:
        return total / (x.shape[1] * x.shape[2])
    return total / jnp.prod(valid, axis=1, keepdims=True).astype(jnp.float32)


def global_statistics(maps: Sequence[tuple[Map, Sizes | None]]) -> Float[Array, "n d"]:
    """Of each map in turn: means over it, then deviations, in float32; of the part that its sizes cover, if it has any."""
    vectors = []
    for x, valid in maps:
        wide = inside(x.astype(jnp.float32), valid)
        mean = global_mean(wide, valid)
        off = inside(wide - mean[:, None, None], valid)
        vectors += [mean, _deviation(global_mean(jnp.square(off), valid))]
    return jnp.concatenate(vectors, axis=1)


def adaptive_average_pool(x: Float[Array, "n h w c"], patches: int) -> Float[Array, "n p c"]:
    """Means over patches x patches cells, row by row; cell i of a side spans floor(i s / p) to ceil((i + 1) s / p)."""
    return jnp.stack([jnp.mean(cell, (1, 2)) for cell in _cells(x, patches)], axis=1)


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
