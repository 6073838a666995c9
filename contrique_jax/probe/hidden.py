"""A probe's hidden layer: what thousands of opinions allow beyond a ridge (`fit_hidden`).

u = gelu(z weights' + offsets), z the features in deviations of those it was fitted on, held within FARTHEST: a flat or
synthetic image is further out, and the layer has seen nothing there. The score is outputs . u + intercept, and
softmax(kinds u + kind_offsets) . (apart u + shifts): a data set's parts are judged by people of other expectations
(photographs from the web higher than one's own snapshots of the same sharpness) and for other faults, and what tells the parts
apart is not to count as quality.

A probe's score is LAYER_SHARE of this and the rest its ridge's: the layer is ahead on photographs like those it has seen, the
ridge on damage it has not.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from scipy import special

from contrique_jax.probe.problem import standard

FARTHEST = 6.0  # deviations of a feature
LAYER_SHARE = 0.75  # of a probe's score


def together(line: Float[np.ndarray, " n"], bent: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A probe's scores from its ridge's and its layer's."""
    return (1 - LAYER_SHARE) * line + LAYER_SHARE * bent


@dataclass(frozen=True)
class Hidden:
    """The fitted layer; weights float16, the rest float32."""

    centre: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    weights: Float[np.ndarray, "h d"]
    offsets: Float[np.ndarray, " h"]
    outputs: Float[np.ndarray, " h"]
    intercept: float
    kinds: Float[np.ndarray, "k h"]
    kind_offsets: Float[np.ndarray, " k"]
    apart: Float[np.ndarray, "k h"]  # what outputs of a kind have beyond those of all
    shifts: Float[np.ndarray, " k"]  # in units of the scores

    def predict(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Scores, float64."""
        return self.judge(features)[0]

    def likeness(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """How much each image looks like each kind, by name in order; 1 together."""
        return self.judge(features)[1]

    def judge(self, features: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n k"]]:
        """Both."""
        z = standard(features, self.centre, self.deviation, FARTHEST).astype(np.float32)
        inside = z @ self._weights.T + self.offsets
        # the exact GELU: x times the normal distribution's share below x
        units = (inside * special.ndtr(inside)).astype(np.float64)
        likeness = special.softmax(units @ self.kinds.T + self.kind_offsets, axis=1)
        of_kinds = units @ self.apart.T + self.shifts
        return units @ self.outputs + self.intercept + np.sum(likeness * of_kinds, axis=1), likeness

    def with_shifts(self, shifts: Float[np.ndarray, " k"]) -> Self:
        """The same layer, which adds these too: those of a ridge that is fitted within kinds (`falls.Fit`), beside which it is
        to be in a probe. They are weighted as the ridge's part of the score is."""
        added = np.asarray(shifts) * (1 - LAYER_SHARE) / LAYER_SHARE
        return dataclasses.replace(self, shifts=(self.shifts + added).astype(np.float32))

    @functools.cached_property
    def _weights(self) -> Float[np.ndarray, "h d"]:
        """Converted once, not for every image."""
        return self.weights.astype(np.float32)

    @classmethod
    def checked(cls, width: int, **fields: np.ndarray) -> Self:
        """From stored arrays. Raises ValueError if shapes do not fit `width` features or a number is none."""
        names = ("centre", "deviation", "offsets", "outputs", "kinds", "kind_offsets", "apart", "shifts")
        arrays = {name: fields[name].astype(np.float32) for name in names}
        made = cls(weights=fields["weights"].astype(np.float16), intercept=float(fields["intercept"].item()), **arrays)
        count = made.offsets.size
        if [made.centre.shape, made.deviation.shape, made.weights.shape] != [(width,), (width,), (count, width)]:
            raise ValueError("another width")
        if made.offsets.shape != (count,) or made.outputs.shape != (count,):
            raise ValueError("another width")
        kinds = made.shifts.size
        if made.kinds.shape != (kinds, count) or made.apart.shape != (kinds, count):
            raise ValueError("another number of kinds")
        if made.kind_offsets.shape != (kinds,) or made.shifts.shape != (kinds,) or not kinds:
            raise ValueError("another number of kinds")
        if not all(np.isfinite(part).all() for part in (*arrays.values(), made.weights, np.asarray(made.intercept))):
            raise ValueError("NaN or infinity")
        if (made.deviation <= 0).any():
            raise ValueError("a deviation of 0")
        return made
