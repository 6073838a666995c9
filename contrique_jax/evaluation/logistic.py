"""Monotone logistic curves from predictions to the scale of opinion scores, by least squares.

4 parameters (VQEG): amplitude / (1 + exp(-(x - centre) / width)) + offset.
5 parameters (Sheikh, Sabir and Bovik 2006): the same + slope x, which is monotone if amplitude and slope have one
sign; here they are fitted under that condition, so the curve cannot turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from contrique_jax.errors import UserError

Values = Float[np.ndarray, " n"]
# From a step to what no one can tell from a line, in units of the predictions' spread (that of their quartiles, which
# one far prediction cannot stretch).
NARROWEST, WIDEST = 1e-3, 1e2
START_WIDTHS = (0.03, 0.1, 0.3, 0.8, 2.5)  # of each the best centre, and of these the best
STARTS = 3


@dataclass(frozen=True)
class Curve:
    """A fitted curve; `note` says if it is not the logistic that was asked for."""

    amplitude: float
    centre: float
    width: float  # > 0
    slope: float  # 0 with 4 parameters
    offset: float
    note: str | None = None

    def __call__(self, x: Values) -> Values:
        x = np.asarray(x, np.float64)
        return self.amplitude * special.expit((x - self.centre) / self.width) + self.slope * x + self.offset


def fit_curve(predictions: Values, scores: Values, parameters: int = 4) -> Curve:
    """The curve of least squared error through finite (prediction, score) pairs, rising or falling.

    Amplitude, slope and offset are solved exactly for each centre and width, and these two are searched for from the
    best places of a grid. Where the search fails or does worse than a straight line, the line is returned and said.
    """
    if parameters not in (4, 5):
        raise UserError(f"logistic fit: {parameters} parameters; give 4 or 5.")
    x, y = np.asarray(predictions, np.float64), np.asarray(scores, np.float64)
    if len(x) < 2 or np.ptp(x) == 0:
        mean = float(y.mean()) if len(y) else np.nan
        return Curve(0.0, 0.0, 1.0, 0.0, mean, "no fit: the predictions are constant")
    spread = float(np.subtract(*np.quantile(x, [0.75, 0.25]))) / 1.35
    middle, unit = (x.mean(), y.mean()), (spread or x.std(), y.std() or 1.0)
    x, y = (x - middle[0]) / unit[0], (y - middle[1]) / unit[1]

    def in_units(amplitude: float, centre: float, width: float, slope: float, note: str | None = None) -> Curve:
        bend = amplitude * special.expit((x - centre) / width) + slope * x
        offset = float(np.mean(y - bend))
        rise = slope * unit[1] / unit[0]
        return Curve(
            float(amplitude * unit[1]),
            float(middle[0] + unit[0] * centre),
            float(width * unit[0]),
            float(rise),
            float(middle[1] + unit[1] * offset - rise * middle[0]),
            note,
        )

    slope = float(x @ y) / float(x @ x)
    line_error = float(np.sum((slope * x - y) ** 2))
    why = "too few images for it"
    if len(x) > parameters:
        found, why = _search(x, y, parameters)
        if found is not None:
            error = float(np.sum(_solve(x, y, found, parameters)[2] ** 2))
            if error <= line_error * (1 + 1e-6) + 1e-12:
                amplitude, bent, _ = _solve(x, y, found, parameters)
                return in_units(amplitude, found[0], np.exp(found[1]), bent)
            why = "it does worse than a line"
    return in_units(0.0, 0.0, 1.0, slope, f"no logistic fit ({why}): a straight line stands for it")


def _search(x: Values, y: Values, parameters: int) -> tuple[Values | None, str]:
    """(centre, log width) of the least error from several starts, or None and why there is none."""
    low, high = np.array([x.min() - 3, np.log(NARROWEST)]), np.array([x.max() + 3, np.log(WIDEST)])

    def error(place: Values) -> tuple[float, Values]:
        return _error(x, y, place, parameters)

    centres = np.quantile(x, np.linspace(0.02, 0.98, 9))
    best = [min((np.array([c, w]) for c in centres), key=lambda at: error(at)[0]) for w in np.log(START_WIDTHS)]
    starts = sorted(best, key=lambda at: error(at)[0])[:STARTS]
    fits = [
        optimize.minimize(
            error,
            start,
            jac=True,
            method="TNC",  # goes along the flat valleys where Gauss-Newton creeps, without LAPACK's threads
            bounds=list(zip(low, high, strict=True)),
            options={"ftol": 1e-14, "gtol": 1e-10, "maxfun": 300},
        )
        for start in starts
    ]
    fits = [fit for fit in fits if fit.success and np.isfinite(fit.fun)]
    if not fits:
        return None, "it did not converge"
    return min(fits, key=lambda fit: fit.fun).x, ""


def _error(x: Values, y: Values, place: Values, parameters: int) -> tuple[float, Float[np.ndarray, "2"]]:
    """Mean squared error and its gradient with (centre, log width); at the best amplitude and slope, theirs is 0."""
    amplitude, _, residuals = _solve(x, y, place, parameters)
    steepness = np.exp(-place[1])
    t = (x - place[0]) * steepness
    pull = -2 * amplitude * residuals / len(x) * special.expit(t) * special.expit(-t)
    return float(np.mean(residuals**2)), np.array([pull.sum() * steepness, pull @ t])


def _solve(x: Values, y: Values, place: Values, parameters: int) -> tuple[float, float, Values]:
    """Amplitude, slope and residuals of the best curve with this (centre, log width); x and y have mean 0."""
    bend = special.expit((x - place[0]) * np.exp(-place[1]))
    bend = bend - bend.mean()
    square, along = float(bend @ bend), float(bend @ y)
    # the choices: logistic alone, line alone, both; the last only if the two climb the same way
    choices = [(along / square if square > 0 else 0.0, 0.0)]
    if parameters == 5:
        line, cross, both = float(x @ x), float(bend @ x), float(x @ y)
        choices.append((0.0, both / line))
        determinant = square * line - cross * cross
        if determinant > 1e-12 * square * line:
            a, b = (along * line - both * cross) / determinant, (both * square - along * cross) / determinant
            choices += [(a, b)] if a * b >= 0 else []
    residuals = [a * bend + b * x - y for a, b in choices]
    best = int(np.argmin([float(r @ r) for r in residuals]))
    return *choices[best], residuals[best]
