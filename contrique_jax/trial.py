"""A network and its controls on one data set: the same images, the same splits, and what tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.controls import mean_alone, standardised
from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.feature_cache import Describer, cached_features
from contrique_jax.features import name_broken
from contrique_jax.intervals import Interval, bootstrap_difference, bootstrap_intervals
from contrique_jax.protocol import Chooser, Evaluation, compare_evaluations, evaluate_features
from contrique_jax.splits import Rows, Split, keep_rows
from contrique_jax.studies import CrossResult, LearningCurve, cross_data_set

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
    total: int,
) -> list[Trial]:
    """The protocol for each contender, then for the mean of the scores. `splits`: of the data set's `total` images."""
    images, rows = described[0].images, described[0].rows
    splits = keep_rows(splits, rows, total)
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
        )
        trials.append(Trial(contender.name, one.model_hash, features, evaluation))
    return [*trials, Trial(MEAN, "", None, mean_alone(images.scores, splits, images.subsets, choose))]


def pooled_predictions(evaluation: Evaluation) -> tuple[Rows, Float[np.ndarray, " n"]]:
    """Every image that was tested, in order, and the mean of its predictions over the splits that tested it."""
    rows = np.concatenate([result.split.test for result in evaluation.results])
    values = np.concatenate([result.predictions for result in evaluation.results])
    tested, places = np.unique(rows, return_inverse=True)
    return tested, np.bincount(places, values) / np.bincount(places)


def pooled_interval(trial: Trial, images: ScoredImages) -> Interval:
    """SROCC of the pooled test predictions and its bootstrap interval, whole groups resampled."""
    rows, predictions = pooled_predictions(trial.evaluation)
    if np.ptp(predictions) == 0:
        return Interval(np.nan, np.nan, np.nan, 0.95, "not defined: the predictions are constant")
    groups = [images.groups[i] for i in rows]
    if len(set(groups)) < 3:
        return Interval(np.nan, np.nan, np.nan, 0.95, "not defined: under 3 groups")
    return bootstrap_intervals(predictions, images.scores[rows], groups=groups)["srocc"]


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
    )
    interval = bootstrap_intervals(result.predictions, other.images.scores, groups=other.images.groups)["srocc"]
    return CrossTrial(contender.name, other.images.name, len(other.images), result, interval)
