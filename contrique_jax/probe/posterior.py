"""How far a score may be from its prediction: the Bayesian reading of ridge, calibrated on held-out images.

The variance of a score about its prediction is noise + scale * leverage (see `ridge`). The plain Bayesian reading has
scale = noise; here both are fitted to held-out residuals, so that a wrong penalty does not become a wrong deviation,
with that reading as the prior, so that images far from all the held-out ones get what it says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float
from scipy import special

from contrique_jax.errors import UserError
from contrique_jax.probe.problem import checked_problem

# Directions kept in a probe's file, 4 bytes a feature each: 1 MiB for 4,096 features.
RANK = 64
LEVEL = 0.9

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Calibration:
    """Variance of a score about its prediction: noise + scale * leverage, in squared units of the scores."""

    noise: float
    scale: float

    def deviations(self, leverages: Values) -> Values:
        """Standard deviation of each image's score about its prediction."""
        return np.sqrt(self.noise + self.scale * leverages)


def calibrate(residuals: Values, leverages: Values) -> Calibration:
    """The most probable noise and scale for Gaussian residuals of images that were not fitted, given their leverages.

    The prior of scale / noise is log-normal about 1, one decade its standard deviation.
    """
    residuals, leverages = np.asarray(residuals, np.float64), np.asarray(leverages, np.float64)
    if not len(residuals) or residuals.shape != leverages.shape:
        raise UserError("calibration: it needs a residual and a leverage of at least one held-out image.")
    decades = np.linspace(-4, 4, 321)
    ratios = 10**decades
    inflated = 1 + ratios[:, None] * leverages
    noise = np.mean(residuals**2 / inflated, axis=1)  # the most likely one for each ratio of scale to noise
    if not noise[0] > 0:
        return Calibration(0.0, 0.0)
    best = int(np.argmin(len(residuals) * (np.log(noise) + np.mean(np.log(inflated), axis=1)) + decades**2))
    return Calibration(float(noise[best]), float(noise[best] * ratios[best]))


def coverage(residuals: Values, deviations: Values, level: float = LEVEL) -> float:
    """Share of images whose score is inside the Gaussian interval of that level; right is `level`."""
    return float(np.mean(np.abs(residuals) <= special.ndtri((1 + level) / 2) * deviations))


def coverage_of_kinds(residuals: Values, deviations: Values, kinds: Sequence[str] | None) -> dict[str, float]:
    """`coverage` of the images of each kind, in the order of their names; empty without kinds."""
    names = np.asarray([] if kinds is None else kinds, str)
    return {str(kind): coverage(residuals[names == kind], deviations[names == kind]) for kind in np.unique(names)}


@dataclass(frozen=True)
class Posterior:
    """What a deviation for each image needs, small enough for the probe's file.

    Kept exactly: the RANK directions of most variance. All others share one variance, chosen such that the mean leverage
    of images that were held out is right. Images unlike the fitted ones stand out as they do with all
    directions; the order of images like them is less exact.
    """

    mean: Float[np.ndarray, " d"]  # of the fitted features
    directions: Float[np.ndarray, "k d"]  # float32, orthonormal
    variances: Float[np.ndarray, " k"]  # 1 / (sum of squares along it + alpha)
    rest: float  # the same for all other directions
    base: float  # 1 / images, of the intercept
    noise: float  # see Calibration
    scale: float

    def leverages(self, features: Float[np.ndarray, "n d"]) -> Values:
        """How far each image lies from the fitted ones."""
        inside, outside = self._parts(features)
        return inside + self.rest * outside

    def deviations(self, features: Float[np.ndarray, "n d"]) -> Values:
        """Standard deviation of each image's score about its prediction, in units of the scores."""
        return Calibration(self.noise, self.scale).deviations(self.leverages(features))

    def _parts(self, features: Float[np.ndarray, "n d"]) -> tuple[Values, Values]:
        """The leverage inside the kept directions, and the squared distance from their space."""
        centred = np.asarray(features, np.float64) - self.mean
        along = (centred @ self.directions.T) ** 2
        outside = np.maximum(np.sum(centred**2, axis=1) - along.sum(axis=1), 0)
        return self.base + along @ self.variances, outside

    @classmethod
    def checked(cls, width: int, **fields: np.ndarray) -> Self:
        """From stored arrays. Raises ValueError where shapes do not fit `width` features or a number is none."""
        made = cls(
            mean=fields["mean"].astype(np.float64),
            directions=fields["directions"].astype(np.float32),
            variances=fields["variances"].astype(np.float64),
            **{name: float(fields[name].item()) for name in ("rest", "base", "noise", "scale")},
        )
        if made.mean.shape != (width,) or made.directions.shape != (made.variances.size, width):
            raise ValueError("another width")
        numbers = np.array([*made.variances, made.rest, made.base, made.noise, made.scale])
        if not (np.isfinite(made.mean).all() and np.isfinite(made.directions).all() and np.isfinite(numbers).all()):
            raise ValueError("NaN or infinity")
        if (numbers < 0).any():
            raise ValueError("a variance below 0")
        return made


def fit_posterior(
    features: Float[np.ndarray, "n d"],
    alpha: float,
    calibration: Calibration,
    groups: Sequence[str] | None = None,
    rank: int = RANK,
) -> Posterior:
    """The posterior of a ridge on all `features` with penalty `alpha`. Raises UserError for NaN and under 2 groups.

    The directions beyond `rank` share what the images, each left out with its group (default: alone), have of leverage
    beyond those inside; how far new images are from their space is measured on a fifth of the groups.
    """
    from contrique_jax.probe.ridge import held_out_paths  # jax takes a second to import, and scoring does without

    x, _, alphas = checked_problem(features, np.zeros(len(features)), np.array([alpha]))
    exact = held_out_paths(x, np.zeros(len(x)), [np.arange(len(x))], alphas, groups)[1][0, 0]
    posterior = _largest(x, alpha, calibration, rank)
    inside, outside = posterior._parts(x)
    if outside.sum() < 1e-6 * np.sum((x - posterior.mean) ** 2):  # every direction that was seen is kept
        return posterior
    names = np.arange(len(x)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    order = np.random.default_rng(0).permutation(len(np.unique(names)))
    held = order[names] < max(len(order) // 5, 1)
    _, outside = _largest(x[~held], alpha, calibration, rank)._parts(x[held])
    rest = float(np.mean(exact - inside / (1 - inside)) / np.mean(outside))
    return dataclasses.replace(posterior, rest=min(max(rest, 0.0), posterior.rest))


def _largest(x: Float[np.ndarray, "n d"], alpha: float, calibration: Calibration, rank: int) -> Posterior:
    """With the directions of most variance; all others keep their prior variance."""
    import scipy.linalg  # fitting needs it, scoring need not wait for it

    mean = x.mean(axis=0)
    x = x - mean
    dual = len(x) <= x.shape[1]
    gram = x @ x.T if dual else x.T @ x
    kept = max(min(rank, len(x) - 1, x.shape[1]), 1)
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[len(gram) - kept, len(gram) - 1])
    seen = values > 1e-12 * max(values[-1], 1e-300)
    values, vectors = values[seen], vectors[:, seen]
    directions = (x.T @ vectors / np.sqrt(values) if dual else vectors).T.astype(np.float32)
    return Posterior(
        mean=mean,
        directions=directions,
        variances=1 / (values + alpha),
        rest=1 / alpha,
        base=1 / len(x),
        noise=calibration.noise,
        scale=calibration.scale,
    )
