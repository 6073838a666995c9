"""How well predictions follow opinion scores: SROCC, KROCC, and PLCC and RMSE after a 4-parameter logistic fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

from contrique_jax.errors import UserError

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Correlations:
    """One comparison. A number that is not defined (constant input, under three images) is NaN and `notes` says why."""

    srocc: float  # Spearman's rank correlation, -1..1
    krocc: float  # Kendall's tau-b, -1..1
    plcc: float  # Pearson's correlation after the fit, negative where the fitted curve falls
    rmse: float  # root mean square error after the fit, in units of the scores
    notes: tuple[str, ...] = ()


def correlate(predictions: Values, scores: Values) -> Correlations:
    """All four numbers for `predictions` [n] against `scores` [n].

    Raises UserError where the lengths differ or a value is not finite.
    """
    predictions, scores = _pair(predictions, scores)
    why = _undefined(predictions, scores)
    if why:
        return Correlations(np.nan, np.nan, np.nan, np.nan, (why,))
    fitted, note = fit_logistic(predictions, scores)
    return Correlations(
        srocc=srocc(predictions, scores),
        krocc=krocc(predictions, scores),
        plcc=_signed_pearson(predictions, fitted, scores),
        rmse=rmse(fitted, scores),
        notes=(note,) if note else (),
    )


def srocc(x: Values, y: Values) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where an input is constant."""
    x, y = _pair(x, y)
    return np.nan if _undefined(x, y) else float(stats.spearmanr(x, y).statistic)


def krocc(x: Values, y: Values) -> float:
    """Kendall's tau-b; NaN where an input is constant."""
    x, y = _pair(x, y)
    return np.nan if _undefined(x, y) else float(stats.kendalltau(x, y).statistic)


def plcc(predictions: Values, scores: Values) -> float:
    """Pearson's correlation of scores and predictions mapped by `fit_logistic`; NaN where an input is constant."""
    predictions, scores = _pair(predictions, scores)
    if _undefined(predictions, scores):
        return np.nan
    return _signed_pearson(predictions, fit_logistic(predictions, scores)[0], scores)


def rmse(x: Values, y: Values) -> float:
    """Root mean square difference, as given: nothing is fitted here."""
    x, y = _pair(x, y)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else np.nan


def fit_logistic(predictions: Values, scores: Values) -> tuple[Values, str | None]:
    """Predictions mapped to the scale of the scores by (a - b) / (1 + exp(-(x - c) / |d|)) + b, least squares (VQEG).

    Several starts are tried and the best fit wins. Returns the mapped values, and a note where no logistic was found
    that does at least as well as a straight line: then the line is what is returned.
    """
    predictions, scores = _pair(predictions, scores)
    if np.ptp(predictions) == 0 or len(predictions) < 2:
        return np.full(len(scores), scores.mean() if len(scores) else np.nan), "no fit: the predictions are constant"
    x = (predictions - predictions.mean()) / predictions.std()
    spread = scores.std() or 1.0
    y = (scores - scores.mean()) / spread
    slope = float(x @ y) / len(x)
    line = slope * x
    best, least = line, float(np.sum((line - y) ** 2))
    low, high = (y.min(), y.max()) if slope >= 0 else (y.max(), y.min())
    found = False
    if len(x) > 4:
        for centre, width in ((0.0, 1.0), (float(np.median(x)), 0.25), (0.0, 4.0)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an undetermined covariance, an overflow on the way
                    fit, _ = optimize.curve_fit(_logistic, x, y, p0=(high, low, centre, width), maxfev=4000)
            except (RuntimeError, ValueError):
                continue
            values = _logistic(x, *fit)
            error = float(np.sum((values - y) ** 2))
            if np.isfinite(error) and error <= least * (1 + 1e-6) + 1e-12 and np.ptp(values) > 0:
                best, least, found = values, min(error, least), True
    note = None if found else "the logistic fit did not converge: a straight line stands for it"
    return best * spread + scores.mean(), note


def _logistic(x: Values, a: float, b: float, c: float, d: float) -> Values:
    return (a - b) * special.expit((x - c) / max(abs(d), 1e-12)) + b


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
