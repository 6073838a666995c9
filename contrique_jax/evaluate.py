"""How well a ridge on the features predicts opinion scores, beside controls that it has to beat."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax import __version__
from contrique_jax.config import ModelConfig
from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import UserError, run_verb
from contrique_jax.evaluation.chosen_splits import choose_splits, images_hash, short_hash, splits_hash, write_new
from contrique_jax.evaluation.comparison import Contender, Trial, cross, describe, median_intervals, try_all, versus
from contrique_jax.evaluation.controls import NaturalStatistics
from contrique_jax.evaluation.flags import parse_flags, read_images, read_others
from contrique_jax.evaluation.intervals import Interval
from contrique_jax.evaluation.protocol import ALPHAS, Chooser, Evaluation
from contrique_jax.evaluation.report import Findings, write_report
from contrique_jax.evaluation.splits import Split, keep_rows
from contrique_jax.evaluation.studies import learning_curve
from contrique_jax.evaluation.tables import (
    as_json,
    cross_json,
    cross_table,
    curve_line,
    interval_text,
    notes,
    subset_coverages,
    table,
    versus_json,
    versus_line,
)
from contrique_jax.inference.extractor import Extractor
from contrique_jax.io.devices import use_compilation_cache
from contrique_jax.io.outputs import output_path, user_cache, whole_file
from contrique_jax.networks.encoder import Variables
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe, fit_ridge
from contrique_jax.probe.posterior import fit_posterior
from contrique_jax.training.load import load_network, random_weights

RANDOM, STATISTICS = "random weights", "hand-made statistics"
# A learning curve refits at every size: this many fits each (splits, or draws of one), every so manyth alpha.
CURVE_FITS, CURVE_ALPHAS = 5, 4


def fit_probe(
    model_hash: str, images: ScoredImages, features: Float[np.ndarray, "n d"], evaluation: Evaluation
) -> Probe:
    """The probe fitted on all images with the alpha that the protocol chose; its deviations are calibrated on the images
    that this was chosen by."""
    coefficients, intercepts = fit_ridge(features, images.scores, np.array([evaluation.alpha]))
    low, high = images.score_range or (float(images.scores.min()), float(images.scores.max()))
    return Probe(
        coefficients=coefficients[0],
        intercept=float(intercepts[0]),
        alpha=evaluation.alpha,
        feature_name=NO_REFERENCE if images.references is None else FULL_REFERENCE,
        model_hash=model_hash,
        data_set=images.name,
        score_low=float(low),
        score_high=float(high),
        higher_is_better=images.higher_is_better,
        deviation=evaluation.deviation,
        posterior=fit_posterior(features, evaluation.alpha, evaluation.calibration, images.groups),
        shorter_side=images.shorter_side,
    )


def contenders_of(flags: argparse.Namespace) -> list[Contender]:
    """The network that --model names, those of --against, and the controls. Raises UserError where one is no network."""
    limit = flags.max_megapixels

    def network(name: str, model: ModelConfig, weights: Variables) -> Contender:
        return Contender(name, lambda side: Extractor(model, weights, max_megapixels=limit, shorter_side=side))

    networks = {name: load_network(name) for name in (flags.model, *flags.against)}
    found = [network(name, *loaded) for name, loaded in networks.items()]
    if not flags.no_control:
        model, _ = networks[flags.model]
        if not flags.model.startswith("random:"):
            found.append(network(RANDOM, model, random_weights(model)))
        made = Contender(
            STATISTICS, lambda side: NaturalStatistics(max_megapixels=limit, shorter_side=side), standardise=True
        )
        found.append(made)
    return found


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax evaluate`."""
    flags = parse_flags(argv)
    out = output_path("--out", flags.out, (".json",)) if flags.out else None
    probe_path = output_path("--probe", flags.probe, (".npz",)) if flags.probe else None
    page = output_path("--report", flags.report, (".html",)) if flags.report else None
    images = read_images(flags)
    full_reference = images.references is not None
    others = read_others(flags, images)
    chosen = choose_splits(images, flags)  # too few groups: said before the network runs
    splits = chosen.splits
    choose: Chooser = flags.choose or (
        "validation" if all(len(split.validation) for split in splits) else "leave-one-out"
    )
    cache = _cache_folder(flags.features_cache)
    use_compilation_cache()
    contenders = contenders_of(flags)
    described = describe(contenders, images, cache, "--images" if flags.images else "--scores")
    own = described[0]
    kept, splits = own.images, keep_rows(splits, own.rows, len(images))
    trials = try_all(contenders, described, splits, choose, flags.logistic)
    trained = trials[0]
    write_new(chosen, images, flags.seed)
    direction = "higher is better" if images.higher_is_better else "lower is better"
    mode = "full-reference" if full_reference else "no-reference"
    print(
        f"{images.name}: {_counted(kept)}, {len(set(kept.groups))} groups, {chosen.source}, {mode}, alpha by {choose}, "
        f"{images.score_column} {images.scores.min():g}..{images.scores.max():g} ({direction})\n"
    )
    print(table(trials) + "\n")
    intervals = {trial.name: median_intervals(trial, kept) for trial in trials if trial.features is not None}
    print("".join(_judgement(trial, intervals[trial.name]) for trial in trials[: len(contenders)]), end="")
    compared = [versus(trained, trial, kept) for trial in trials[1 : len(contenders)]]
    print("".join(f"{versus_line(found)}\n" for found in compared), end="")
    crossed = []
    for other in others:
        theirs = describe(contenders, other, cache, "--cross")
        pairs = zip(contenders, trials, described, theirs, strict=False)
        crossed += [cross(contender, trial, mine, their) for contender, trial, mine, their in pairs]
    if crossed:
        print(f"\nfitted on all of {images.name}\n" + cross_table(crossed))
    if page or flags.learning_curve:
        trials = [_with_curve(trial, splits[:CURVE_FITS], kept) for trial in trials]
        print("".join(f"{curve_line(trial)}\n" for trial in trials if trial.curve), end="")
    if probe_path:
        fit_probe(own.model_hash, kept, own.features, trained.evaluation).save(probe_path)
        print(f"{probe_path}: probe fitted on all {len(kept)} images, deviation {trained.evaluation.deviation:.4g}")
    config = vars(flags)
    about = _about(images, kept) | {
        "mode": mode,
        "split_source": chosen.source,
        "splits_hash": splits_hash(splits, kept),
    }
    decides = {
        "version": __version__, "images": images_hash(kept), "models": [trial.model_hash for trial in trials], "choose": choose,
        "logistic": flags.logistic, "max_megapixels": flags.max_megapixels,
        **{name: about[name] for name in ("mode", "splits_hash", "alphas")},
    }  # fmt: skip
    about["config_hash"] = short_hash(decides)
    if out:
        result = {
            **as_json(trials[0], intervals[trained.name]),
            "controls": {trial.name: as_json(trial, intervals.get(trial.name)) for trial in trials[1:]},
            "differences": [versus_json(found) for found in compared],
            "cross": [cross_json(found) for found in crossed],
            **about,
            "config": config,
        }
        with whole_file(out) as beside:
            beside.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"{out}: written")
    if page:
        write_report(page, Findings(kept, trials, intervals, compared, crossed, about, config))
        print(f"{page}: written")


def _counted(images: ScoredImages) -> str:
    """How many images, and of how many where the folder holds a part of the data set."""
    whole = images.full_size
    return f"{len(images)} of {whole:,} images" if whole and len(images) < whole else f"{len(images)} images"


def _judgement(trial: Trial, intervals: Mapping[str, Interval]) -> str:
    """What the table has no room for, a line and one for each note."""
    found = trial.evaluation
    medians = ", ".join(f"{name.upper()} {interval_text(interval)}" for name, interval in intervals.items())
    line = (
        f"{trial.name}: {medians} (95 % bootstrap); alpha {found.alpha:.4g}, held-out SROCC {found.validation_srocc:.4f}; "
        f"90 % intervals hold {100 * np.median(found.coverages):.1f} % of test scores"
    )
    parts = ", ".join(f"{name} {100 * share:.1f} %" for name, share in subset_coverages(found).items())
    return "".join(f"{each}\n" for each in [line + (f" ({parts})" if parts else ""), *notes(found)])


def _with_curve(trial: Trial, splits: Sequence[Split], images: ScoredImages) -> Trial:
    """The trial with its learning curve over `splits`, drawn several times where they are few; the mean has none."""
    if trial.features is None:
        return trial
    repeats, alphas = -(-CURVE_FITS // len(splits)), ALPHAS[::CURVE_ALPHAS]
    curve = learning_curve(trial.features, images.scores, splits, images.groups, repeats=repeats, alphas=alphas)
    return replace(trial, curve=curve)


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


if __name__ == "__main__":
    sys.exit(run_verb(main))
