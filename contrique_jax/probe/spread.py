"""How far one image's score may be from its prediction: which images are hard, learnt from residuals of held-out ones.

A ridge's leverage says how unlike the fitted images one is; where people disagree and the features are blind it does not
say. Here the logarithm of the variance is a quadratic of a few summaries of the image: the prediction itself, and how much the
image looks like each kind (a data set's own subsets) that the probe was fitted on. It is then scaled so that nine
in ten of the held-out residuals are inside the interval (split conformal prediction, every image held out once). All
kinds count alike, however many images each has: an interval that is right for most is not to be wrong for the few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from scipy import special

from contrique_jax.errors import UserError
from contrique_jax.probe.falls import LEAST_DEVIATION, group_numbers, left_out
from contrique_jax.probe.problem import checked_problem

LEVEL = 0.9
INSIDE = float(special.ndtri((1 + LEVEL) / 2))  # deviations of half the interval
LARGEST = 300.0  # logarithm of a variance
FARTHEST = 2.0  # deviations of a summary: beyond, the quadratic is not to be trusted, and the summary is held there
LOWEST = 0.1  # of the images: the deviation that those with the least together need is the least that is shipped
FOLDS = 5  # of the quadratic, so that the interval's scale is measured on residuals it was not fitted to
PENALTY = 1e-3  # on its coefficients, a row
ROUNDS, SCORING = 2, 40  # in which kinds are weighed by their tails; steps of Fisher's scoring, each DAMPED
DAMPED = 0.7
SURER = 2.0  # log-odds of kinds, beside those in a score, which are kept small (`fit_hidden.BETWEEN`)
LEAST_ABOVE = 5  # residuals of a kind beyond its interval, for its own quantile to mean something

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Spread:
    """What a deviation for each image needs, small enough for the probe's file."""

    directions: Float[np.ndarray, "j d"]  # float32: the first summaries are features @ directions.T + offsets
    offsets: Float[np.ndarray, " j"]
    centres: Float[np.ndarray, " k"]  # of the summaries of held-out images, and their deviations
    widths: Float[np.ndarray, " k"]
    quadratic: Float[np.ndarray, " q"]  # of the variance's logarithm, see `monomials`; in squared units of the scores
    least: float  # variance

    def deviations(self, features: Float[np.ndarray, "n d"], beside: Float[np.ndarray, "n i"] | None = None) -> Values:
        """Of each image, in units of the scores; a score is within INSIDE of them of its prediction in 90 %.

        `beside`: the other summaries, if it was fitted with such.
        """
        summaries = np.asarray(features, np.float64) @ self.directions.T.astype(np.float64) + self.offsets
        return np.sqrt(self.variances(summaries if beside is None else np.concatenate([summaries, beside], axis=1)))

    def variances(self, summaries: Float[np.ndarray, "n k"]) -> Values:
        logarithm = monomials((summaries - self.centres) / self.widths) @ self.quadratic
        return np.maximum(np.exp(np.minimum(logarithm, LARGEST)), self.least)

    @classmethod
    def checked(cls, width: int, **fields: np.ndarray) -> Self:
        """From stored arrays. Raises ValueError where shapes do not fit `width` features or a number is none."""
        arrays = {name: fields[name].astype(np.float64) for name in ("offsets", "centres", "widths", "quadratic")}
        made = cls(fields["directions"].astype(np.float32), **arrays, least=float(fields["least"].item()))
        count, linear = made.centres.size, made.offsets.size
        shapes = [
            made.directions.shape,
            made.offsets.shape,
            made.centres.shape,
            made.widths.shape,
            made.quadratic.shape,
        ]
        terms = 1 + count + count * (count + 1) // 2
        if shapes != [(linear, width), (linear,), (count,), (count,), (terms,)] or linear > count:
            raise ValueError("another width")
        if not all(np.isfinite(part).all() for part in (made.directions, *arrays.values(), np.asarray(made.least))):
            raise ValueError("NaN or infinity")
        if made.least < 0 or (made.widths <= 0).any():
            raise ValueError("a variance below 0")
        return made


def monomials(summaries: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n q"]:
    """1, the summaries in deviations, and their products in pairs; each held within FARTHEST first."""
    z = np.clip(summaries, -FARTHEST, FARTHEST)
    first, second = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, first] * z[:, second]], axis=1)


def fit_spread(
    features: Float[np.ndarray, "n d"],
    scores: Values,
    held_out_scores: Values,
    coefficients: Float[np.ndarray, " d"],
    intercept: float,
    *,
    alpha: float,
    kinds: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
) -> Spread:
    """From each image's score and its prediction by a fit without it (and its group).

    `coefficients` and `intercept` are of the fit that is shipped. `kinds` names what the images come from; how much a new image
    looks like each is a ridge on standardised features with penalty `alpha`. Without, or with one kind only, the
    prediction alone tells images apart. Raises UserError for NaN and lengths that differ.
    """
    x, y, _ = checked_problem(features, scores, np.array([alpha]))
    predictions = np.asarray(held_out_scores, np.float64)
    if predictions.shape != y.shape or not np.isfinite(predictions).all():
        raise UserError("spread: every image needs its score and its held-out prediction, as numbers.")
    summaries, directions, offsets = [predictions], [np.asarray(coefficients, np.float64)], [float(intercept)]
    for others, direction, offset in _memberships(x, alpha, kinds, groups):
        summaries.append(others)
        directions.append(direction)
        offsets.append(offset)
    return _fitted(np.stack(summaries, axis=1), y, kinds, np.stack(directions), np.array(offsets))


def layer_summaries(scores: Values, likeness: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """What a hidden layer says of images, for `fit_spread_beside`: their scores, and how much they look like each kind but the
    last, log-odds times SURER."""
    surer = likeness**SURER
    return np.column_stack([scores, (surer / surer.sum(axis=1, keepdims=True))[:, :-1]])


def fit_spread_beside(
    beside: Float[np.ndarray, "n k"], scores: Values, *, width: int, kinds: Sequence[str] | None = None
) -> Spread:
    """The same from what a fit without the image says of it, its prediction first; `Spread.deviations` is to be told the same
    of new images, of `width` features. Raises UserError for NaN and lengths that differ."""
    table, y = np.asarray(beside, np.float64), np.asarray(scores, np.float64)
    if table.ndim != 2 or table.shape[:1] != y.shape or not (np.isfinite(table).all() and np.isfinite(y).all()):
        raise UserError("spread: every image needs its score and all summaries, as numbers.")
    return _fitted(table, y, kinds, np.empty((0, width)), np.empty(0))


def _fitted(
    table: Float[np.ndarray, "n k"],
    y: Values,
    kinds: Sequence[str] | None,
    directions: Float[np.ndarray, "j d"],
    offsets: Float[np.ndarray, " j"],
) -> Spread:
    """From held-out summaries, of which the prediction is the first."""
    centres, widths = table.mean(axis=0), np.maximum(table.std(axis=0), LEAST_DEVIATION)
    z, weights = monomials((table - centres) / widths), _weights(kinds, len(y))
    squares = np.maximum((y - table[:, 0]) ** 2, np.finfo(np.float64).tiny)
    # what covers nine in ten of a kind differs with how its residuals are spread, so squares are weighed by that first
    squares_of_kind = squares
    for _ in range(ROUNDS):
        squares_of_kind = squares_of_kind * _tails(squares / _crossed(z, squares_of_kind, weights), weights, kinds)
    crossed = _crossed(z, squares_of_kind, weights)
    quadratic = _logarithms(z, squares_of_kind, weights)
    quadratic[0] += np.log(_quantile(squares / crossed, weights) / INSIDE**2)
    surest = np.argsort(crossed)[: max(int(LOWEST * len(y)), 1)]
    return Spread(
        directions=directions.astype(np.float32),
        offsets=offsets,
        centres=centres,
        widths=widths,
        quadratic=quadratic,
        # where the quadratic falls it has seen few images, and is wrong
        least=_quantile(squares[surest], np.ones(len(surest))) / INSIDE**2,
    )


def _crossed(z: Float[np.ndarray, "n q"], squares: Values, weights: Values) -> Values:
    """The variance of each row by a quadratic that was fitted without its fold."""
    crossed, folds = np.empty(len(z)), np.arange(len(z)) % FOLDS
    for fold in np.unique(folds):
        inside = folds == fold
        crossed[inside] = np.exp(z[inside] @ _logarithms(z[~inside], squares[~inside], weights[~inside]))
    return crossed


def _quantile(ratios: Values, weights: Values) -> float:
    """What LEVEL of the rows are at or below, each counted by its weight."""
    order = np.argsort(ratios)
    reached = int(np.searchsorted(np.cumsum(weights[order]), LEVEL * (weights.sum() + 1)))
    return float(ratios[order][min(reached, len(ratios) - 1)])


def _tails(ratios: Values, weights: Values, kinds: Sequence[str] | None) -> Values:
    """Of each row the LEVEL quantile of its kind's ratios, over that of all; 1 for a kind too small to have one."""
    whole = _quantile(ratios, weights)
    if kinds is None or whole <= 0:
        return np.ones(len(ratios))
    found, names = np.full(len(ratios), whole), np.asarray(kinds, str)
    for name in np.unique(names):
        rows = names == name
        if rows.sum() * (1 - LEVEL) >= LEAST_ABOVE:
            found[rows] = _quantile(ratios[rows], np.ones(rows.sum()))
    return found / whole


def _weights(kinds: Sequence[str] | None, count: int) -> Values:
    """Of each image, the same sum for each kind; 1 on average."""
    if kinds is None:
        return np.ones(count)
    _, of_row, counts = np.unique(np.asarray(kinds, str), return_inverse=True, return_counts=True)
    return count / len(counts) / counts[of_row]


def _logarithms(z: Float[np.ndarray, "n q"], squares: Values, weights: Values) -> Float[np.ndarray, " q"]:
    """Of the variances under which squares of normal residuals are likeliest, a gamma regression, by Fisher's scoring."""
    weighted = z * weights[:, None]
    penalty = PENALTY * weights.sum() * np.eye(z.shape[1])
    penalty[0, 0] = 0
    information = weighted.T @ z + penalty
    found = np.zeros(z.shape[1])
    found[0] = np.log(np.average(squares, weights=weights))
    for _ in range(SCORING):
        uphill = weighted.T @ (squares / np.exp(z @ found) - 1) - penalty @ found
        found += DAMPED * np.linalg.solve(information, uphill)
    return found


def _memberships(
    x: Float[np.ndarray, "n d"],
    alpha: float,
    kinds: Sequence[str] | None,
    groups: Sequence[str] | None,
) -> list[tuple[Values, Float[np.ndarray, " d"], float]]:
    """For all kinds but the last (they add up to 1): held-out memberships, and the coefficients on raw features."""
    names = np.asarray([""] * len(x) if kinds is None else kinds, str)
    if names.shape != (len(x),):
        raise UserError("spread: every image needs a kind.")
    told = np.unique(names)[:-1]
    if not len(told):
        return []
    mean, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), LEAST_DEVIATION)
    z, members = (x - mean) / deviation, (names[:, None] == told).astype(np.float64)
    shares = members.mean(axis=0)
    members -= shares
    along, predictions = left_out(z, members, z.T @ z, z.T @ members, alpha, group_numbers(groups, len(x)))
    raw = along.T / deviation
    return list(zip((predictions + shares).T, raw, shares - raw @ mean, strict=True))
