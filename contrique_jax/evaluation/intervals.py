"""Bootstrap intervals of correlations, and tests of whether two models differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import correlate, fit_logistic, krocc, srocc
from contrique_jax.probe.problem import rows_by_group

Values = Float[np.ndarray, " n"]
Rows = Int[np.ndarray, " rows"]
RANKS: dict[str, Callable[[Values, Values], float]] = {"srocc": srocc, "krocc": krocc}  # these need no fit
METRICS = (*RANKS, "plcc", "rmse", "outlier_ratio")
OF_MEDIANS = ("srocc", "plcc", "rmse")
BLOCKS = 200  # at most so many sets of units are left out in turn, each once


@dataclass(frozen=True)
class Interval:
    """A number and its interval; NaN if it is not defined, and `note` says why."""

    value: float
    low: float
    high: float
    level: float  # share of such intervals that hold the true number
    note: str | None = None


@dataclass(frozen=True)
class Difference:
    """Two models over the same splits: `low`..`high` is the interval of the mean of first - second."""

    mean: float
    low: float
    high: float
    level: float
    p: float  # two-sided: how often a difference this large would come by chance
    wins: int  # splits in which the first is higher
    splits: int
    note: str | None = None


def bootstrap_intervals(
    predictions: Values,
    scores: Values,
    metrics: Sequence[str] = ("srocc",),
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    logistic_parameters: int = 4,
) -> dict[str, Interval]:
    """Bias-corrected and accelerated (BCa) bootstrap intervals of METRICS, images resampled, or whole `groups`.

    They tell what other images of the same kind would give; the probe stays as it is. The logistic is fitted again to
    every resample (milliseconds each). The units resampled are taken as independent: give the groups if images
    share a content (Efron 1987); fewer than 3 give no interval, which the note says. Raises UserError for unknown metrics.
    """
    predictions, scores = np.asarray(predictions, np.float64), np.asarray(scores, np.float64)
    unknown = set(metrics) - set(METRICS)
    if unknown:
        raise UserError(f"intervals: {', '.join(sorted(unknown))} is not known; choose from {', '.join(METRICS)}.")

    def statistic(rows: Rows) -> Values:
        if set(metrics) <= set(RANKS):
            return np.array([RANKS[name](predictions[rows], scores[rows]) for name in metrics])
        found = correlate(predictions[rows], scores[rows], logistic_parameters=logistic_parameters)
        return np.array([getattr(found, name) for name in metrics])

    found = _bootstrap(statistic, len(scores), groups, level, resamples, seed)
    return dict(zip(metrics, found, strict=True))


def bootstrap_medians(
    predictions: Sequence[Values],
    tests: Sequence[Rows],
    scores: Values,
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    logistic_parameters: int = 4,
) -> dict[str, Interval]:
    """Medians of OF_MEDIANS over test sides, which may overlap, and their BCa intervals.

    `predictions[i]` are of the images `tests[i]`. Images, or whole `groups`, are resampled once for all sides, and every
    side takes its own of them: what is resampled is the number that is reported. The ridges stay as they are, and so does
    the logistic of each side, fitted to all of it; the interval tells what other images of the same kind would give, not
    what other training images would. A side on which a number is not defined does not count.
    """
    scores = np.asarray(scores, np.float64)
    tested = np.unique(np.concatenate(list(tests)))
    sides = []
    for predicted, test in zip(predictions, tests, strict=True):
        defined = len(test) > 2 and np.ptp(predicted) > 0 and np.ptp(scores[test]) > 0
        fitted = (
            fit_logistic(predicted, scores[test], logistic_parameters)[0] if defined else np.full(len(test), np.nan)
        )
        sides.append((_Side(np.asarray(predicted, np.float64), fitted, scores[test]), test))

    def statistic(rows: Rows) -> Values:
        times = np.bincount(tested[rows], minlength=len(scores))
        values = [side.ranks_line_error(times[test]) for side, test in sides]
        kept = [column[~np.isnan(column)] for column in np.array(values).T]
        return np.array([np.median(column) if len(column) else np.nan for column in kept])

    names = None if groups is None else [groups[i] for i in tested]
    found = _bootstrap(statistic, len(tested), names, level, resamples, seed)
    return dict(zip(OF_MEDIANS, found, strict=True))


class _Side:
    """A test side, sorted once: a resample is how many times each of its images was drawn."""

    def __init__(self, predicted: Values, fitted: Values, scores: Values):
        self.predicted, self.fitted, self.scores = predicted, fitted, scores
        self.places = [np.unique(values, return_inverse=True)[1] for values in (predicted, scores)]
        self.defined = not np.isnan(fitted).any()

    def ranks_line_error(self, times: Rows) -> tuple[float, float, float]:
        """SROCC of the predictions, PLCC and RMSE of what the logistic makes of them, each image so many times."""
        drawn, count = np.flatnonzero(times), int(times.sum())
        if count < 3 or not self.defined:
            return np.nan, np.nan, np.nan
        times = times[drawn]
        predicted, fitted, scores = (values[drawn] for values in (self.predicted, self.fitted, self.scores))
        error = float(np.sqrt(times @ (fitted - scores) ** 2 / count))
        if np.ptp(predicted) == 0 or np.ptp(fitted) == 0 or np.ptp(scores) == 0:
            return np.nan, np.nan, error
        turned = fitted[np.argmax(predicted)] < fitted[np.argmin(predicted)]  # the sign is that of the predictions
        line = (-1 if turned else 1) * _pearson(fitted, scores, times)
        ranks = []
        for places in self.places:
            equal = np.bincount(places[drawn], times)
            ranks.append((np.cumsum(equal) - equal / 2)[places[drawn]])  # of equal ones the middle
        return _pearson(ranks[0], ranks[1], times), line, error


def _pearson(x: Values, y: Values, times: Rows) -> float:
    """The correlation, each pair so many times."""
    count = times.sum()
    x, y = x - times @ x / count, y - times @ y / count
    return float(times @ (x * y) / np.sqrt((times @ x**2) * (times @ y**2)))


def bootstrap_difference(
    first: Values,
    second: Values,
    scores: Values,
    metric: str = "srocc",
    *,
    groups: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """BCa interval of `metric` of the first model's predictions less the second's, on the same images, resampled alike.

    For one test set, official or another data set; as in `bootstrap_intervals` the units are taken as independent.
    """
    first, second, scores = (np.asarray(values, np.float64) for values in (first, second, scores))
    if metric not in METRICS:
        raise UserError(f"intervals: {metric} is not known; choose from {', '.join(METRICS)}.")

    def one(values: Values, rows: Rows) -> float:
        if metric in RANKS:
            return RANKS[metric](values[rows], scores[rows])
        return float(getattr(correlate(values[rows], scores[rows]), metric))

    def statistic(rows: Rows) -> Values:
        return np.array([one(first, rows) - one(second, rows)])

    return _bootstrap(statistic, len(scores), groups, level, resamples, seed)[0]


def compare_over_splits(first: Values, second: Values, test_to_train: float, level: float = 0.95) -> Difference:
    """The corrected resampled t-test of Nadeau and Bengio (2003) on a number of two models, split by split.

    Random splits share training and test images, so their differences are not independent, and a plain t-test or
    Wilcoxon's finds differences that are not there: the variance of the mean is taken as (1/splits + test_to_train)
    times the variance of the differences, `test_to_train` images tested for each image trained on. Assumes differences
    near a normal distribution, and the same splits for both. Splits in which a number is NaN are left out and said.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise UserError("comparison: the two models were not evaluated over the same splits; use the same splits.")
    if not test_to_train > 0:
        raise UserError("comparison: test_to_train must be above 0: images tested for each image trained on.")
    differences = (first - second)[~np.isnan(first - second)]
    lost = len(first) - len(differences)
    note = f"not defined in {lost} of {len(first)} splits, left out" if lost else None
    count = len(differences)
    if count < 2:
        why = f"not defined: {count} splits are too few"
        return Difference(np.nan, np.nan, np.nan, level, np.nan, 0, count, why)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    wins = int((differences > 0).sum())
    if spread <= 1e-12 * abs(mean) or spread == 0:
        why = "no test: the difference is the same in every split"
        return Difference(mean, mean, mean, level, np.nan if mean else 1.0, wins, count, why)
    error = spread * np.sqrt(1 / count + test_to_train)
    reach = error * stats.t.ppf((1 + level) / 2, count - 1)
    p = 2 * stats.t.sf(abs(mean) / error, count - 1)
    return Difference(mean, float(mean - reach), float(mean + reach), level, float(p), wins, count, note)


def _bootstrap(
    statistic: Callable[[Rows], Values],
    images: int,
    groups: Sequence[str] | None,
    level: float,
    resamples: int,
    seed: int,
) -> list[Interval]:
    """BCa intervals of every entry of statistic(rows), units of rows resampled with replacement."""
    if not 0 < level < 1 or resamples < 100:
        raise UserError(f"intervals: level {level:g} must be between 0 and 1, and {resamples} resamples at least 100.")
    names = np.arange(images) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if len(names) != images:
        raise UserError(f"intervals: {len(names)} groups for {images} images; give one group for each image.")
    units = rows_by_group(names)
    whole = statistic(np.arange(images))
    if len(units) < 3:
        why = f"no interval: {len(units)} images or groups are too few to resample"
        return [Interval(float(value), np.nan, np.nan, level, why) for value in whole]
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            statistic(np.concatenate([units[i] for i in rng.integers(0, len(units), len(units))]))
            for _ in range(resamples)
        ]
    )
    blocks = np.array_split(np.arange(len(units)) if len(units) <= BLOCKS else rng.permutation(len(units)), BLOCKS)
    left = [np.delete(np.arange(len(units)), block) for block in blocks if len(block)]
    without = np.array([statistic(np.concatenate([units[i] for i in rows])) for rows in left])
    return [_bca(*parts, level) for parts in zip(whole, drawn.T, without.T, strict=True)]


def _bca(value: float, drawn: Values, without: Values, level: float) -> Interval:
    kept, without = drawn[~np.isnan(drawn)], without[~np.isnan(without)]
    if np.isnan(value) or len(kept) < len(drawn) / 2 or not len(without):
        return Interval(float(value), np.nan, np.nan, level, "no interval: the number is not defined in most resamples")
    lost = len(drawn) - len(kept)
    note = f"not defined in {lost} of {len(drawn)} resamples, left out" if lost else None
    share = np.mean(kept < value) / 2 + np.mean(kept <= value) / 2
    if share in (0, 1):
        why = "no interval: every resample is on one side of the number"
        return Interval(float(value), np.nan, np.nan, level, why)
    bias = stats.norm.ppf(share)
    pull = without.mean() - without
    acceleration = np.sum(pull**3) / (6 * np.sum(pull**2) ** 1.5) if np.any(pull) else 0.0
    tails = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2]) + bias
    low, high = np.quantile(kept, stats.norm.cdf(bias + tails / (1 - acceleration * tails)))
    return Interval(float(value), float(low), float(high), level, note)
