"""How well a ridge on the features predicts opinion scores, beside the same network with random weights."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax.config import ModelConfig
from contrique_jax.correlation import Correlations
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.errors import UserError, run_verb
from contrique_jax.feature_cache import cached_features
from contrique_jax.features import Extractor, add_model_flags, name_broken
from contrique_jax.model.contrique import Variables
from contrique_jax.networks import load_network, random_weights, use_compilation_cache
from contrique_jax.outputs import output_path, user_cache, whole_file
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe, fit_ridge
from contrique_jax.protocol import ALPHAS, Evaluation, evaluate_features, make_splits

NUMBERS = ("srocc", "plcc", "rmse")
SPREAD: dict[str, Callable[..., Any]] = {"median": np.median, "std": np.std, "min": np.min, "max": np.max}


def features_of(
    extractor: Extractor, images: ScoredImages, cache: Path | None
) -> tuple[ScoredImages, Float[np.ndarray, "n d"]]:
    """The images that can be read, and their features: |reference - image| where there are references.

    Names broken files on stderr. Raises UserError where none is left.
    """
    files = images.paths + (images.references or [])
    features, broken = cached_features(extractor, files, cache, images.folder)
    name_broken(broken, len(set(files)))
    wanted = zip(images.paths, images.references or images.paths, strict=True)
    rows = [i for i, pair in enumerate(wanted) if all(path in features for path in pair)]
    kept = images.subset(rows)
    if not rows:
        raise UserError("--scores: no image is left that can be read together with its reference.")
    values = np.stack([features[path] for path in kept.paths])
    if kept.references is not None:
        values = np.abs(np.stack([features[path] for path in kept.references]) - values)
    return kept, values


def fit_probe(
    extractor: Extractor, images: ScoredImages, features: Float[np.ndarray, "n d"], evaluation: Evaluation
) -> Probe:
    """The probe fitted on all images with the alpha that the protocol chose; its deviation is the validation one."""
    coefficients, intercepts = fit_ridge(features, images.scores, np.array([evaluation.alpha]))
    return Probe(
        coefficients=coefficients[0],
        intercept=float(intercepts[0]),
        alpha=evaluation.alpha,
        feature_name=NO_REFERENCE if images.references is None else FULL_REFERENCE,
        model_hash=extractor.model_hash,
        data_set=images.name,
        score_low=float(images.scores.min()),
        score_high=float(images.scores.max()),
        higher_is_better=images.higher_is_better,
        deviation=evaluation.deviation,
    )


def summary(evaluation: Evaluation, subset: str | None = None) -> dict[str, dict[str, float | None]]:
    """Median and spread over the splits of every number; a split where it is not defined does not count."""
    out = {}
    for number in NUMBERS:
        values = evaluation.values(number, subset)
        values = values[~np.isnan(values)]
        parts: dict[str, float | None] = dict.fromkeys(SPREAD)
        if len(values):
            parts = {name: float(part(values)) for name, part in SPREAD.items()}
        out[number] = parts
    return out


def subset_names(evaluation: Evaluation) -> list[str]:
    return list(evaluation.results[0].subsets)


def report(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as what goes into R.json."""
    pooled = summary(evaluation)
    return {
        **{number: pooled[number]["median"] for number in NUMBERS},
        "alpha": evaluation.alpha,
        "validation_srocc": evaluation.validation_srocc,
        "deviation": evaluation.deviation,
        "spread": pooled,
        "subsets": {name: summary(evaluation, name) for name in subset_names(evaluation)},
        "splits": [
            {
                **_numbers(result.pooled),
                "train": len(result.split.train),
                "validation": len(result.split.validation),
                "test": len(result.split.test),
                "subsets": {name: _numbers(values) for name, values in result.subsets.items()},
            }
            for result in evaluation.results
        ],
    }


def _numbers(values: Correlations) -> dict[str, Any]:
    plain = {name: getattr(values, name) for name in ("srocc", "plcc", "krocc", "rmse")}
    out: dict[str, Any] = {name: None if math.isnan(value) else value for name, value in plain.items()}
    return {**out, "notes": list(values.notes)} if values.notes else out


def table(evaluations: dict[str, Evaluation]) -> str:
    """Medians, standard deviations and ranges over the splits, a line a network and subset."""
    lines = [["", "", *(f"{number.upper()} median ± std (min..max)" for number in NUMBERS)]]
    for network, evaluation in evaluations.items():
        for subset in [None, *subset_names(evaluation)]:
            cells = []
            for value in summary(evaluation, subset).values():
                shown = "{median:.4f} ± {std:.4f} ({min:.4f}..{max:.4f})"
                cells.append("not defined" if value["median"] is None else shown.format(**value))
            lines.append(["" if subset else network, subset or "all", *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def notes(evaluation: Evaluation) -> list[str]:
    """What was not defined or fell back, with how often."""
    counted = Counter(
        f"{subset}: {note}"
        for result in evaluation.results
        for subset, values in [("all", result.pooled), *result.subsets.items()]
        for note in values.notes
    )
    return [f"note: {note} (in {count} of {len(evaluation.results)} splits)" for note, count in counted.items()]


def evaluate(
    images: ScoredImages, model: ModelConfig, variables: Variables, flags: argparse.Namespace, cache: Path | None
) -> tuple[Extractor, ScoredImages, Float[np.ndarray, "n d"], Evaluation]:
    """The protocol for one network."""
    extractor = Extractor(model, variables, max_megapixels=flags.max_megapixels)
    kept, features = features_of(extractor, images, cache)
    splits = make_splits(kept.groups, flags.splits, flags.seed)
    return extractor, kept, features, evaluate_features(features, kept.scores, splits, kept.subsets)


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="contrique-jax evaluate",
        description="Correlation with opinion scores: repeated 70/10/20 splits, ridge on the features, alpha by "
        "validation; the same for random weights; saves the probe fitted on all images.",
        epilog="Example: contrique-jax evaluate --model runs/first --scores my/scores.csv --probe my.npz --out my.json",
    )
    add_model_flags(parser)
    parser.add_argument("--scores", required=True, metavar="F.csv", help="columns path (relative to it) and a score")
    parser.add_argument("--score-column", metavar="C", help="default: the one of mos, dmos, score that is there")
    parser.add_argument("--group-column", metavar="C", help="a group is never on two sides of a split (default: group)")
    parser.add_argument("--subset-column", metavar="C", help="correlations of each subset too (default: subset)")
    parser.add_argument("--reference-column", metavar="C", help="full-reference: |f(reference) - f(image)| is judged")
    parser.add_argument("--lower-is-better", action="store_true", help="the scores measure damage (dmos always does)")
    parser.add_argument("--splits", type=int, default=10, metavar="N", help="random splits (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the splits (default: %(default)s)")
    parser.add_argument("--dataset", metavar="NAME", help="what to call the data set (default: the csv's folder)")
    parser.add_argument("--no-control", action="store_true", help="leave out the network with random weights")
    parser.add_argument("--features-cache", metavar="DIR", help="keep features there (default: the user's cache)")
    parser.add_argument("--probe", metavar="P.npz", help="save the probe fitted on all images here")
    parser.add_argument("--out", metavar="R.json", help="save every number here")
    flags = parser.parse_args(argv)
    if flags.splits < 1 or flags.seed < 0:
        raise UserError("--splits must be at least 1 and --seed at least 0.")
    return flags


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax evaluate`."""
    flags = parse_flags(argv)
    out = output_path("--out", flags.out, (".json",)) if flags.out else None
    probe_path = output_path("--probe", flags.probe, (".npz",)) if flags.probe else None
    images = read_scores(
        flags.scores,
        name=flags.dataset,
        score_column=flags.score_column,
        group_column=flags.group_column,
        subset_column=flags.subset_column,
        reference_column=flags.reference_column,
        lower_is_better=flags.lower_is_better,
    )
    make_splits(images.groups, flags.splits, flags.seed)  # too few groups: say so before the network runs
    cache = _cache_folder(flags.features_cache)
    use_compilation_cache()
    model, variables = load_network(flags.model)
    extractor, kept, features, trained = evaluate(images, model, variables, flags, cache)
    evaluations = {flags.model: trained}
    if not flags.no_control and not flags.model.startswith("random:"):
        evaluations["random weights"] = evaluate(images, model, random_weights(model), flags, cache)[3]
    direction = "higher is better" if images.higher_is_better else "lower is better"
    mode = "no-reference" if images.references is None else "full-reference"
    print(
        f"{images.name}: {len(kept)} images, {len(set(kept.groups))} groups, {flags.splits} splits 70/10/20, {mode}, "
        f"{images.score_column} {images.scores.min():g}..{images.scores.max():g} ({direction})\n"
    )
    print(table(evaluations) + "\n")
    for name, evaluation in evaluations.items():
        print(f"{name}: alpha {evaluation.alpha:.4g}, median validation SROCC {evaluation.validation_srocc:.4f}")
        print("".join(f"{note}\n" for note in notes(evaluation)), end="")
    if probe_path:
        fit_probe(extractor, kept, features, trained).save(probe_path)
        print(f"{probe_path}: probe fitted on all {len(kept)} images, deviation {trained.deviation:.4g}")
    if out:
        control = evaluations.get("random weights")
        result = {
            **report(trained),
            "control": report(control) if control else None,
            "images": len(kept),
            "images_left_out": len(images) - len(kept),
            "groups": len(set(kept.groups)),
            "data_set": images.name,
            "mode": mode,
            "score_column": images.score_column,
            "score_range": [float(images.scores.min()), float(images.scores.max())],
            "higher_is_better": images.higher_is_better,
            "model_hash": extractor.model_hash,
            "encoder": model.encoder,
            "alphas": [float(ALPHAS[0]), float(ALPHAS[-1]), len(ALPHAS)],
            "config": vars(flags),
        }
        with whole_file(out) as beside:
            beside.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"{out}: written")


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
