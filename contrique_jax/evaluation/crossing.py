"""Models fitted on one data set and tested on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError
from contrique_jax.evaluation.comparison import Contender, ExtractedFeatures, ModelResult, standardised
from contrique_jax.evaluation.correlation import Correlations, correlate
from contrique_jax.evaluation.intervals import Interval, bootstrap_intervals
from contrique_jax.evaluation.protocol import ALPHAS, best_alpha, check_scores, own_line
from contrique_jax.probe.ridge import fit_ridge, held_out_paths


@dataclass(frozen=True)
class CrossResult:
    """A ridge fitted on all of one data set, tested on all of another."""

    alpha: float
    correlations: Correlations
    predictions: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class CrossModelResult:
    """One contender fitted on all of the data set and tested on another."""

    name: str
    data_set: str
    images: int
    result: CrossResult
    subsets: dict[str, Correlations]  # of the other data set
    interval: Interval  # of SROCC


def cross(
    contender: Contender, model: ModelResult, own: ExtractedFeatures, other: ExtractedFeatures
) -> CrossModelResult:
    """The contender fitted on all of `own`, with the alpha chosen there, tested on all of `other`."""
    opposite, logistic = own.images.higher_is_better != other.images.higher_is_better, model.evaluation.logistic
    if contender.gives_scores:
        slope, zero = own_line(own.own, own.images.scores)
        predictions = slope * (-1 if opposite else 1) * other.own + zero  # in the units and direction of `own`
        predictions = -predictions if opposite else predictions
        judged = correlate(predictions, other.images.scores, logistic_parameters=logistic)
        result = CrossResult(model.evaluation.alpha, judged, predictions)
    else:
        features = standardised(other.features, own.features) if contender.standardise else other.features
        result = cross_data_set(
            standardised(own.features) if contender.standardise else own.features,
            own.images.scores,
            features,
            other.images.scores,
            alpha=model.evaluation.alpha,
            opposite=opposite,
            logistic_parameters=logistic,
        )
    kinds = None if other.images.subsets is None else np.asarray(other.images.subsets, str)
    subsets = {}
    for kind in [] if kinds is None else np.unique(kinds):
        rows = kinds == kind
        subsets[str(kind)] = correlate(
            result.predictions[rows], other.images.scores[rows], logistic_parameters=model.evaluation.logistic
        )
    interval = bootstrap_intervals(result.predictions, other.images.scores, groups=other.images.groups)["srocc"]
    return CrossModelResult(contender.name, other.images.name, len(other.images), result, subsets, interval)


def cross_data_set(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    other_features: Float[np.ndarray, "m d"],
    other_scores: Float[np.ndarray, " m"],
    *,
    groups: Sequence[str] | None = None,
    alpha: float | None = None,
    alphas: Float[np.ndarray, " a"] = ALPHAS,
    opposite: bool = False,
    logistic_parameters: int = 4,
) -> CrossResult:
    """Fitted on all of the first data set, tested on all of the other.

    `alpha`: one chosen before on the first (its `Evaluation.alpha`); default: by leave-one-out on it, whole `groups`
    left out. `opposite`: higher is better in one and worse in the other, so predictions are negated. Raises UserError
    for features of different widths and as `evaluate_features` does.
    """
    check_scores(features, scores, groups)
    check_scores(other_features, other_scores)
    if np.shape(features)[1] != np.shape(other_features)[1]:
        raise UserError(
            f"cross-data-set: features of {np.shape(features)[1]} and {np.shape(other_features)[1]} numbers; "
            "use one model for both data sets."
        )
    if alpha is None:
        everything = [np.arange(len(scores))]
        by_alpha, _ = held_out_paths(features, scores, everything, alphas, groups)
        alpha = float(alphas[best_alpha(by_alpha, scores, everything)])
    coefficients, intercepts = fit_ridge(features, scores, np.array([alpha]))
    predictions = np.asarray(other_features, np.float64) @ coefficients[0] + intercepts[0]
    if not np.isfinite(predictions).all():
        raise UserError("cross-data-set: a feature of the other data set is NaN or infinite; leave such images out.")
    predictions = -predictions if opposite else predictions
    return CrossResult(
        alpha, correlate(predictions, other_scores, logistic_parameters=logistic_parameters), predictions
    )
