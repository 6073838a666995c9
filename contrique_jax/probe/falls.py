"""Quality without opinions: a ridge that also sees photographs beside copies of themselves that are known to be worse.

Beside the opinions there are rows of differences, features of a copy less those of its original, with a fall in score that
grows with the level of its distortion. The photograph itself cancels in a difference, so such a row says nothing
about how good its original is, only which way is down: |y - X w - b|^2 + weight |D w + fall|^2 + alpha |s w|^2, s the
deviations of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError
from contrique_jax.probe.ridge import checked_problem, float64, group_members, held_out, ridge_path, row_axes

LEAST_DEVIATION = 1e-6  # of a feature, below which it is constant but for rounding


class Falls(NamedTuple):
    """Degraded copies: features less those of the original [m, d], and by how much the score falls (0 or more)."""

    differences: Float[np.ndarray, "m d"]
    falls: Float[np.ndarray, " m"]


class Fit(NamedTuple):
    """A ridge on features as they are, and every opinion's row predicted by the fit without its group."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float
    held_out: Float[np.ndarray, " n"]


def fit_with_falls(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    alphas: Float[np.ndarray, " a"],
    falls: Falls | None = None,
    *,
    weight: float = 0.1,
    higher_is_better: bool = True,
    groups: Sequence[str] | None = None,
) -> Fit:
    """The ridge on standardised features; of `alphas` the one with the least squared error on groups left out.

    `alphas` are for standardised features. `weight` is one difference's beside one opinion's 1. Float64 on the host:
    seconds for 1,000 features, minutes for 3,000. Raises UserError for NaN, sizes that differ and a single group.
    """
    x, y, alphas = checked_problem(features, scores, alphas)
    names = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if names.shape != y.shape or names.max() == 0:
        raise UserError("ridge: every image needs a group, and leaving one out must leave another; give 2 at least.")
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), LEAST_DEVIATION)
    x = (x - mean) / deviation
    weights = np.ones(len(y))
    if falls is not None and len(falls.falls):
        rows, target, weights = _mirrored(x, y, falls, deviation, weight, higher_is_better)
    else:
        rows, target = x, y
    members = group_members(names)
    members = tuple(jnp.where(part == len(y), len(rows), part) for part in members)
    with float64():
        left_out = np.asarray(jax.jit(_left_out)(rows, target, weights, alphas, members))[:, : len(y)]
        best = int(np.argmin(np.mean((left_out - y) ** 2, axis=1)))
        coefficients, intercepts = jax.jit(ridge_path)(rows, target, alphas[best : best + 1], weights)
        raw = np.asarray(coefficients)[0] / deviation
        return Fit(raw, float(intercepts[0] - raw @ mean), float(alphas[best]), left_out[best])


def _mirrored(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    falls: Falls,
    deviation: Float[np.ndarray, " d"],
    weight: float,
    higher_is_better: bool,
) -> tuple[Float[np.ndarray, "r d"], Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """Opinions and differences as the rows of one ridge with an intercept: (rows, targets, weights).

    Each difference is there twice, as mean + d with mean score - fall and as mean - d with + fall, half the weight each: the
    mean of all rows stays that of the opinions, so the intercept, and what is centred on it, does not see them.
    """
    _, worse, _ = checked_problem(falls.differences, falls.falls, np.ones(1))
    if falls.differences.shape[1] != x.shape[1]:
        raise UserError(f"ridge: {falls.differences.shape[1]} features in the differences, {x.shape[1]} in the images.")
    if (worse < 0).any() or not (np.isfinite(weight) and weight >= 0):
        raise UserError("ridge: a degraded copy's fall and the weight of the differences must be 0 or more.")
    step = np.asarray(falls.differences, np.float64) / deviation
    change = -worse if higher_is_better else worse
    half = np.full(len(worse), weight / 2)
    centre = y.mean()
    return (
        np.concatenate([x, step, -step]),
        np.concatenate([y, centre + change, centre - change]),
        np.concatenate([np.ones(len(y)), half, half]),
    )


def _left_out(
    rows: jax.Array, target: jax.Array, weights: jax.Array, alphas: jax.Array, members: tuple[jax.Array, ...]
) -> jax.Array:
    return held_out(row_axes(rows, weights), target, weights, alphas, tuple(map(jnp.asarray, members))).predictions
