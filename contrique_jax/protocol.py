"""The evaluation protocol: repeated grouped 70/10/20 splits, one alpha by validation, correlations on test.

Works on features and scores alone (specification, section "Evaluation protocol").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from contrique_jax.correlation import Correlations, correlate
from contrique_jax.errors import UserError
from contrique_jax.probe import float64, ridge_path

ALPHAS = np.geomspace(1e-3, 1e3, 100)
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
FEWEST_GROUPS = 5
FEWEST_IMAGES = 3  # on every side of every split: fewer have no rank correlation worth the name
# Up to this much, every split is solved at once.
VMAP_BYTES = 3 << 30

Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Split:
    """Rows of the data set on each side."""

    train: Rows
    validation: Rows
    test: Rows


@dataclass(frozen=True)
class SplitResult:
    """The test side of one split."""

    split: Split
    pooled: Correlations
    subsets: dict[str, Correlations]


@dataclass(frozen=True)
class Evaluation:
    """What the protocol found."""

    alpha: float
    validation_srocc: float  # median over the splits, at that alpha
    deviation: float  # root mean square of score - prediction over all validation sides
    results: list[SplitResult]

    def values(self, number: str, subset: str | None = None) -> Float[np.ndarray, " splits"]:
        """`number` ("srocc", "plcc", "krocc", "rmse") of every split, pooled or of one subset."""
        chosen = [result.pooled if subset is None else result.subsets[subset] for result in self.results]
        return np.array([getattr(correlations, number) for correlations in chosen])


def make_splits(groups: Sequence[str], count: int, seed: int) -> list[Split]:
    """`count` random splits of the groups into 70 % train, 10 % validation, 20 % test, at least one group on each side.

    A group is never on two sides. The same groups, in any number of runs, give the same splits for the same seed.
    Raises UserError where there are too few groups or images.
    """
    names, of_row = np.unique(np.asarray(groups, str), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise UserError(
            f"--scores: {len(names)} groups cannot be split 70/10/20; at least {FEWEST_GROUPS} are needed "
            "(a group is never on two sides; see --group-column)."
        )
    tests = max(round(TEST_SHARE * len(names)), 1)
    validations = max(round(VALIDATION_SHARE * len(names)), 1)
    splits = []
    for i in range(count):
        order = np.random.default_rng([seed, i]).permutation(len(names))
        side = np.zeros(len(names), int)
        side[order[:tests]], side[order[tests : tests + validations]] = 2, 1
        rows = [np.flatnonzero(side[of_row] == k) for k in range(3)]
        if min(len(part) for part in rows) < FEWEST_IMAGES:
            raise UserError(
                f"--scores: {len(of_row)} images in {len(names)} groups leave fewer than {FEWEST_IMAGES} on a side of "
                "a 70/10/20 split; add images."
            )
        splits.append(Split(*rows))
    return splits


def evaluate_features(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    splits: Sequence[Split],
    subsets: Sequence[str] | None = None,
    alphas: Float[np.ndarray, " a"] = ALPHAS,
) -> Evaluation:
    """The protocol: ridge on train for every alpha, the alpha of the highest median validation SROCC over the splits
    (the largest of equal ones), correlations on test. Raises UserError where no validation side has varying scores."""
    predictions = ridge_predictions(features, scores, [split.train for split in splits], alphas)
    validation = np.array(
        [rank_correlations(p[:, s.validation], scores[s.validation]) for p, s in zip(predictions, splits, strict=True)]
    )
    usable = ~np.isnan(validation).all(axis=1)
    if not usable.any():
        raise UserError("--scores: the scores or predictions of every validation side are constant; add images.")
    medians = np.median(np.nan_to_num(validation[usable], nan=-1.0), axis=0)
    best = len(alphas) - 1 - int(np.argmax(medians[::-1]))
    residuals = [scores[s.validation] - p[best, s.validation] for p, s in zip(predictions, splits, strict=True)]
    kinds = np.asarray(subsets, str) if subsets is not None else None
    results = []
    for predicted, split in zip(predictions[:, best], splits, strict=True):
        parts = {}
        for kind in [] if kinds is None else np.unique(kinds):
            rows = split.test[kinds[split.test] == kind]  # type: ignore[index]
            parts[str(kind)] = correlate(predicted[rows], scores[rows])
        results.append(SplitResult(split, correlate(predicted[split.test], scores[split.test]), parts))
    return Evaluation(
        alpha=float(alphas[best]),
        validation_srocc=float(medians[best]),
        deviation=float(np.sqrt(np.mean(np.concatenate(residuals) ** 2))),
        results=results,
    )


def ridge_predictions(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    trains: Sequence[Rows],
    alphas: Float[np.ndarray, " a"],
) -> Float[np.ndarray, "splits a n"]:
    """Predictions for every image by ridges fitted on each set of rows, for every alpha, in float64.

    One vmapped computation where it fits into VMAP_BYTES, else split by split; sets are padded to one length.
    """
    longest = max(len(rows) for rows in trains)
    places = np.array([np.pad(rows, (0, longest - len(rows))) for rows in trains])
    weights = np.array([np.arange(longest) < len(rows) for rows in trains], np.float64)

    def solve(x: jax.Array, y: jax.Array, places: jax.Array, weights: jax.Array, alphas: jax.Array) -> jax.Array:
        coefficients, intercepts = ridge_path(x[places], y[places], alphas, weights)
        return coefficients @ x.T + intercepts[:, None]

    side = min(longest, features.shape[1])
    needed = len(trains) * 8 * (3 * longest * features.shape[1] + 4 * side * side)
    with float64():
        x, y = jax.numpy.asarray(features, float), jax.numpy.asarray(scores, float)
        if needed <= VMAP_BYTES:
            return np.asarray(jax.jit(jax.vmap(solve, (None, None, 0, 0, None)))(x, y, places, weights, alphas))
        one = jax.jit(solve)
        return np.array([np.asarray(one(x, y, *pair, alphas)) for pair in zip(places, weights, strict=True)])


def rank_correlations(
    predictions: Float[np.ndarray, "a n"], scores: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " a"]:
    """Spearman's correlation of every row with the scores; NaN where one of the two is constant."""
    x, y = stats.rankdata(predictions, axis=1), stats.rankdata(scores)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    with np.errstate(invalid="ignore"):
        return (x @ y) / np.sqrt((x * x).sum(axis=1) * (y @ y))
