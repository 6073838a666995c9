"""One evaluation, from its flags to its findings, which are printed as they come."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax import __version__
from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import UserError, printable
from contrique_jax.evaluation.comparison import (
    Contender,
    ExtractedFeatures,
    ModelResult,
    compare_models,
    evaluate_all,
    extract_all,
    median_intervals,
)
from contrique_jax.evaluation.contenders import check_references, contenders_of
from contrique_jax.evaluation.crossing import CrossModelResult, cross
from contrique_jax.evaluation.flags import read_images, read_others
from contrique_jax.evaluation.intervals import Interval
from contrique_jax.evaluation.learning_curve import learning_curve
from contrique_jax.evaluation.protocol import ALPHAS, Chooser, Evaluation, own_line
from contrique_jax.evaluation.report import Findings
from contrique_jax.evaluation.splits import (
    Split,
    choose_splits,
    images_hash,
    keep_rows,
    short_hash,
    splits_hash,
    write_new,
)
from contrique_jax.evaluation.tables import (
    as_json,
    comparison_json,
    comparison_line,
    cross_json,
    cross_table,
    curve_line,
    interval_text,
    notes,
    subset_coverages,
    table,
)
from contrique_jax.io.outputs import atomic_write, user_cache
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe
from contrique_jax.probe.posterior import fit_posterior
from contrique_jax.probe.ridge import fit_ridge, held_out_paths
from contrique_jax.probe.standing import Standing

# A learning curve refits at every size: this many fits each (splits, or draws of one), every so manyth alpha.
CURVE_FITS, CURVE_ALPHAS = 5, 4


@dataclass(frozen=True)
class Outcome:
    """The findings, and the features of the evaluated network that its probe is fitted on."""

    findings: Findings
    own: ExtractedFeatures

    def probe(self) -> Probe:
        return fit_probe(self.own, self.findings.models[0].evaluation)


def evaluate(flags: argparse.Namespace, with_curves: bool) -> Outcome:
    """Evaluates --model, those of --against and the controls, and prints tables and sentences.

    Raises UserError for whatever the flags name that cannot be had, before the networks run if it can be known.
    """
    images = read_images(flags)
    others = read_others(flags, images)
    chosen = choose_splits(images, flags)  # too few groups: said before the network runs
    has_validation = all(len(split.validation) for split in chosen.splits)
    choose_by: Chooser = flags.choose or ("validation" if has_validation else "leave-one-out")
    cache = _cache_folder(flags.features_cache)
    contenders = contenders_of(flags)
    check_references(contenders, images.references is not None)
    extracted = extract_all(contenders, images, cache, "--images" if flags.images else "--scores")
    kept, splits = extracted[0].images, keep_rows(chosen.splits, extracted[0].rows, len(images))
    models = evaluate_all(contenders, extracted, splits, choose_by, flags.logistic)
    write_new(chosen, images, flags.seed)

    direction = "higher is better" if images.higher_is_better else "lower is better"
    mode = "no-reference" if images.references is None else "full-reference"
    described = (
        f"{images.name}: {_counted(kept)}, {len(set(kept.groups))} groups, {chosen.source}, {mode}, "
        f"{_fitted(models, choose_by)}{images.score_column} {images.scores.min():g}..{images.scores.max():g} ({direction})"
    )
    print(printable(described) + "\n")
    print(table(models) + "\n")
    intervals = {model.name: median_intervals(model, kept) for model in models if model.features is not None}
    judged = [_judgement(model, intervals[model.name]) for model in models[: len(contenders)]]
    print("".join(f"{line}\n" for line in dict.fromkeys(itertools.chain(*judged))), end="")  # a note of several, once
    compared = [compare_models(models[0], model, kept) for model in models[1 : len(contenders)]]
    print("".join(f"{comparison_line(found)}\n" for found in compared), end="")
    crossed = _cross_all(others, contenders, models, extracted, cache)
    if crossed:
        print(f"\nfitted on all of {printable(images.name)}\n" + cross_table(crossed))
    if with_curves:
        models = [_with_curve(model, splits[:CURVE_FITS], kept) for model in models]
        print("".join(f"{curve_line(model)}\n" for model in models if model.curve), end="")
    about = _about(images, kept) | {
        "mode": mode, "split_source": chosen.source, "splits_hash": splits_hash(splits, kept)
    }  # fmt: skip
    about["config_hash"] = _config_hash(flags, choose_by, kept, models, about)
    return Outcome(Findings(kept, models, intervals, compared, crossed, about, vars(flags)), extracted[0])


def save_json(path: Path, found: Findings) -> None:
    """Every number of the findings, whole or not at all."""
    trained, *controls = found.models
    result = {
        **as_json(trained, found.intervals[trained.name]),
        "controls": {model.name: as_json(model, found.intervals.get(model.name)) for model in controls},
        "differences": [comparison_json(one) for one in found.compared],
        "cross": [cross_json(one) for one in found.crossed],
        **found.about,
        "config": found.config,
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def fit_probe(own: ExtractedFeatures, evaluation: Evaluation) -> Probe:
    """The probe fitted on all images with the alpha that the protocol chose; its deviations are calibrated on the images
    that this was chosen by. Of a meter the line from its scores to these opinions."""
    images = own.images
    low, high = images.score_range or (float(images.scores.min()), float(images.scores.max()))
    common: dict[str, Any] = {
        "alpha": evaluation.alpha,
        "feature_name": NO_REFERENCE if images.references is None else FULL_REFERENCE,
        "model_hash": own.model_hash,
        "data_set": images.name,
        "score_low": float(low),
        "score_high": float(high),
        "higher_is_better": images.higher_is_better,
        "deviation": evaluation.deviation,
        "shorter_side": images.shorter_side,
    }
    if own.sign:
        slope, zero = own_line(own.own, images.scores)
        turned = slope * own.sign * (1 if images.higher_is_better else -1)  # `score` sees the scores as they are
        return Probe(np.array([turned]), zero, standing=Standing.of(slope * own.own + zero), **common)
    features, alphas = own.features, np.array([evaluation.alpha])
    coefficients, intercepts = fit_ridge(features, images.scores, alphas)
    left_out, _ = held_out_paths(features, images.scores, [np.arange(len(features))], alphas, images.groups)
    return Probe(
        coefficients[0],
        float(intercepts[0]),
        posterior=fit_posterior(features, evaluation.alpha, evaluation.calibration, images.groups),
        standing=Standing.of(left_out[0, 0]),
        **common,
    )


def _cross_all(
    others: Sequence[ScoredImages],
    contenders: Sequence[Contender],
    models: Sequence[ModelResult],
    extracted: Sequence[ExtractedFeatures],
    cache: Path | None,
) -> list[CrossModelResult]:
    """Every contender fitted on all of the data set, on each of the others."""
    crossed = []
    for other in others:
        theirs = extract_all(contenders, other, cache, "--cross")
        pairs = zip(contenders, models, extracted, theirs, strict=False)  # the last model is the mean's
        crossed += [cross(contender, model, mine, their) for contender, model, mine, their in pairs]
    return crossed


def _config_hash(
    flags: argparse.Namespace,
    choose_by: Chooser,
    kept: ScoredImages,
    models: Sequence[ModelResult],
    about: Mapping[str, Any],
) -> str:
    """Names all that decides the numbers."""
    decides = {
        "version": __version__, "images": images_hash(kept), "models": [model.model_hash for model in models],
        "choose": choose_by,
        "logistic": flags.logistic, "max_megapixels": flags.max_megapixels,
        **{name: about[name] for name in ("mode", "splits_hash", "alphas")},
    }  # fmt: skip
    return short_hash(decides)


def _fitted(models: Sequence[ModelResult], choose_by: Chooser) -> str:
    """How a ridge's alpha was chosen, if one was fitted."""
    ridges = any(model.features is not None and not model.gives_scores for model in models)
    return f"alpha by {choose_by}, " if ridges else ""


def _counted(images: ScoredImages) -> str:
    """How many images, and of how many if the folder holds a part of the data set."""
    whole = images.full_size
    return f"{len(images)} of {whole:,} images" if whole and len(images) < whole else f"{len(images)} images"


def _judgement(model: ModelResult, intervals: Mapping[str, Interval]) -> list[str]:
    """What the table has no room for, a line and one for each note."""
    found = model.evaluation
    medians = ", ".join(f"{name.upper()} {interval_text(interval)}" for name, interval in intervals.items())
    chosen_on = "validation" if found.chosen_by == "validation" else "leave-one-out"
    how = f"alpha {found.alpha:.4g}, {chosen_on} SROCC {found.validation_srocc:.4f}"
    line = (
        f"{model.name}: {medians} (95 % bootstrap); {'its own scores, no ridge' if model.gives_scores else how}; "
        f"90 % intervals hold {100 * np.median(found.coverages):.1f} % of test scores"
    )
    parts = ", ".join(f"{printable(name)} {100 * share:.1f} %" for name, share in subset_coverages(found).items())
    return [line + (f" ({parts})" if parts else ""), *notes(found)]


def _with_curve(model: ModelResult, splits: Sequence[Split], images: ScoredImages) -> ModelResult:
    """The model with its learning curve over `splits`, drawn several times if they are few; the mean has none, nor has what
    learns nothing of these opinions."""
    if model.features is None or model.gives_scores:
        return model
    repeats, alphas = -(-CURVE_FITS // len(splits)), ALPHAS[::CURVE_ALPHAS]
    curve = learning_curve(model.features, images.scores, splits, images.groups, repeats=repeats, alphas=alphas)
    return replace(model, curve=curve)


def _about(images: ScoredImages, kept: ScoredImages) -> dict[str, Any]:
    """What was evaluated, so that others can compare."""
    return {
        "images": len(kept),
        "full_size": images.full_size,
        "images_left_out": len(images) - len(kept),
        "groups": len(set(kept.groups)),
        "data_set": images.name,
        "score_column": images.score_column,
        "score_range": [float(images.scores.min()), float(images.scores.max())],
        "higher_is_better": images.higher_is_better,
        "alphas": [float(ALPHAS[0]), float(ALPHAS[-1]), len(ALPHAS)],
    }


def _cache_folder(named: str | None) -> Path | None:
    if named is None:
        return user_cache("features")
    folder = Path(named).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--features-cache: {folder} cannot be made ({error.strerror}); name another.") from error
    return folder
