"""A network and its controls on one data set: the same images, the same splits, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.evaluation.controls import mean_alone, standardised
from contrique_jax.evaluation.correlation import Correlations, correlate
from contrique_jax.evaluation.intervals import Interval, bootstrap_difference, bootstrap_intervals, bootstrap_medians
from contrique_jax.evaluation.protocol import Chooser, Evaluation, SplitResult, compare_evaluations, evaluate_features
from contrique_jax.evaluation.splits import Split
from contrique_jax.evaluation.studies import CrossResult, LearningCurve, cross_data_set
from contrique_jax.inference.cache import Describer, cached_features
from contrique_jax.inference.extractor import name_broken

MEAN = "mean of the scores"


@dataclass(frozen=True)
class Contender:
    """What gives features: the network, or a control."""

    name: str
    make: Callable[[int | None], Describer]  # for images to be brought to this shorter side
    standardise: bool = False  # its features have units of their own


@dataclass(frozen=True)
class Described:
    """Images that could be read, and their features from one contender."""

    images: ScoredImages
    rows: list[int]  # of the whole data set
    model_hash: str
    features: Float[np.ndarray, "n d"]  # before standardising


@dataclass(frozen=True)
class Trial:
    """One contender after the protocol."""

    name: str
    model_hash: str
    features: Float[np.ndarray, "n d"] | None  # as the ridge sees them; None for the mean, which sees nothing
    evaluation: Evaluation
    curve: LearningCurve | None = None


@dataclass(frozen=True)
class Versus:
    """First less second: over several splits by the corrected resampled t-test, over one by bootstrap."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float | None  # None: over one split there is none
    wins: int | None
    splits: int
    note: str | None = None


@dataclass(frozen=True)
class CrossTrial:
    """One contender fitted on all of the data set and tested on another."""

    name: str
    data_set: str
    images: int
    result: CrossResult
    subsets: dict[str, Correlations]  # of the other data set
    interval: Interval  # of SROCC


def describe(
    contenders: Sequence[Contender], images: ScoredImages, cache: Path | None, field: str = "--scores"
) -> list[Described]:
    """The features of every contender on the images that can be read, the same rows for all: |reference - image| where
    there are references. Names broken files on stderr. Raises UserError where none is left."""
    files = images.paths + (images.references or [])
    wanted = list(zip(images.paths, images.references or images.paths, strict=True))
    found, rows = [], list(range(len(images)))
    broken: dict[str, BrokenImage] = {}
    for contender in contenders:
        describer = contender.make(images.shorter_side)
        features, unread = cached_features(describer, files, cache, images.folder)
        broken |= {error.name: error for error in unread}
        rows = [i for i in rows if all(path in features for path in wanted[i])]
        found.append((describer.model_hash, features))
    name_broken(list(broken.values()), len(set(files)))
    if not rows:
        raise UserError(f"{field}: no image is left that can be read together with its reference.")
    kept = images.subset(rows)
    described = []
    for model_hash, features in found:
        values = np.stack([features[path] for path in kept.paths])
        if kept.references is not None:
            values = np.abs(np.stack([features[path] for path in kept.references]) - values)
        described.append(Described(kept, rows, model_hash, values))
    return described


def try_all(
    contenders: Sequence[Contender],
    described: Sequence[Described],
    splits: Sequence[Split],
    choose: Chooser,
    parameters: int = 4,
) -> list[Trial]:
    """The protocol for each contender, then for the mean of the scores; `splits` of the images described, `parameters` of
    the logistic."""
    images = described[0].images
    trials = []
    for contender, one in zip(contenders, described, strict=True):
        features = standardised(one.features) if contender.standardise else one.features
        evaluation = evaluate_features(
            features,
            images.scores,
            splits,
            images.subsets,
            choose=choose,
            groups=images.groups,
            opinion_deviations=images.deviations,
            parameters=parameters,
        )
        trials.append(Trial(contender.name, one.model_hash, features, evaluation))
    return [*trials, Trial(MEAN, "", None, mean_alone(images.scores, splits, images.subsets, choose))]


def median_intervals(trial: Trial, images: ScoredImages) -> dict[str, Interval]:
    """The trial's medians of SROCC, PLCC and RMSE with their bootstrap intervals, whole groups resampled."""
    results = trial.evaluation.results
    tests, predictions = [result.split.test for result in results], [result.predictions for result in results]
    logistic = trial.evaluation.logistic
    return bootstrap_medians(predictions, tests, images.scores, groups=images.groups, parameters=logistic)


def typical_split(trial: Trial) -> SplitResult:
    """The split whose SROCC is nearest the median: what a picture of one split should show."""
    sroccs = trial.evaluation.values("srocc")
    if np.isnan(sroccs).all():
        return trial.evaluation.results[0]
    return trial.evaluation.results[int(np.nanargmin(np.abs(sroccs - np.nanmedian(sroccs))))]


def versus(first: Trial, second: Trial, images: ScoredImages) -> Versus:
    """Whether the SROCC of two trials over the same splits differs."""
    if len(first.evaluation.results) > 1:
        found = compare_evaluations(first.evaluation, second.evaluation)
        return Versus(
            first.name, second.name, found.mean, found.low, found.high, found.p, found.wins, found.splits, found.note
        )
    one, other = first.evaluation.results[0], second.evaluation.results[0]
    rows = one.split.test
    groups = [images.groups[i] for i in rows]
    interval = bootstrap_difference(one.predictions, other.predictions, images.scores[rows], groups=groups)
    return Versus(first.name, second.name, interval.value, interval.low, interval.high, None, None, 1, interval.note)


def cross(contender: Contender, trial: Trial, own: Described, other: Described) -> CrossTrial:
    """The contender fitted on all of `own`, with the alpha of its trial, tested on all of `other`."""
    features = standardised(other.features, own.features) if contender.standardise else other.features
    result = cross_data_set(
        standardised(own.features) if contender.standardise else own.features,
        own.images.scores,
        features,
        other.images.scores,
        alpha=trial.evaluation.alpha,
        opposite=own.images.higher_is_better != other.images.higher_is_better,
        parameters=trial.evaluation.logistic,
    )
    kinds = None if other.images.subsets is None else np.asarray(other.images.subsets, str)
    subsets = {}
    for kind in [] if kinds is None else np.unique(kinds):
        rows = kinds == kind
        subsets[str(kind)] = correlate(
            result.predictions[rows], other.images.scores[rows], parameters=trial.evaluation.logistic
        )
    interval = bootstrap_intervals(result.predictions, other.images.scores, groups=other.images.groups)["srocc"]
    return CrossTrial(contender.name, other.images.name, len(other.images), result, subsets, interval)
