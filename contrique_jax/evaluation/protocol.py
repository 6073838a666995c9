"""The evaluation protocol: ridge on train, one alpha by validation or by leave-one-out, correlations on test.

Works on features, scores and splits alone (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import Correlations, correlate, rank_correlations
from contrique_jax.evaluation.intervals import Difference, compare_over_splits
from contrique_jax.evaluation.splits import Rows, Split, check_splits, make_splits
from contrique_jax.probe.posterior import Calibration, calibrate, coverage, coverage_of_kinds
from contrique_jax.probe.ridge import held_out_paths

__all__ = [
    "ALPHAS", "Chooser", "Evaluation", "Split", "SplitResult", "best_alpha", "check_scores", "compare_evaluations",
    "evaluate_features", "make_splits", "own_line",
]  # fmt: skip

ALPHAS = np.geomspace(1e-3, 1e3, 100)
Chooser = Literal["validation", "leave-one-out"]


@dataclass(frozen=True)
class SplitResult:
    """The test side of one split."""

    split: Split
    pooled: Correlations
    subsets: dict[str, Correlations]
    predictions: Float[np.ndarray, " test"]
    deviations: Float[np.ndarray, " test"]  # of each score about its prediction, calibrated without the test side
    coverage: float  # share of test scores inside their 90 % interval
    subset_coverages: dict[str, float]
    fitted: int  # images that the ridge was fitted on


@dataclass(frozen=True)
class Evaluation:
    """One model's results under the protocol, over all splits."""

    alpha: float
    validation_srocc: float  # median over the splits, at that alpha, of the held-out images by which it was chosen
    deviation: float  # root mean square of score - prediction over all those held-out images
    calibration: Calibration  # on all of them, for the probe's posterior
    chosen_by: Chooser
    results: list[SplitResult]
    logistic: int = 4  # parameters of the curve behind PLCC and RMSE
    note: str | None = None  # what makes the alpha doubtful

    def values(self, metric: str, subset: str | None = None) -> Float[np.ndarray, " splits"]:
        """`metric` ("srocc", "plcc", "krocc", "rmse", "outlier_ratio") of every split, pooled or of one subset."""
        chosen = [result.pooled if subset is None else result.subsets[subset] for result in self.results]
        return np.array([getattr(correlations, metric) for correlations in chosen])

    @property
    def coverages(self) -> Float[np.ndarray, " splits"]:
        """Share of each split's test scores inside their 90 % interval."""
        return np.array([result.coverage for result in self.results])


def evaluate_features(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    splits: Sequence[Split],
    subsets: Sequence[str] | None = None,
    alphas: Float[np.ndarray, " a"] = ALPHAS,
    *,
    choose_alpha_by: Chooser = "validation",
    groups: Sequence[str] | None = None,
    opinion_deviations: Float[np.ndarray, " n"] | None = None,
    logistic_parameters: int = 4,
    own_direction: int = 0,
) -> Evaluation:
    """The protocol: a ridge for every alpha, one alpha for all splits, correlations on test.

    "validation": fitted on train; the alpha of the highest median validation SROCC. "leave-one-out": fitted on train
    and validation together; the alpha of the least mean squared error of images left out, each with its group if
    `groups` are given (near-duplicates and distortions of one photograph would choose too small an alpha). The error
    and not SROCC: an image left out moves the mean the other way, so ranks would turn against large alphas. The largest
    of equally good alphas wins. `own_direction`: 1 or -1 for a model that gives a score and needs no ridge: whether it
    rises or falls with `scores`; a line of that direction brings it to their units. `opinion_deviations` and
    `logistic_parameters` are `correlate`'s. Raises UserError for scores with NaN or all alike, splits that do not fit, and if
    no validation side has varying scores and predictions.
    """
    check_scores(features, scores, groups)
    check_splits(splits, len(scores), need_validation=choose_alpha_by == "validation")
    if own_direction:
        validated = choose_alpha_by == "validation"
        fits = [s.train if validated else np.concatenate([s.train, s.validation]) for s in splits]
        chosen_on = [s.validation for s in splits] if validated else fits
        predictions_by_alpha, leverages = _own_lines(own_direction * features[:, 0].astype(np.float64), scores, fits)
        alphas, best = np.zeros(1), 0
    elif choose_alpha_by == "validation":
        fits, chosen_on = [s.train for s in splits], [s.validation for s in splits]
        predictions_by_alpha, leverages = held_out_paths(features, scores, fits, alphas)
        best = _best_by_validation(predictions_by_alpha, scores, chosen_on)
    else:
        fits = chosen_on = [np.concatenate([s.train, s.validation]) for s in splits]
        predictions_by_alpha, leverages = held_out_paths(features, scores, fits, alphas, groups)
        best = best_alpha(predictions_by_alpha, scores, fits)
    errors = [scores[rows] - p[best, rows] for p, rows in zip(predictions_by_alpha, chosen_on, strict=True)]
    reaches = [leverage[best, rows] for leverage, rows in zip(leverages, chosen_on, strict=True)]
    ranks = [
        rank_correlations(p[best : best + 1, rows], scores[rows])[0]
        for p, rows in zip(predictions_by_alpha, chosen_on, strict=True)
    ]
    kinds = None if subsets is None else np.asarray(subsets, str)
    results = []
    for i, split in enumerate(splits):
        predicted = predictions_by_alpha[i, best]
        deviations = calibrate(errors[i], reaches[i]).deviations(leverages[i, best, split.test])

        def correlations(rows: Rows, predicted: Float[np.ndarray, " n"] = predicted) -> Correlations:
            opinions = None if opinion_deviations is None else np.asarray(opinion_deviations)[rows]
            return correlate(
                predicted[rows], scores[rows], opinion_deviations=opinions, logistic_parameters=logistic_parameters
            )

        errors_on_test = scores[split.test] - predicted[split.test]
        parts = {}
        if kinds is not None:
            parts = {str(kind): correlations(split.test[kinds[split.test] == kind]) for kind in np.unique(kinds)}
        results.append(
            SplitResult(
                split=split,
                pooled=correlations(split.test),
                subsets=parts,
                predictions=predicted[split.test],
                deviations=deviations,
                coverage=coverage(errors_on_test, deviations),
                subset_coverages=coverage_of_kinds(
                    errors_on_test, deviations, None if kinds is None else kinds[split.test]
                ),
                fitted=len(fits[i]),
            )
        )
    every_error = np.concatenate(errors)
    note = None
    if len(alphas) > 1 and best in (int(np.argmin(alphas)), int(np.argmax(alphas))):
        note = f"alpha {alphas[best]:g} is at the end of those tried, {min(alphas):g} to {max(alphas):g}"
    return Evaluation(
        alpha=float(alphas[best]),
        validation_srocc=float(np.median([rank for rank in ranks if not np.isnan(rank)] or [np.nan])),
        deviation=float(np.sqrt(np.mean(every_error**2))),
        calibration=calibrate(every_error, np.concatenate(reaches)),
        chosen_by=choose_alpha_by,
        results=results,
        logistic=logistic_parameters,
        note=note,
    )


def check_scores(
    features: Float[np.ndarray, "n d"], scores: Float[np.ndarray, " n"], groups: Sequence[str] | None = None
) -> None:
    """Raises UserError for scores with NaN or all alike, and lengths that differ."""
    scores = np.asarray(scores)
    if scores.ndim != 1 or len(features) != len(scores) or (groups is not None and len(groups) != len(scores)):
        raise UserError(f"--scores: {len(scores)} scores do not fit {len(features)} features; give one score an image.")
    if not np.isfinite(scores).all():
        count = int((~np.isfinite(scores)).sum())
        raise UserError(f"--scores: {count} scores are NaN or infinite; leave such images out.")
    if not len(scores) or np.ptp(scores) == 0:
        raise UserError("--scores: every score is the same, so nothing can be learned; check the score column.")


def best_alpha(
    predictions_by_alpha: Float[np.ndarray, "fits a n"], scores: Float[np.ndarray, " n"], fits: Sequence[Rows]
) -> int:
    """Index of the alpha of the least mean squared error of the fitted rows, each left out; the largest of equal ones."""
    errors = [
        np.mean((p[:, rows] - scores[rows]) ** 2, axis=1) for p, rows in zip(predictions_by_alpha, fits, strict=True)
    ]
    return _last_best(-np.mean(errors, axis=0))


def _own_lines(
    own: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"], fits: Sequence[Rows]
) -> tuple[Float[np.ndarray, "splits 1 n"], Float[np.ndarray, "splits 1 n"]]:
    """A model's own scores in the units of `scores`, by a line of each split."""
    lines = [own_line(own[rows], scores[rows]) for rows in fits]
    return np.stack([slope * own + zero for slope, zero in lines])[:, None], np.zeros((len(fits), 1, len(own)))


def own_line(own: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Slope, above 0, and zero of the line that gives a model's own scores the mean and deviation of `scores`."""
    slope = float(scores.std() / max(own.std(), 1e-12))
    return slope, float(scores.mean() - slope * own.mean())


def _best_by_validation(
    predictions_by_alpha: Float[np.ndarray, "fits a n"], scores: Float[np.ndarray, " n"], sides: Sequence[Rows]
) -> int:
    found = [rank_correlations(p[:, rows], scores[rows]) for p, rows in zip(predictions_by_alpha, sides, strict=True)]
    usable = [path for path in found if not np.isnan(path).all()]
    if not usable:
        raise UserError("--scores: the scores or predictions of every validation side are constant; add images.")
    return _last_best(np.median(np.nan_to_num(usable, nan=-1.0), axis=0))


def _last_best(values: Float[np.ndarray, " a"]) -> int:
    return len(values) - 1 - int(np.argmax(values[::-1]))


def compare_evaluations(
    first: Evaluation, second: Evaluation, metric: str = "srocc", subset: str | None = None
) -> Difference:
    """Whether two models differ over the same splits, by the corrected resampled t-test (`compare_over_splits`).

    Raises UserError if the splits are not the same.
    """
    same = len(first.results) == len(second.results) and all(
        np.array_equal(a.split.test, b.split.test) for a, b in zip(first.results, second.results, strict=True)
    )
    if not same:
        raise UserError("comparison: the two models were not evaluated over the same splits; use the same splits.")
    ratio = float(np.mean([len(result.split.test) / result.fitted for result in first.results]))
    return compare_over_splits(first.values(metric, subset), second.values(metric, subset), ratio)
