"""(seed, step) -> the records of the global batch and every random choice about them.

Nothing here remembers anything: the same (seed, step, row) gives the same answer on any number of processes, so a run
resumes exactly. Rows alternate: even ones are synthetic, odd ones authentic, so any contiguous share is half of each.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from contrique_jax.augment.views import ViewDraw, draw_views
from contrique_jax.distort import bank
from contrique_jax.errors import UserError
from contrique_jax.io.machine import host_device


class Draws(NamedTuple):
    """The choices for n rows of one kind, synthetic or authentic."""

    record: Int[np.ndarray, " n"]  # index into the source
    class_id: Int[np.ndarray, " n"]  # the loss's class: 0..125, or for authentic rows 126 + position in the half
    key: UInt32[np.ndarray, "n 2"]  # what the distortion draws from
    views: ViewDraw  # fields [n, 2]


def steps_per_epoch(pristine: int, authentic: int, batch_size: int) -> int:
    """Steps until the shorter source ends; the last partial batch is dropped, as in the original."""
    return min(pristine, authentic) // (batch_size // 2)


def check_sizes(pristine: int, authentic: int, batch_size: int) -> None:
    """Raises UserError where a source cannot fill its half of one batch."""
    for name, count in (("pristine", pristine), ("authentic", authentic)):
        if count < batch_size // 2:
            raise UserError(
                f"config.data.{name} holds {count} images, fewer than the {batch_size // 2} that half a batch needs; "
                "add images or lower config.data.batch_size."
            )


def type_table(type_weights: tuple[float, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The distortion types that are drawn and their shares, which sum to one; () weighs every type alike."""
    weights = type_weights or (1.0,) * bank.NUM_TYPES
    types = tuple(kind for kind, weight in enumerate(weights, start=1) if weight > 0)
    total = sum(weights)
    return types, tuple(weights[kind - 1] / total for kind in types)


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, role: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, role, epoch]).permutation(count)


def records(seed: int, step: int, role: int, count: int, half: int) -> Int[np.ndarray, " half"]:
    """The records of half a batch: each source is reshuffled every time it has been through, none twice in a pass."""
    epoch, position = divmod(step, count // half)
    return _epoch_order(seed, role, epoch, count)[position * half : (position + 1) * half]


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


class Order:
    """The sequence of global batches of a run, as seen by the process that reads `rows` of each."""

    def __init__(
        self,
        *,
        seed: int,
        pristine: int,
        authentic: int,
        batch_size: int,
        rows: range,
        pristine_share: float,
        type_weights: tuple[float, ...],
        merge_identities: bool = False,
    ):
        check_sizes(pristine, authentic, batch_size)
        self.seed, self.half, self.rows = seed, batch_size // 2, rows
        self.counts = (pristine, authentic)
        self.pristine_share, self.merge_identities = pristine_share, merge_identities
        self.types, self.shares = type_table(type_weights)

    def __call__(self, step: int) -> tuple[Draws, Draws]:
        """(synthetic, authentic) choices for this process's rows of 0-based `step`."""
        rows = np.arange(self.rows.start, self.rows.stop, dtype=np.int32)
        # on the host's processor, whatever the training devices are
        with jax.default_device(host_device()):
            chosen = _choices(
                jnp.asarray(self.seed),
                jnp.asarray(step),
                jnp.asarray(rows),
                self.types,
                self.shares,
                self.pristine_share,
            )
            class_id, key, views = jax.tree.map(np.asarray, chosen)
        if self.merge_identities:
            class_id = np.where(np.isin(class_id, bank.IDENTITIES), np.int32(bank.PRISTINE), class_id)
        halves = []
        for role in (0, 1):
            mine = rows % 2 == role
            ids = records(self.seed, step, role, self.counts[role], self.half)[rows[mine] // 2]
            # every authentic image is a class of its own
            classes = class_id[mine] if role == 0 else (bank.NUM_CLASSES + rows[mine] // 2).astype(np.int32)
            halves.append(Draws(ids, classes, key[mine], ViewDraw(*(part[mine] for part in views))))
        return halves[0], halves[1]
