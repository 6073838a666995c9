"""A function that branches on a row's kind, for many rows at once: rows of one kind go through their branch together.

On an accelerator rows go by the dozen, and a switch over rows would run every branch for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

LEAST_GROUP = 4  # rows of one kind that go together at least


def by_kind(
    function: Callable[..., Array], kind_of_row: Int[Array, " n"], rows: tuple[Any, ...], *, kinds: int
) -> Array:
    """function(kind, *row) of each row, where all that `function` branches on is the row's kind, 0..kinds-1.

    Rows are sorted by kind and mapped in groups of one kind; the last group of a kind repeats a row to be full.
    """
    count = len(kind_of_row)
    group = min(max(-(-count // kinds), LEAST_GROUP), count)
    order = jnp.argsort(kind_of_row, stable=True)
    rows_of_kind = jnp.bincount(kind_of_row, length=kinds)
    first_row = jnp.cumsum(rows_of_kind) - rows_of_kind
    groups_of_kind = -(-rows_of_kind // group)
    last_group = jnp.cumsum(groups_of_kind)

    def step(number: Array, done: Array) -> Array:
        kind = jnp.searchsorted(last_group, number, side="right")
        within = (number - (last_group[kind] - groups_of_kind[kind])) * group + jnp.arange(group)
        chosen = order[first_row[kind] + jnp.minimum(within, rows_of_kind[kind] - 1)]
        mine = jax.tree.map(lambda part: part[chosen], rows)
        return done.at[chosen].set(mapped(kind, *mine))

    mapped = jax.vmap(function, in_axes=(None, *[0] * len(rows)))
    result = jax.eval_shape(mapped, kind_of_row[0], *rows)
    return jax.lax.fori_loop(0, last_group[-1], step, jnp.zeros(result.shape, result.dtype))
