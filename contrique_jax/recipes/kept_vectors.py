"""Vectors of a frozen network, kept in the user's cache: a file for each thing described, named by its content."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contrique_jax.errors import UserError
from contrique_jax.io.npz import map_npy, read_npy
from contrique_jax.io.outputs import atomic_write, user_cache


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


def as_halves(vectors: np.ndarray, trunk: str) -> np.ndarray:
    """The same in float16. Raises UserError, naming the trunk, if that cannot hold them."""
    with np.errstate(over="ignore"):
        halves = vectors.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UserError(f"config.model.trunk={trunk}: its statistics are NaN or beyond 65,504; check its weights.")
    return halves
