"""Correlations of predictions with opinion scores: SROCC, KROCC, and PLCC, RMSE and outlier ratio after a logistic fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation.logistic import fit_curve

Values = Float[np.ndarray, " n"]
BY_OPINIONS = "2 standard deviations of the image's opinions"
BY_RESIDUALS = "2 standard deviations of the residuals"


@dataclass(frozen=True)
class Correlations:
    """One comparison. A number that is not defined (constant input, under three images) is NaN and `notes` says why."""

    srocc: float  # Spearman's rank correlation, -1..1
    krocc: float  # Kendall's tau-b, -1..1
    plcc: float  # Pearson's correlation after the fit, negative if the fitted curve falls
    rmse: float  # root mean square error after the fit, in units of the scores
    notes: tuple[str, ...] = ()
    outlier_ratio: float = np.nan  # share of images further from the fit than `outlier_rule`, 0..1 (VQEG)
    outlier_rule: str = BY_RESIDUALS


def correlate(
    predictions: Values, scores: Values, *, opinion_deviations: Values | None = None, logistic_parameters: int = 4
) -> Correlations:
    """All numbers for `predictions` [n] against `scores` [n], after a logistic of 4 or 5 `logistic_parameters`.

    `opinion_deviations` [n]: standard deviation of each image's opinions, in units of the scores; an outlier is an
    image further than twice that from the fit, and without them one further than twice the residuals' deviation.
    Raises UserError if the lengths differ or a value is not finite.
    """
    predictions, scores = _pair(predictions, scores)
    if opinion_deviations is not None:
        opinion_deviations = _pair(opinion_deviations, scores)[0]
        if (opinion_deviations < 0).any():
            raise UserError(
                "correlation: a standard deviation of opinions is below 0; give deviations, not differences."
            )
    rule = BY_RESIDUALS if opinion_deviations is None else BY_OPINIONS
    why = _undefined(predictions, scores)
    if why:
        return Correlations(np.nan, np.nan, np.nan, np.nan, (why,), outlier_rule=rule)
    fitted, note = fit_logistic(predictions, scores, logistic_parameters)
    residuals = np.abs(fitted - scores)
    return Correlations(
        srocc=srocc(predictions, scores),
        krocc=krocc(predictions, scores),
        plcc=_signed_pearson(predictions, fitted, scores),
        rmse=rmse(fitted, scores),
        notes=(note,) if note else (),
        outlier_ratio=float(
            np.mean(residuals > 2 * ((fitted - scores).std() if opinion_deviations is None else opinion_deviations))
        ),
        outlier_rule=rule,
    )


def srocc(x: Values, y: Values) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN if an input is constant."""
    x, y = _pair(x, y)
    return np.nan if _undefined(x, y) else float(stats.spearmanr(x, y).statistic)


def krocc(x: Values, y: Values) -> float:
    """Kendall's tau-b; NaN if an input is constant."""
    x, y = _pair(x, y)
    return np.nan if _undefined(x, y) else float(stats.kendalltau(x, y).statistic)


def plcc(predictions: Values, scores: Values, logistic_parameters: int = 4) -> float:
    """Pearson's correlation of scores and predictions mapped by `fit_logistic`; NaN if an input is constant."""
    predictions, scores = _pair(predictions, scores)
    if _undefined(predictions, scores):
        return np.nan
    return _signed_pearson(predictions, fit_logistic(predictions, scores, logistic_parameters)[0], scores)


def rmse(x: Values, y: Values) -> float:
    """Root mean square difference, as given: nothing is fitted here."""
    x, y = _pair(x, y)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else np.nan


def rank_correlations(
    predictions: Float[np.ndarray, "a n"], scores: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " a"]:
    """Spearman's correlation of every row with the scores; NaN if one of the two is constant."""
    x, y = stats.rankdata(predictions, axis=1), stats.rankdata(scores)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    with np.errstate(invalid="ignore"):
        return (x @ y) / np.sqrt((x * x).sum(axis=1) * (y @ y))


def fit_logistic(predictions: Values, scores: Values, logistic_parameters: int = 4) -> tuple[Values, str | None]:
    """Predictions mapped to the scale of the scores by `logistic.fit_curve`, and a note if the curve is no logistic."""
    predictions, scores = _pair(predictions, scores)
    curve = fit_curve(predictions, scores, logistic_parameters)
    return curve(predictions), curve.note


def _signed_pearson(predictions: Values, fitted: Values, scores: Values) -> float:
    if np.ptp(fitted) == 0:
        return np.nan
    value = float(stats.pearsonr(fitted, scores).statistic)
    first, last = np.argmin(predictions), np.argmax(predictions)
    return value if fitted[last] >= fitted[first] else -value


def _pair(x: Values, y: Values) -> tuple[Values, Values]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise UserError(
            f"correlation: {list(x.shape)} predictions for {list(y.shape)} scores; give two lists of one length."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("correlation: a prediction or score is NaN or infinite; leave such images out.")
    return x, y


def _undefined(predictions: Values, scores: Values) -> str | None:
    if len(scores) < 3:
        return f"not defined: {len(scores)} images are too few"
    for what, values in (("predictions", predictions), ("scores", scores)):
        if np.ptp(values) == 0:
            return f"not defined: the {what} are constant"
    return None
