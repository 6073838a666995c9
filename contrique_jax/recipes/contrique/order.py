"""(seed, step) -> every random choice about the rows of a global batch: records, classes, distortions, views.

Rows alternate: even ones are synthetic, odd ones authentic, so any contiguous share of whole pairs is half of each.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from contrique_jax.augment.views import ViewDraw, draw_views
from contrique_jax.config import DataConfig
from contrique_jax.data.order import records
from contrique_jax.distort import bank
from contrique_jax.io.machine import host_device


class Draws(NamedTuple):
    """The choices for n rows of one kind, synthetic or authentic."""

    record: Int[np.ndarray, " n"]  # index into the source
    class_id: Int[np.ndarray, " n"]  # the loss's class: 0..125, or for authentic rows 126 + position in the half
    key: UInt32[np.ndarray, "n 2"]  # what the distortion draws from
    views: ViewDraw  # fields [n, 2]


def type_table(type_weights: tuple[float, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The distortion types that are drawn and their shares, which sum to one; () weighs every type alike."""
    weights = type_weights or (1.0,) * bank.NUM_TYPES
    types = tuple(kind for kind, weight in enumerate(weights, start=1) if weight > 0)
    total = sum(weights)
    return types, tuple(weights[kind - 1] / total for kind in types)


@functools.partial(jax.jit, static_argnames=("types", "shares", "pristine_share"))
def _choices(
    seed: Int[Array, ""],
    step: Int[Array, ""],
    rows: Int[Array, " n"],
    types: tuple[int, ...],
    shares: tuple[float, ...],
    pristine_share: float,
) -> tuple[Int[Array, " n"], UInt32[Array, "n 2"], ViewDraw]:
    batch_key = jax.random.fold_in(jax.random.key(seed), step)
    bounds = jnp.asarray(np.cumsum(shares)[:-1], jnp.float32)

    def row(number: Array) -> tuple[Array, Array, ViewDraw]:
        distort_key, class_key, view_key = jax.random.split(jax.random.fold_in(batch_key, number), 3)
        share = jax.random.uniform(class_key, (3,))
        kind = jnp.asarray(types, jnp.int32)[jnp.searchsorted(bounds, share[1], side="right")]
        level = jnp.floor(share[2] * bank.NUM_LEVELS).astype(jnp.int32)
        class_id = jnp.where(share[0] < pristine_share, bank.PRISTINE, (kind - 1) * bank.NUM_LEVELS + level)
        return class_id.astype(jnp.int32), jax.random.key_data(distort_key), draw_views(view_key)

    return jax.vmap(row)(rows)


def for_rows(
    data: DataConfig, seed: int, step: int, numbers: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], UInt32[np.ndarray, "n 2"], ViewDraw]:
    """Classes, what distortions draw from, and views (fields [n, 2]) of these rows of a step."""
    types, shares = type_table(data.type_weights)
    # on the host's processor, whatever the training devices are
    with jax.default_device(host_device()):
        chosen = _choices(
            jnp.asarray(seed), jnp.asarray(step), jnp.asarray(numbers), types, shares, data.pristine_share
        )
        class_id, key, views = jax.tree.map(np.asarray, chosen)
    if data.merge_identity_classes:
        class_id = np.where(np.isin(class_id, bank.IDENTITIES), np.int32(bank.PRISTINE), class_id)
    return class_id, key, views


def draw(data: DataConfig, seed: int, counts: tuple[int, int], step: int, rows: range) -> tuple[Draws, Draws]:
    """(synthetic, authentic) choices for these rows of 0-based `step`; `counts`: images of the two sources."""
    numbers = np.arange(rows.start, rows.stop, dtype=np.int32)
    class_id, key, views = for_rows(data, seed, step, numbers)
    halves = []
    for role in (0, 1):
        mine = numbers % 2 == role
        ids = records(seed, step, role, counts[role], data.batch_size // 2)[numbers[mine] // 2]
        # every authentic image is a class of its own
        classes = class_id[mine] if role == 0 else (bank.NUM_CLASSES + numbers[mine] // 2).astype(np.int32)
        halves.append(Draws(ids, classes, key[mine], ViewDraw(*(part[mine] for part in views))))
    return halves[0], halves[1]
