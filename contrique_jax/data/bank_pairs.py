"""`bank:PHOTOS`: pairs made of photographs by the bank's distortions, for a teacher to score.

Of each photograph so many pairs, each a window of its own under a type and a level of its own, from (seed, number) alone.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Bool, UInt8

from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.sizes import to_shorter_side
from contrique_jax.distort import on_arrays
from contrique_jax.distort.bank import NUM_LEVELS, TYPES

PREFIX = "bank:"
SIDE = 256  # of the windows [pixels]
LONGEST = 512  # a photograph's shorter side at most, before a window is cut [pixels]
PAIRS = 8  # of each photograph


class Photographs(Protocol):
    """A source (`sources.Source`), as far as it is needed here."""

    name: str

    def __len__(self) -> int: ...

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]: ...

    def item_name(self, i: int) -> str: ...


class BankPairs:
    """Record r is pair r % pairs of photograph r // pairs: [distorted, as it was]."""

    classes = None

    def __init__(self, photographs: Photographs, seed: int, pairs: int = PAIRS, types: tuple[int, ...] = TYPES):
        self.name, self.photographs = f"{PREFIX}{photographs.name}", photographs
        self.left_out = getattr(photographs, "left_out", None)
        self._seed, self._pairs, self._types = seed, pairs, types

    def __len__(self) -> int:
        return len(self.photographs) * self._pairs

    @property
    def has_reference(self) -> Bool[np.ndarray, " n"]:
        return np.ones(len(self), bool)

    def item_name(self, i: int) -> str:
        return f"{self.photographs.item_name(i // self._pairs)} #{i % self._pairs}"

    def load(self, i: int) -> UInt8[np.ndarray, "2 s s 3"]:
        """Raises BrokenImage if the photograph cannot be read."""
        generator = np.random.default_rng([self._seed, i])
        window = _window(self.photographs.load(i // self._pairs)[0], generator)
        kind, level = generator.choice(self._types), generator.integers(1, NUM_LEVELS + 1)
        distorted = on_arrays.apply(window, int(kind), int(level), seed=int(generator.integers(1 << 62)))
        return np.stack([distorted, window])


def _window(image: UInt8[np.ndarray, "h w 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """A window of a photograph; one that is smaller is scaled up to it."""
    corner = generator.random(2)
    image = to_shorter_side(image, LONGEST)
    if min(image.shape[:2]) < SIDE:
        return to_canvas(image, SIDE, SIDE)
    top, left = (int(share * (length - SIDE + 1)) for share, length in zip(corner, image.shape, strict=False))
    return np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE])
