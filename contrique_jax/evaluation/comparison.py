"""Comparison of a network with its controls and other models: the same images, the same splits, paired statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.evaluation.correlation import Correlations
from contrique_jax.evaluation.intervals import Interval, bootstrap_difference, bootstrap_medians
from contrique_jax.evaluation.learning_curve import LearningCurve
from contrique_jax.evaluation.protocol import (
    Chooser,
    Evaluation,
    SplitResult,
    compare_evaluations,
    evaluate_features,
)
from contrique_jax.evaluation.splits import Split
from contrique_jax.inference.cache import FeatureExtractor, cached_features
from contrique_jax.inference.file_features import name_broken
from contrique_jax.inference.pairs import BesideReference
from contrique_jax.probe.posterior import calibrate, coverage, coverage_of_kinds
from contrique_jax.recipes.recipe import Reference

MEAN = "mean of the scores"
FARTHEST = 5.0  # standard deviations: a flat or synthetic image is further out, and would sway a ridge on 36 numbers


@dataclass(frozen=True)
class Contender:
    """A network or a control: what gives features."""

    name: str
    make: Callable[[int | None], FeatureExtractor]  # for images to be brought to this shorter side
    standardise: bool = False  # its features have units of their own
    gives_scores: bool = False  # it is the meter, and higher is better: no ridge is fitted on it
    takes_reference: Reference = "never"  # of such a meter


@dataclass(frozen=True)
class ExtractedFeatures:
    """Images that could be read, and their features from one contender."""

    images: ScoredImages
    rows: list[int]  # of the whole data set
    model_hash: str
    features: Float[np.ndarray, "n d"]  # before standardising
    sign: int = 0  # of a meter: what its scores were multiplied by, so that higher is better

    @property
    def own(self) -> Float[np.ndarray, " n"]:
        """Of a meter its scores, which rise with the opinions."""
        return (1 if self.images.higher_is_better else -1) * self.features[:, 0].astype(np.float64)


@dataclass(frozen=True)
class ModelResult:
    """One contender after the protocol."""

    name: str
    model_hash: str
    features: Float[np.ndarray, "n d"] | None  # as the ridge sees them; None for the mean, which sees nothing
    evaluation: Evaluation
    curve: LearningCurve | None = None
    gives_scores: bool = False  # no ridge was fitted, and its one feature is its score


@dataclass(frozen=True)
class ModelComparison:
    """SROCC of the first model less that of the second: by the corrected resampled t-test over several splits,
    by bootstrap over one."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float | None  # None: over one split there is none
    wins: int | None
    splits: int
    note: str | None = None


def extract_all(
    contenders: Sequence[Contender], images: ScoredImages, cache: Path | None, field: str = "--scores"
) -> list[ExtractedFeatures]:
    """The features of every contender on the images that can be read, the same rows for all: |reference - image| if
    there are references, but of a meter that takes both what it gives of the pair. Names broken files on stderr. Raises
    UserError if none is left."""
    files = images.paths + (images.references or [])
    wanted = list(zip(images.paths, images.references or images.paths, strict=True))
    found, rows = [], list(range(len(images)))
    broken: dict[str, BrokenImage] = {}
    for contender in contenders:
        extractor = contender.make(images.shorter_side)
        pairs = images.references is not None and contender.takes_reference != "never"
        if pairs:
            assert images.references is not None and isinstance(extractor, BesideReference)
            extractor = extractor.with_references(dict(zip(images.paths, images.references, strict=True)))
        features, unread = cached_features(extractor, images.paths if pairs else files, cache, images.folder)
        broken |= {error.name: error for error in unread}
        rows = [i for i in rows if all(path in features for path in (wanted[i][:1] if pairs else wanted[i]))]
        found.append((extractor.model_hash, features, pairs, getattr(extractor, "sign", 1) * contender.gives_scores))
    name_broken(list(broken.values()), len(set(files)))
    if not rows:
        raise UserError(f"{field}: no image is left that can be read together with its reference.")
    kept = images.subset(rows)
    extracted = []
    for model_hash, features, pairs, sign in found:
        values = np.stack([features[path] for path in kept.paths])
        if kept.references is not None and not pairs:
            values = np.abs(np.stack([features[path] for path in kept.references]) - values)
        extracted.append(ExtractedFeatures(kept, rows, model_hash, values, sign))
    return extracted


def evaluate_all(
    contenders: Sequence[Contender],
    extracted: Sequence[ExtractedFeatures],
    splits: Sequence[Split],
    choose_alpha_by: Chooser,
    logistic_parameters: int = 4,
) -> list[ModelResult]:
    """The protocol for each contender, then for the mean of the scores; `splits` are of the images extracted, and
    `logistic_parameters` is 4 or 5."""
    images = extracted[0].images
    models = []
    for contender, one in zip(contenders, extracted, strict=True):
        features = standardised(one.features) if contender.standardise else one.features
        evaluation = evaluate_features(
            features,
            images.scores,
            splits,
            images.subsets,
            choose_alpha_by=choose_alpha_by,
            groups=images.groups,
            opinion_deviations=images.deviations,
            logistic_parameters=logistic_parameters,
            own_direction=(1 if images.higher_is_better else -1) if contender.gives_scores else 0,
        )
        result = ModelResult(contender.name, one.model_hash, features, evaluation, gives_scores=contender.gives_scores)
        models.append(result)
    return [*models, ModelResult(MEAN, "", None, mean_alone(images.scores, splits, images.subsets, choose_alpha_by))]


def standardised(
    features: Float[np.ndarray, "n d"], like: Float[np.ndarray, "m d"] | None = None
) -> Float[np.ndarray, "n d"]:
    """Every feature with mean 0 and variance 1 over the images of `like` (default: these), whose scores play no part;
    0 if it does not vary, and outliers drawn in to FARTHEST. Statistics have units of their own, and a ridge would see
    only the largest."""
    like = np.asarray(features if like is None else like, np.float64)
    deviation = like.std(axis=0)
    values = (features - like.mean(axis=0)) / np.where(deviation > 1e-9 * np.abs(like).max(axis=0), deviation, np.inf)
    return np.clip(values, -FARTHEST, FARTHEST)


def mean_alone(
    scores: Float[np.ndarray, " n"], splits: Sequence[Split], subsets: Sequence[str] | None, choose_alpha_by: Chooser
) -> Evaluation:
    """The protocol for what looks at no image: the mean score of the images a ridge would be fitted on.

    It has an RMSE and no correlation: its predictions are constant. It is the ridge of infinite alpha.
    """
    kinds = None if subsets is None else np.asarray(subsets, str)
    results, errors = [], []
    for split in splits:
        fitted = split.train if choose_alpha_by == "validation" else np.concatenate([split.train, split.validation])
        mean = scores[fitted].mean()
        left_out = split.validation if choose_alpha_by == "validation" else fitted
        errors.append(scores[left_out] - mean)
        deviations = np.full(len(split.test), np.sqrt(np.mean(errors[-1] ** 2)))
        errors_on_test = scores[split.test] - mean
        parts = {}
        if kinds is not None:
            parts = {str(k): _constant(scores[split.test[kinds[split.test] == k]], mean) for k in np.unique(kinds)}
        results.append(
            SplitResult(
                split=split,
                pooled=_constant(scores[split.test], mean),
                subsets=parts,
                predictions=np.full(len(split.test), mean),
                deviations=deviations,
                coverage=coverage(errors_on_test, deviations),
                subset_coverages=coverage_of_kinds(
                    errors_on_test, deviations, None if kinds is None else kinds[split.test]
                ),
                fitted=len(fitted),
            )
        )
    error = np.concatenate(errors)
    return Evaluation(
        alpha=np.inf,
        validation_srocc=np.nan,
        deviation=float(np.sqrt(np.mean(error**2))),
        calibration=calibrate(error, np.zeros(len(error))),
        chosen_by=choose_alpha_by,
        results=results,
    )


def _constant(scores: Float[np.ndarray, " n"], mean: float) -> Correlations:
    error = float(np.sqrt(np.mean((scores - mean) ** 2))) if len(scores) else np.nan
    return Correlations(np.nan, np.nan, np.nan, error)


def median_intervals(model: ModelResult, images: ScoredImages) -> dict[str, Interval]:
    """The model's medians of SROCC, PLCC and RMSE with their bootstrap intervals, whole groups resampled."""
    results = model.evaluation.results
    tests, predictions = [result.split.test for result in results], [result.predictions for result in results]
    logistic = model.evaluation.logistic
    return bootstrap_medians(predictions, tests, images.scores, groups=images.groups, logistic_parameters=logistic)


def typical_split(model: ModelResult) -> SplitResult:
    """The split whose SROCC is nearest the median: what a picture of one split should show."""
    sroccs = model.evaluation.values("srocc")
    if np.isnan(sroccs).all():
        return model.evaluation.results[0]
    return model.evaluation.results[int(np.nanargmin(np.abs(sroccs - np.nanmedian(sroccs))))]


def compare_models(first: ModelResult, second: ModelResult, images: ScoredImages) -> ModelComparison:
    """Whether the SROCC of two models over the same splits differs."""
    if len(first.evaluation.results) > 1:
        found = compare_evaluations(first.evaluation, second.evaluation)
        return ModelComparison(
            first.name, second.name, found.mean, found.low, found.high, found.p, found.wins, found.splits, found.note
        )
    one, other = first.evaluation.results[0], second.evaluation.results[0]
    rows = one.split.test
    groups = [images.groups[i] for i in rows]
    interval = bootstrap_difference(one.predictions, other.predictions, images.scores[rows], groups=groups)
    return ModelComparison(
        first.name, second.name, interval.value, interval.low, interval.high, None, None, 1, interval.note
    )
