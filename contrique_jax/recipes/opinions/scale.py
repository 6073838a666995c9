"""The line between opinion scores and what a network learns, fitted on the training side and kept in the model.

Score = zero + unit x output, with a unit below 0 if lower scores are better: for the network higher is always better. While a
run goes on the line is a collection of its own, `scale`, so that checkpoints have it; the finished model's architecture
holds the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from contrique_jax.errors import UserError
from contrique_jax.recipes.recipe import Variables


class Scale(NamedTuple):
    """A line, and the ends of the scores' scale."""

    zero: float
    unit: float
    low: float
    high: float

    def targets(self, scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return (np.asarray(scores, np.float64) - self.zero) / self.unit


OWN = Scale(0.0, 1.0, 0.0, 1.0)  # of several data sets together, whose units differ


def fitted(scores: Float[np.ndarray, " n"], higher_is_better: bool, scaling: str, name: str) -> Scale:
    """Of a training side. "min-max": 0 is its worst and 1 its best score; "z-score": its mean and deviation. Raises UserError,
    naming the source, if all its scores are the same."""
    scores = np.asarray(scores, np.float64)
    low, high = float(scores.min()), float(scores.max())
    if not low < high:
        raise UserError(f"{name}: every score is {low:g}, so nothing can be learned; check the score column.")
    sign = 1.0 if higher_is_better else -1.0
    if scaling == "z-score":
        return Scale(float(scores.mean()), sign * float(scores.std()), low, high)
    return Scale(low if higher_is_better else high, sign * (high - low), low, high)


class Scored(Protocol):
    """A data set, as far as its scores go."""

    @property
    def name(self) -> str: ...
    @property
    def scores(self) -> Float[np.ndarray, " n"]: ...
    @property
    def higher_is_better(self) -> bool: ...


def fit(sets: Sequence[Scored], scaling: str) -> tuple[Float[np.ndarray, " n"], Scale]:
    """Targets of data sets one after the other, each by a line of its own; and the model's line: that of the one set, or none
    if there are several."""
    scales = [fitted(each.scores, each.higher_is_better, scaling, each.name) for each in sets]
    targets = np.concatenate([line.targets(each.scores) for line, each in zip(scales, sets, strict=True)])
    return targets.astype(np.float32), scales[0] if len(scales) == 1 else OWN


def fresh() -> dict[str, Any]:
    """The collection before the first step."""
    return {name: np.float32(value) for name, value in OWN._asdict().items()}


def seen(scale: Float[Array, "n 4"], axis: str) -> Variables:
    """The collection, of a batch's rows, each of which carries the line."""
    line = lax.pmax(jnp.max(scale, axis=0), axis)  # all alike: a maximum does not round
    return {"scale": dict(zip(Scale._fields, line, strict=True))}


def kept(model: Any, variables: Variables) -> Any:
    """The architecture with the line of a run's variables."""
    line = {f"score_{name}": float(value) for name, value in variables["scale"].items()}
    return dataclasses.replace(model, **line)
