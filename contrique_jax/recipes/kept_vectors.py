"""Vectors of a frozen network, kept in the user's cache: a file for each thing described, named by its content.

Processes begin at different places and take what others have left.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from contrique_jax.config import ModelConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.errors import UserError
from contrique_jax.io.npz import map_npy, read_npy
from contrique_jax.io.outputs import atomic_write, user_cache
from contrique_jax.io.progress import ahead
from contrique_jax.networks import encoder

Result = TypeVar("Result")


class KeptVectors:
    """A folder of float16 arrays of three axes; one that is off (CONTRIQUE_CACHE=off) keeps nothing."""

    def __init__(self, name: str, fits: Callable[[np.ndarray], bool]):
        """`name`: of the folder in the cache, which says all that the vectors depend on but for the content; `fits`: whether
        an array may be one of them."""
        self._folder, self._fits, self._warned = user_cache(name), fits, False

    def get(self, content: str, mapped: bool = False) -> np.ndarray | None:
        """What is kept; None if there is nothing, or nothing that can be used. `mapped`: read from disk as it is used, and
        not looked through."""
        if self._folder is None:
            return None
        try:
            path = self._path(content)
            kept = map_npy(path) if mapped else read_npy(path)
        except (OSError, ValueError):
            return None
        fits = (
            kept.dtype == np.float16
            and kept.ndim == 3
            and self._fits(kept)
            and (mapped or bool(np.isfinite(kept).all()))
        )
        return kept if fits else None

    def put(self, content: str, vectors: np.ndarray) -> bool:
        """Whether they could be kept. A disk that is full costs a warning: all of it can be computed again."""
        if self._folder is None:
            return False
        try:
            with atomic_write(self._path(content)) as temporary, open(temporary, "wb") as stream:
                np.save(stream, vectors)
        except (UserError, OSError) as error:
            if not self._warned:
                print(f"warning: vectors are not kept for the next time: {error}", file=sys.stderr)
            self._warned = True
            return False
        return True

    def _path(self, content: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{content}.npy"


def of_all(
    work: Callable[[tuple[int, BrokenLog]], Result], count: int, broken: BrokenLog, workers: int, waiting: int, *,
    what: str, unit: str, own_first: bool = True,
) -> Iterator[tuple[int, Result]]:  # fmt: skip
    """What `work` gives of each number below `count`, in so many threads, of which `waiting` results are held; on a terminal
    with a bar. From this process's share on and round, or all in order; the log is quiet for what another process names."""
    first, last = (count * (jax.process_index() + i) // jax.process_count() for i in (0, 1))
    begin = first if own_first else 0
    quiet, numbers = BrokenLog(quiet=True), [*range(begin, count), *range(begin)]
    asked = [(number, broken if first <= number < last else quiet) for number in numbers]
    shown = None if jax.process_index() == 0 else True
    bar = tqdm(total=count, desc=what, unit=unit, dynamic_ncols=True, disable=shown)
    with ThreadPoolExecutor(workers) as pool, bar:
        for number, found in zip(numbers, ahead(pool, work, asked, waiting), strict=True):
            yield number, found
            bar.update()


@functools.lru_cache(maxsize=4)
def frozen(trunk: tuple[Any, ...]) -> Callable[..., Float[Array, "n d"]]:
    """The compiled function of weights and images that gives the features of an encoder; `trunk`: the fields of its
    `ModelConfig`."""
    model = ModelConfig(*trunk)
    return jax.jit(lambda variables, images: encoder.encode(model, variables, images))


def as_halves(vectors: np.ndarray, trunk: str) -> np.ndarray:
    """The same in float16. Raises UserError, naming the trunk, if that cannot hold them."""
    with np.errstate(over="ignore"):
        halves = vectors.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UserError(f"config.model.trunk={trunk}: its statistics are NaN or beyond 65,504; check its weights.")
    return halves
