"""Where a score stands among those of the photographs that a probe was fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

STEPS = 101  # the percentiles 0 to 100


@dataclass(frozen=True)
class Standing:
    """Percentiles of the scores that a probe gives to photographs like those it was fitted on, in its own units."""

    percentiles: Float[np.ndarray, " 101"]
    photographs: int

    @classmethod
    def of(cls, scores: Float[np.ndarray, " n"]) -> Self:
        """Of one score a photograph."""
        return cls(np.percentile(scores, np.linspace(0, 100, STEPS)).astype(np.float32), len(scores))

    def below(self, scores: npt.ArrayLike) -> Float[np.ndarray, "*n"]:
        """The share of photographs with a lower score, 0 to 1; of equal ones half."""
        known, given = self.percentiles.astype(np.float64), np.asarray(scores, np.float64)
        shares = np.linspace(0, 1, STEPS)
        lower = np.interp(given, known, shares, left=0, right=1)
        first = shares[np.minimum(np.searchsorted(known, given, "left"), STEPS - 1)]
        last = shares[np.maximum(np.searchsorted(known, given, "right") - 1, 0)]
        return np.where(last > first, (first + last) / 2, lower)

    def histogram(self, edges: npt.ArrayLike) -> Float[np.ndarray, " bins"]:
        """The share of photographs between each two of the rising `edges`; the sum is 1 if they span all scores."""
        return np.diff(self.below(edges))

    @classmethod
    def checked(cls, width: int, **fields: np.ndarray) -> Self:
        """From stored arrays. Raises ValueError for another number of percentiles, or if they fall."""
        made = cls(fields["percentiles"].astype(np.float32), int(fields["photographs"].item()))
        if made.percentiles.shape != (STEPS,) or not (np.diff(made.percentiles) >= 0).all():
            raise ValueError(f"no {STEPS} rising percentiles")
        if made.photographs < 1:
            raise ValueError("percentiles of no photograph")
        return made
