"""(seed, step) -> the records of a global batch.

Nothing here remembers anything: the same (seed, step, row) gives the same answer on any number of processes, so a run
resumes exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from contrique_jax.errors import UserError


def steps_per_epoch(counts: Mapping[str, int], batch_size: int) -> int:
    """Steps until the shortest source ends; the last partial batch is dropped, as in the original."""
    return min(counts.values()) // (batch_size // len(counts))


def check_sizes(counts: Mapping[str, int], batch_size: int, views: int = 1) -> None:
    """Raises UserError if a source cannot fill its share of one batch; `views` records are of one image."""
    share = batch_size // len(counts)
    said = {1: "a batch needs", 2: "half a batch needs"}.get(len(counts), "its share of a batch needs")
    of_each, enough = (f", {views} views each", f" ({-(-share // views)} are enough)") if views > 1 else ("", "")
    for role, count in counts.items():
        if count < share:
            raise UserError(
                f"config.data.{role} holds {count // views} images{of_each}, fewer than the {share} that {said}; "
                f"add images{enough} or lower config.data.batch_size."
            )


@functools.lru_cache(maxsize=4)
def _epoch_order(seed: int, role: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, role, epoch]).permutation(count)


def records(seed: int, step: int, role: int, count: int, share: int) -> Int[np.ndarray, " share"]:
    """The records of a role's share of a batch: a source is reshuffled each time it has been through, none twice in a pass."""
    epoch, position = divmod(step, count // share)
    return _epoch_order(seed, role, epoch, count)[position * share : (position + 1) * share]
