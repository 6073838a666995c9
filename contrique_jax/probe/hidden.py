"""A probe's hidden layer: what thousands of opinions allow beyond a ridge (`fit_hidden`).

outputs . gelu(z weights' + offsets) + intercept, z the features in deviations of those it was fitted on, held within
FARTHEST: a flat or synthetic image is further out, and the layer has seen nothing there. A probe's score is the mean of this
and of its ridge's: the layer is ahead on photographs like those it has seen, the ridge on damage it has not.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from scipy import special

FARTHEST = 6.0  # deviations of a feature


@dataclass(frozen=True)
class Hidden:
    """The fitted layer; weights float16, the rest float32."""

    centre: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    weights: Float[np.ndarray, "h d"]
    offsets: Float[np.ndarray, " h"]
    outputs: Float[np.ndarray, " h"]
    intercept: float

    def predict(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Scores, float64."""
        inside = standard(features, self.centre, self.deviation) @ self._weights.T + self.offsets
        # the exact GELU: x times the normal distribution's share below x
        return (inside * special.ndtr(inside)).astype(np.float64) @ self.outputs + self.intercept

    @functools.cached_property
    def _weights(self) -> Float[np.ndarray, "h d"]:
        """Converted once, not for every image."""
        return self.weights.astype(np.float32)

    @classmethod
    def checked(cls, width: int, **fields: np.ndarray) -> Self:
        """From stored arrays. Raises ValueError if shapes do not fit `width` features or a number is none."""
        arrays = {name: fields[name].astype(np.float32) for name in ("centre", "deviation", "offsets", "outputs")}
        made = cls(weights=fields["weights"].astype(np.float16), intercept=float(fields["intercept"].item()), **arrays)
        count = made.offsets.size
        if [made.centre.shape, made.deviation.shape, made.weights.shape] != [(width,), (width,), (count, width)]:
            raise ValueError("another width")
        if made.offsets.shape != (count,) or made.outputs.shape != (count,):
            raise ValueError("another width")
        if not all(np.isfinite(part).all() for part in (*arrays.values(), made.weights, np.asarray(made.intercept))):
            raise ValueError("NaN or infinity")
        if (made.deviation <= 0).any():
            raise ValueError("a deviation of 0")
        return made


def standard(
    features: Float[np.ndarray, "n d"], centre: Float[np.ndarray, " d"], deviation: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "n d"]:
    """In deviations from the centre, held within FARTHEST, float32."""
    return np.clip((features - centre) / deviation, -FARTHEST, FARTHEST).astype(np.float32)
