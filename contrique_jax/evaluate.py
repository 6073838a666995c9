"""How well a ridge on the features predicts opinion scores, beside controls that it has to beat."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax.config import ModelConfig
from contrique_jax.controls import NaturalStatistics
from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import UserError, run_verb
from contrique_jax.evaluate_flags import parse_flags, read_images, read_other
from contrique_jax.evaluation_table import (
    as_json,
    cross_json,
    cross_table,
    curve_line,
    notes,
    table,
    versus_json,
    versus_line,
)
from contrique_jax.features import Extractor
from contrique_jax.intervals import Interval
from contrique_jax.model.contrique import Variables
from contrique_jax.networks import load_network, random_weights, use_compilation_cache
from contrique_jax.outputs import output_path, user_cache, whole_file
from contrique_jax.posterior import fit_posterior
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe, fit_ridge
from contrique_jax.protocol import ALPHAS, Chooser, Evaluation
from contrique_jax.report import Findings, write_report
from contrique_jax.splits import Split, keep_rows, make_splits, official_split, read_splits, write_splits
from contrique_jax.studies import learning_curve
from contrique_jax.trial import Contender, Trial, cross, describe, pooled_interval, try_all, versus

RANDOM, STATISTICS = "random weights", "hand-made statistics"
# A learning curve refits at every size: this many fits each (splits, or draws of one), every so manyth alpha.
CURVE_FITS, CURVE_ALPHAS = 5, 4
# Flags that change no number: they are no part of the configuration's hash.
PLACES = ("out", "report", "probe", "features_cache")


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


def contenders_of(model: ModelConfig, variables: Variables, flags: argparse.Namespace) -> list[Contender]:
    """The network that --model names, and its controls."""

    def network(name: str, weights: Variables) -> Contender:
        limit = flags.max_megapixels
        return Contender(name, lambda side: Extractor(model, weights, max_megapixels=limit, shorter_side=side))

    found = [network(flags.model, variables)]
    if not flags.no_control:
        if not flags.model.startswith("random:"):
            found.append(network(RANDOM, random_weights(model)))
        limit = flags.max_megapixels
        made = Contender(
            STATISTICS, lambda side: NaturalStatistics(max_megapixels=limit, shorter_side=side), standardise=True
        )
        found.append(made)
    return found


def choose_splits(images: ScoredImages, flags: argparse.Namespace) -> tuple[list[Split], str]:
    """The splits and where they come from: --splits-file, the data set's official one, or random ones.

    Writes random splits to the file that --splits-file names where there is none yet.
    """
    path = None if flags.splits_file is None else Path(flags.splits_file).expanduser()
    names = split_names(images)
    if path is not None and path.exists():
        found = read_splits(path, names)
        return found, f"{len(found)} splits of {path.name}"
    if flags.splits is None and {"train", "test"} <= set(images.official_split or []):
        if path is not None:
            raise UserError(
                f"--splits-file: {images.name} has an official split of its own, which is not written; leave the flag out "
                "or ask for random splits with --splits N."
            )
        return [official_split(images.official_split or [])], "the official split"
    count = 10 if flags.splits is None else flags.splits
    found = make_splits(names, count, flags.seed)
    if path is not None:
        about = {"data_set": images.name, "images": len(images), "seed": flags.seed}
        write_splits(output_path("--splits-file", str(path), (".json",)), found, names, about)
    return found, f"{count} random splits 70/10/20"


def split_names(images: ScoredImages) -> list[str]:
    """The groups; images that are groups of their own go by their place in the data set, wherever that lies."""
    pairs = zip(images.groups, images.paths, strict=True)
    return [_relative(path, images) if group == str(path) else group for group, path in pairs]


def _relative(path: Path, images: ScoredImages) -> str:
    return Path(os.path.relpath(path, images.folder)).as_posix()


def splits_hash(splits: Sequence[Split], images: ScoredImages) -> str:
    """Twelve hexadecimal digits that name which images are on which side, wherever the data set lies."""
    names = np.array([_relative(path, images) for path in images.paths])
    sides = [[sorted(names[side]) for side in (s.train, s.validation, s.test)] for s in splits]
    return _hash(sides)


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax evaluate`."""
    flags = parse_flags(argv)
    out = output_path("--out", flags.out, (".json",)) if flags.out else None
    probe_path = output_path("--probe", flags.probe, (".npz",)) if flags.probe else None
    page = output_path("--report", flags.report, (".html",)) if flags.report else None
    images = read_images(flags)
    full_reference = images.references is not None
    others = [read_other(spec, full_reference) for spec in flags.cross]
    splits, where = choose_splits(images, flags)  # too few groups: said before the network runs
    choose: Chooser = flags.choose or (
        "validation" if all(len(split.validation) for split in splits) else "leave-one-out"
    )
    cache = _cache_folder(flags.features_cache)
    use_compilation_cache()
    contenders = contenders_of(*load_network(flags.model), flags)
    described = describe(contenders, images, cache)
    trials = try_all(contenders, described, splits, choose, len(images))
    own, trained = described[0], trials[0]
    kept = own.images
    direction = "higher is better" if images.higher_is_better else "lower is better"
    mode = "full-reference" if full_reference else "no-reference"
    print(
        f"{images.name}: {len(kept)} images, {len(set(kept.groups))} groups, {where}, {mode}, alpha by {choose}, "
        f"{images.score_column} {images.scores.min():g}..{images.scores.max():g} ({direction})\n"
    )
    print(table(trials) + "\n")
    intervals = {trial.name: pooled_interval(trial, kept) for trial in trials if trial.features is not None}
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
        tested = keep_rows(splits, own.rows, len(images))[:CURVE_FITS]
        trials = [_with_curve(trial, tested, kept) for trial in trials]
        print("".join(f"{curve_line(trial)}\n" for trial in trials if trial.curve), end="")
    if probe_path:
        fit_probe(own.model_hash, kept, own.features, trained.evaluation).save(probe_path)
        print(f"{probe_path}: probe fitted on all {len(kept)} images, deviation {trained.evaluation.deviation:.4g}")
    config = vars(flags)
    about = _about(images, kept, config) | {
        "mode": mode, "split_source": where, "splits_hash": splits_hash(splits, images),
    }  # fmt: skip
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


def _judgement(trial: Trial, interval: Interval) -> str:
    """What the table has no room for, a line and one for each note."""
    found = trial.evaluation
    line = (
        f"{trial.name}: alpha {found.alpha:.4g}, held-out SROCC {found.validation_srocc:.4f}; pooled test predictions "
        f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}] (95 % bootstrap); "
        f"90 % intervals hold {100 * np.median(found.coverages):.1f} % of test scores"
    )
    return "".join(f"{each}\n" for each in [line, *notes(found)])


def _with_curve(trial: Trial, splits: Sequence[Split], images: ScoredImages) -> Trial:
    """The trial with its learning curve over `splits`, drawn several times where they are few; the mean has none."""
    if trial.features is None:
        return trial
    repeats, alphas = -(-CURVE_FITS // len(splits)), ALPHAS[::CURVE_ALPHAS]
    curve = learning_curve(trial.features, images.scores, splits, images.groups, repeats=repeats, alphas=alphas)
    return replace(trial, curve=curve)


def _about(images: ScoredImages, kept: ScoredImages, config: dict[str, Any]) -> dict[str, Any]:
    """What was evaluated, so that others can compare."""
    return {
        "images": len(kept),
        "images_left_out": len(images) - len(kept),
        "groups": len(set(kept.groups)),
        "data_set": images.name,
        "score_column": images.score_column,
        "score_range": [float(images.scores.min()), float(images.scores.max())],
        "higher_is_better": images.higher_is_better,
        "config_hash": _hash({name: value for name, value in config.items() if name not in PLACES}),
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
