"""Quality without opinions: a ridge that also sees photographs beside copies of themselves that are known to be worse.

Beside the opinions there are rows of differences, features of a copy less those of its original, with a fall in score that
grows with the level of its distortion. The photograph itself cancels in a difference, so such a row says nothing
about how good its original is, only which way is down: |y - X w - b|^2 + weight |D w + fall|^2 + alpha |s w|^2, s the
deviations of the features.

With kinds, the parts of a data set, every kind has a b of its own: people judge photographs from the web higher than snapshots
of the same sharpness, and with one b for all the ridge spends itself on telling the kinds apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from contrique_jax.errors import UserError
from contrique_jax.probe.problem import checked_problem, rows_by_group

LEAST_LEFT = 1e-9  # of a row or group, if it is left out: the only one of its kind is its own intercept
LEAST_DEVIATION = 1e-6  # of a feature, below which it is constant but for rounding


class Falls(NamedTuple):
    """Degraded copies: features less those of the original [m, d], and by how much the score falls (0 or more)."""

    differences: Float[np.ndarray, "m d"]
    falls: Float[np.ndarray, " m"]


class Fit(NamedTuple):
    """A ridge on features as they are, and every opinion's row predicted by the fit without its group; both without shifts."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float
    held_out: Float[np.ndarray, " n"]
    shifts: Float[np.ndarray, " k"]  # what the scores of each kind, by name in order, are above; 0 without kinds


def fit_with_falls(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    alphas: Float[np.ndarray, " a"],
    falls: Falls | None = None,
    *,
    weight: float = 0.1,
    higher_is_better: bool = True,
    groups: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
) -> Fit:
    """The ridge on standardised features; of `alphas` the one with the least squared error on groups left out.

    `alphas` are for standardised features. `weight` is one difference's beside one opinion's 1. `kinds`: the part of the
    data set that each image is of (default: all of one). Float64 on the host: with 3,000 features and 10,000 images a
    quarter of a minute of one core for each alpha. Raises UserError for NaN, sizes that differ and a single group.
    """
    x, y, alphas = checked_problem(features, scores, alphas)
    names = group_numbers(groups, len(y))
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), LEAST_DEVIATION)
    z, centre = (x - mean) / deviation, y.mean()
    kind = kind_numbers(kinds, len(y))
    z, target = within(z, kind), within(y[:, None], kind)
    gram, right = z.T @ z, z.T @ target
    if falls is not None and len(falls.falls):
        steps, changes = _checked(falls, deviation, weight, higher_is_better)
        gram += weight * (steps.T @ steps)
        right += weight * (steps.T @ changes)[:, None]
    fits = [left_out(z, target, gram, right, alpha, names, kind) for alpha in alphas]
    best = int(np.argmin([np.mean((predictions - target) ** 2) for _, predictions in fits]))
    raw = fits[best][0][:, 0] / deviation
    intercept = float(centre - raw @ mean)
    shifts = np.bincount(kind, y - x @ raw - intercept) / np.bincount(kind)
    held_out = fits[best][1][:, 0] + (y - target[:, 0]) - shifts[kind]
    return Fit(raw, intercept, float(alphas[best]), held_out, shifts)


def kind_numbers(kinds: Sequence[str] | None, images: int) -> Int[np.ndarray, " n"]:
    """A number for each image's kind, by name in order; 0 without kinds. Raises UserError if their numbers differ."""
    found = np.zeros(images, int) if kinds is None else np.unique(np.asarray(kinds, str), return_inverse=True)[1]
    if len(found) != images:
        raise UserError(f"probe: {len(found)} kinds for {images} images; give each its own.")
    return found


def within(rows: Float[np.ndarray, "n d"], kind: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
    """Rows less the mean of their kind."""
    rows = rows.copy()
    for number in range(kind.max() + 1):
        rows[kind == number] -= rows[kind == number].mean(axis=0)
    return rows


def group_numbers(groups: Sequence[str] | None, images: int) -> Int[np.ndarray, " n"]:
    """A number for each image's group; every image its own without groups. Raises UserError where leaving one out leaves
    nothing."""
    names = np.arange(images) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if names.shape != (images,) or names.max() == 0:
        raise UserError("ridge: every image needs a group, and leaving one out must leave another; give 2 at least.")
    return names


def left_out(
    z: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n k"],
    gram: Float[np.ndarray, "d d"],
    right: Float[np.ndarray, "d k"],
    alpha: float,
    names: Int[np.ndarray, " n"],
    kind: Int[np.ndarray, " n"] | None = None,
) -> tuple[Float[np.ndarray, "d k"], Float[np.ndarray, "n k"]]:
    """Coefficients of ridges on rows and targets centred within their kind, and each row predicted by the fits without its
    group.

    `gram` and `right` are of all rows: z' z and z' targets, and what rows without an intercept add to them. Leaving out
    group G turns the residuals r_G into (I - H_GG)^-1 r_G, H = 1/n + z (gram + alpha)^-1 z', the intercept's part in it, n
    the images of a kind.
    """
    from scipy import linalg  # fitting needs it, scoring need not wait for it

    penalised = gram + alpha * np.eye(len(gram))
    factor = linalg.cho_factor(penalised, lower=True, overwrite_a=True, check_finite=False)
    coefficients = linalg.cho_solve(factor, right, check_finite=False)
    shares = linalg.cho_solve(factor, z.T, check_finite=False).T
    residuals = targets - z @ coefficients
    kind = np.zeros(len(z), int) if kind is None else kind
    of_intercept = 1 / np.bincount(kind)[kind]
    without = residuals / np.maximum(1 - of_intercept - np.sum(z * shares, axis=1), LEAST_LEFT)[:, None]
    for rows in rows_by_group(names):
        if len(rows) > 1:
            own = np.eye(len(rows)) - of_intercept[rows] * (kind[rows, None] == kind[rows]) - z[rows] @ shares[rows].T
            # a group that is all of its kind leaves no intercept behind: the least change then
            without[rows] = np.linalg.lstsq(own, residuals[rows], rcond=LEAST_LEFT)[0]
    return coefficients, targets - without


def _checked(
    falls: Falls, deviation: Float[np.ndarray, " d"], weight: float, higher_is_better: bool
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, " m"]]:
    """Differences of standardised features, and the change in score."""
    differences, worse, _ = checked_problem(falls.differences, falls.falls, np.ones(1))
    if differences.shape[1] != len(deviation):
        raise UserError(f"ridge: {differences.shape[1]} features in the differences, {len(deviation)} in the images.")
    if (worse < 0).any() or not (np.isfinite(weight) and weight >= 0):
        raise UserError("ridge: a degraded copy's fall and the weight of the differences must be 0 or more.")
    return differences / deviation, -worse if higher_is_better else worse
