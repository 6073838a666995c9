"""Fits the default probe and what names distortions (`probe.npz`, `why.npz`) for an embedded model, and measures them.

Opinions are one csv of photographs in subsets and groups, on whose ten splits the probe is measured, and further ones that
are only fitted on; those that nearly repeat a photograph of the first are left out of the measurement. Clean
photographs under every type and level of the bank say which way is down.

  python benchmarks/default_probe.py --scores biq2021/scores.csv --more biq2021_train.csv --pristine PHOTOS/clean
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from contrique_jax import distort
from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.decode import read
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.distort.bank import BANK
from contrique_jax.evaluation.comparison import Contender, extract_all
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.evaluation.protocol import make_splits
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import PROBE, WHY
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.model_folder import DEFAULT, EMBEDDED, load_model
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.probe.falls import Falls, Fit, fit_with_falls
from contrique_jax.probe.spread import fit_spread
from contrique_jax.probe.standing import Standing
from contrique_jax.probe.why import Rows, fit_why

# chosen on the splits that are measured: what all falls count beside all opinions, the fall a level, the penalty
SHARE, FALL, PENALTY, MEMBERSHIP = 0.05, 0.5, 0.7, 0.5
NEARLY_EQUAL = 0.8  # cosine of standardised features
UNSEEN = 12  # photographs that the measurement of falls and reasons leaves out


def distorted(paths: list[Path]) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """Every photograph clean and under all types and levels: image, photograph, type (0 clean), level."""
    for number, path in enumerate(paths):
        image = to_canvas(read(path))
        yield image, number, 0, 0
        for row in BANK:
            for level in range(1, 6):
                yield np.asarray(distort.apply(image, type=row.type, level=level, seed=number)), number, row.type, level


def features_of_distorted(extractor: Extractor, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, d] and (photograph, type, level) [n, 3]."""
    features, told, batch = [], [], []
    for image, *what in distorted(paths):
        batch.append(image)
        told.append(what)
        if len(batch) == 126:
            features.append(extractor.features(batch))
            batch = []
            print(f"\r{len(features)} of {len(paths)} photographs", end="", flush=True)
    print()
    return np.concatenate(features), np.array(told)


def differences(x: np.ndarray, told: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distorted less clean features, severities 0..5, and the photograph of each such row with a severity."""
    severities = np.array([[0] * 6, *([0, *row.severity] for row in BANK)])[told[:, 1], told[:, 2]]
    clean = {photograph: i for i, (photograph, kind, _) in enumerate(told) if kind == 0}
    worse = np.flatnonzero(severities)
    return x[worse] - x[[clean[photograph] for photograph in told[worse, 0]]], severities[worse], told[worse, 0]


def fitted(x: np.ndarray, y: np.ndarray, groups: np.ndarray, lower: np.ndarray, severity: np.ndarray) -> Fit:
    falls = Falls(lower, severity * FALL * y.std())
    weight = SHARE * len(y) / max(len(severity), 1)
    return fit_with_falls(x, y, np.array([PENALTY * len(y)]), falls, weight=weight, groups=list(groups))


def near(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each row nearly equals one of the others."""
    mean, deviation = others.mean(0), np.maximum(others.std(0), 1e-6)
    a, b = ((part - mean) / deviation for part in (x, others))
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a, b))
    return np.concatenate([(a[i : i + 512] @ b.T).max(1) for i in range(0, len(a), 512)]) > NEARLY_EQUAL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group, subset")
    parser.add_argument("--more", type=Path, help="csv of further opinions: path, mos")
    parser.add_argument("--pristine", required=True, help="folder of clean photographs")
    parser.add_argument(
        "--photographs", type=int, default=60, help="of the clean ones, distorted (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=EMBEDDED / DEFAULT, help="the embedded model's folder")
    options = parser.parse_args()
    use_compilation_cache()
    model, weights = load_model(options.out)
    network = Contender(DEFAULT, lambda side: Extractor(model, weights, shorter_side=side))
    tables = [read_scores(options.scores)] + ([read_scores(options.more)] if options.more else [])
    sets = [extract_all([network], table, user_cache("features"))[0] for table in tables]
    images: ScoredImages = sets[0].images
    x, y = np.concatenate([one.features for one in sets]), np.concatenate([one.images.scores for one in sets])
    groups = np.concatenate([[f"{i}|{group}" for group in one.images.groups] for i, one in enumerate(sets)])
    own = np.arange(len(y)) < len(images)
    every = list_images([options.pristine])
    chosen = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: options.photographs]]
    degraded, told = features_of_distorted(Extractor(model, weights), chosen)
    lower, severity, photograph = differences(degraded, told)

    repeats = np.zeros(len(y), bool)
    repeats[~own] = near(x[~own], x[own]) if (~own).any() else []
    found = []
    for split in make_splits(images.groups, 10, 0):
        used = ~own & ~repeats
        used[split.train] = True
        fit = fitted(x[used], y[used], groups[used], lower, severity)
        predicted = x @ fit.coefficients + fit.intercept
        kinds = np.asarray(images.subsets or ["all"] * len(images))
        parts = [split.test] + [split.test[kinds[split.test] == kind] for kind in np.unique(kinds)]
        found.append([correlate(predicted[rows], y[rows]).srocc for rows in parts])
    names = ["all", *np.unique(kinds)]
    print(
        "SROCC, medians of ten splits: "
        + ", ".join(f"{n} {m:.3f}" for n, m in zip(names, np.median(found, 0), strict=True))
    )

    unseen = set(range(len(chosen) - min(UNSEEN, len(chosen) // 2), len(chosen)))
    seen = ~np.isin(photograph, list(unseen))
    scores = degraded @ (part := fitted(x, y, groups, lower[seen], severity[seen])).coefficients + part.intercept
    ordered = 0
    for row in BANK:
        ranks = []
        for number in unseen:
            rows = (told[:, 0] == number) & ((told[:, 1] == row.type) | (told[:, 1] == 0))
            strength = np.array([0, *row.severity])[told[rows, 2]]
            ranks.append(correlate(scores[rows], strength.astype(float)).srocc)
        ordered += np.median(ranks) <= -0.8
    in_fit = ~np.isin(told[:, 0], list(unseen))
    why = fit_why(Rows(degraded[in_fit], told[in_fit, 1], told[in_fit, 2], list(map(str, told[in_fit, 0]))), x)
    probabilities, _ = why.judge(degraded[~in_fit & (told[:, 2] >= 3)])
    kinds = told[~in_fit & (told[:, 2] >= 3), 1]
    places = np.argsort(-probabilities, axis=1)
    top = [np.mean([kind in row[:count] for kind, row in zip(kinds, places, strict=True)]) for count in (1, 3)]
    said = f"the score follows {ordered} of 25 types; named first {top[0]:.3f}, among the first three {top[1]:.3f}"
    print(f"{len(unseen)} unseen photographs: {said}")

    fit = fitted(x, y, groups, lower, severity)
    kinds = [kind for one in sets for kind in (one.images.subsets or ["further"] * len(one.images))]
    coefficients, intercept = fit.coefficients, fit.intercept
    spread = fit_spread(
        x, y, fit.held_out, coefficients, intercept, alpha=MEMBERSHIP * len(y), kinds=kinds, groups=list(groups)
    )
    Probe(
        coefficients=coefficients, intercept=intercept, alpha=fit.alpha, feature_name=NO_REFERENCE,
        model_hash=sets[0].model_hash, data_set=f"{images.name}, {len(y)} images", score_low=0.0, score_high=1.0,
        higher_is_better=images.higher_is_better, deviation=float(np.sqrt(np.mean((y - fit.held_out) ** 2))), spread=spread,
        standing=Standing.of(fit.held_out),
    ).save(options.out / PROBE)  # fmt: skip
    rows = Rows(degraded, told[:, 1], told[:, 2], list(map(str, told[:, 0])))
    fit_why(rows, x, model_hash=sets[0].model_hash).save(options.out / WHY)
    print(f"written: {options.out / PROBE}, {options.out / WHY}")


if __name__ == "__main__":
    main()
