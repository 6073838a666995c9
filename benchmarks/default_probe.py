"""Fits the default probe and what names distortions (`probe.npz`, `why.npz`) for an embedded model, and measures them.

Opinions are one csv of photographs in subsets and groups, on whose ten splits the probe is measured, and further ones that
are only fitted on; those that nearly repeat a photograph of the first are left out of the measurement. Clean
photographs under every type and level of the bank say which way is down. The probe's score is the mean of
a ridge's and of a hidden layer's; the figures of each are printed beside its own.

  python benchmarks/default_probe.py --scores biq2021/scores.csv --more biq2021_train.csv --pristine PHOTOS/clean \
      --live live_part/scores.csv --kept distorted.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

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
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.probe.falls import Falls, Fit, fit_with_falls
from contrique_jax.probe.fit_hidden import Copies, fit_hidden
from contrique_jax.probe.hidden import Hidden
from contrique_jax.probe.spread import FOLDS, INSIDE, Spread, fit_spread
from contrique_jax.probe.standing import Standing
from contrique_jax.probe.why import Rows, fit_why

# chosen on the splits that are measured: what all falls count beside all opinions, the fall a level, the penalty
SHARE, FALL, PENALTY, MEMBERSHIP = 0.05, 0.5, 0.7, 0.5
WAYS = "ridge", "layer", "mean"
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


def worsened(told: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows with a severity, those of their clean photographs, and the severities, 1..5."""
    severities = np.array([[0] * 6, *([0, *row.severity] for row in BANK)])[told[:, 1], told[:, 2]]
    clean = {photograph: i for i, (photograph, kind, _) in enumerate(told) if kind == 0}
    worse = np.flatnonzero(severities)
    return worse, np.array([clean[photograph] for photograph in told[worse, 0]]), severities[worse]


def differences(x: np.ndarray, told: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distorted less clean features, severities, and the photograph of each row with a severity."""
    worse, originals, severity = worsened(told)
    return x[worse] - x[originals], severity, told[worse, 0]


def fitted(x: np.ndarray, y: np.ndarray, groups: np.ndarray, lower: np.ndarray, severity: np.ndarray) -> Fit:
    falls = Falls(lower, severity * FALL * y.std())
    weight = SHARE * len(y) / max(len(severity), 1)
    return fit_with_falls(x, y, np.array([PENALTY * len(y)]), falls, weight=weight, groups=list(groups))


def layer(x: np.ndarray, y: np.ndarray, degraded: np.ndarray, told: np.ndarray) -> Hidden:
    """The hidden layer, taught by the distorted photographs of these rows too."""
    worse, originals, severity = worsened(told)
    return fit_hidden(x, y, Copies(degraded, originals, worse, severity * FALL * y.std()))


def of_each(fit: Fit, hidden: Hidden, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Scores by each of `WAYS`."""
    line, bent = x @ fit.coefficients + fit.intercept, hidden.predict(x)
    return line, bent, (line + bent) / 2


def near(x: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of rows, whether each nearly equals each of the others."""
    mean, deviation = others.mean(0), np.maximum(others.std(0), 1e-6)
    a, b = ((part - mean) / deviation for part in (x, others))
    a, b = ((part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32) for part in (a, b))
    yield from ((a[i : i + 512] @ b.T) > NEARLY_EQUAL for i in range(0, len(a), 512))


def families(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A number for each photograph, the same for those of one group and for those that nearly equal one another."""
    pairs = [np.stack(np.nonzero(block)) + [[512 * i], [0]] for i, block in enumerate(near(x, x))]
    _, first, which = np.unique(groups, return_index=True, return_inverse=True)
    edges = np.concatenate([*pairs, np.stack([np.arange(len(x)), first[which]])], axis=1)
    graph = sparse.coo_matrix((np.ones(edges.shape[1]), tuple(edges)), shape=(len(x), len(x)))
    return csgraph.connected_components(graph, directed=False)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group, subset")
    parser.add_argument("--name", default="BIQ2021, official train list", help="of the opinions (default: %(default)s)")
    parser.add_argument("--more", type=Path, help="csv of further opinions: path, mos")
    parser.add_argument("--pristine", required=True, help="folder of clean photographs")
    parser.add_argument(
        "--photographs", type=int, default=60, help="of the clean ones, distorted (default: %(default)s)"
    )
    parser.add_argument(
        "--kept", type=Path, help=".npz that keeps the distorted photographs' features for the next time"
    )
    parser.add_argument("--leave-why", action="store_true", help=f"leave {WHY}, which wants more photographs, as it is")
    parser.add_argument("--live", type=Path, help="csv of degraded photographs: path, dmos")
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
    family = families(x, groups)
    groups = family.astype(str)
    print(f"{len(y)} opinions, {family.max() + 1} photographs that do not nearly repeat another", flush=True)
    own = np.arange(len(y)) < len(images)
    every = list_images([options.pristine])
    chosen = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: options.photographs]]
    if options.kept and options.kept.exists():
        kept = np.load(options.kept)
        degraded, told = kept["x"], kept["told"]
    else:
        degraded, told = features_of_distorted(Extractor(model, weights), chosen)
        if options.kept:
            np.savez(options.kept, x=degraded, told=told)
    lower, severity, photograph = differences(degraded, told)

    repeats = np.zeros(len(y), bool)
    repeats[~own] = np.concatenate([block.any(axis=1) for block in near(x[~own], x[own])]) if (~own).any() else []
    kinds = np.asarray(images.subsets or ["all"] * len(images))
    names, found = ["all", *np.unique(kinds)], []
    for number, split in enumerate(make_splits(images.groups, 10, 0)):
        used = ~own & ~repeats
        used[split.train] = True
        fit = fitted(x[used], y[used], groups[used], lower, severity)
        both = of_each(fit, layer(x[used], y[used], degraded, told), x)
        parts = [split.test] + [split.test[kinds[split.test] == kind] for kind in names[1:]]
        of_both = [[correlate(one[rows], y[rows]) for rows in parts] for one in both]
        found.append([[part.srocc for part in one] + [one[0].plcc] for one in of_both])
        print(f"\r{number + 1} of 10 splits", end="", flush=True)
    for title, one in zip(WAYS, np.moveaxis(np.array(found), 1, 0), strict=True):
        said = ", ".join(f"{n} {m:.3f}" for n, m in zip([*names, "PLCC"], np.median(one, 0), strict=True))
        print(f"\n{title}: SROCC, medians of ten splits: {said}", end="")
    less = np.array(found)[:, 2] - np.array(found)[:, 0]
    margin = 1.96 * less.std(0, ddof=1) / np.sqrt(len(less))
    said = ", ".join(f"{n} {m:+.3f} +- {d:.3f}" for n, m, d in zip([*names, "PLCC"], less.mean(0), margin, strict=True))
    print(f"\nmean less ridge, means and 1.96 standard errors: {said}")

    unseen = set(range(len(chosen) - min(UNSEEN, len(chosen) // 2), len(chosen)))
    seen, in_layer = ~np.isin(photograph, list(unseen)), ~np.isin(told[:, 0], list(unseen))
    part = fitted(x, y, groups, lower[seen], severity[seen])
    taught = layer(x, y, degraded[in_layer], told[in_layer])
    for title, scores in zip(WAYS, of_each(part, taught, degraded), strict=True):
        of_type = {}
        for row in BANK:
            ranks = []
            for number in unseen:
                rows = (told[:, 0] == number) & ((told[:, 1] == row.type) | (told[:, 1] == 0))
                strength = np.array([0, *row.severity])[told[rows, 2]]
                ranks.append(correlate(scores[rows], strength.astype(float)).srocc)
            of_type[row.name] = np.median(ranks)
        above = ", ".join(f"{name} {rank:.2f}" for name, rank in of_type.items() if rank > -0.8)
        ordered = sum(rank <= -0.8 for rank in of_type.values())
        print(f"{title}: of {len(unseen)} unseen photographs the score follows {ordered} of 25 types; not {above}")
    if options.live:
        live = extract_all([network], read_scores(options.live), user_cache("features"))[0]
        against = [-correlate(one, live.images.scores).srocc for one in of_each(part, taught, live.features)]
        said = ", ".join(f"{title} {value:.3f}" for title, value in zip(WAYS, against, strict=True))
        print(f"{live.images.name}: SROCC against damage: {said}")
    in_fit = ~np.isin(told[:, 0], list(unseen))
    why = fit_why(Rows(degraded[in_fit], told[in_fit, 1], told[in_fit, 2], list(map(str, told[in_fit, 0]))), x)
    probabilities, _ = why.judge(degraded[~in_fit & (told[:, 2] >= 3)])
    shown = told[~in_fit & (told[:, 2] >= 3), 1]
    places = np.argsort(-probabilities, axis=1)
    top = [np.mean([kind in row[:count] for kind, row in zip(shown, places, strict=True)]) for count in (1, 3)]
    print(f"named first {top[0]:.3f}, among the first three {top[1]:.3f}", flush=True)

    fit, hidden = fitted(x, y, groups, lower, severity), layer(x, y, degraded, told)
    held_out = np.empty(len(y))
    fold = np.random.default_rng(0).permutation(family.max() + 1)[family] % FOLDS
    for number in range(FOLDS):
        held_out[fold == number] = layer(x[fold != number], y[fold != number], degraded, told).predict(
            x[fold == number]
        )
    held_out = (held_out + fit.held_out) / 2
    sources = [kind for one in sets for kind in (one.images.subsets or ["further"] * len(one.images))]
    coefficients, intercept = fit.coefficients, fit.intercept

    def spread_of(rows: np.ndarray) -> Spread:
        told = [sources[i] for i in np.flatnonzero(rows)], list(groups[rows])
        return fit_spread(
            x[rows], y[rows], held_out[rows], coefficients, intercept, alpha=MEMBERSHIP * rows.sum(), kinds=told[0],
            groups=told[1], along=fit.held_out[rows],
        )  # fmt: skip

    deviations = np.empty(len(y))
    for number in range(FOLDS):
        deviations[fold == number] = spread_of(fold != number).deviations(x[fold == number])
    off = np.abs(y - held_out)
    for kind in names[1:]:
        rows = np.flatnonzero(own)[kinds == kind]
        inside, rank = np.mean(off[rows] <= INSIDE * deviations[rows]), correlate(deviations[rows], off[rows]).srocc
        print(f"{kind}: intervals hold {100 * inside:.1f} %, rank correlation of deviation with error {rank:.2f}")
    rank = correlate(deviations[own], off[own]).srocc
    print(
        f"all: rank correlation of deviation with error {rank:.2f}; {len(y)} opinions, {len(chosen)} photographs distorted"
    )
    spread = spread_of(np.ones(len(y), bool))
    Probe(
        coefficients=coefficients, intercept=intercept, alpha=fit.alpha, feature_name=NO_REFERENCE,
        model_hash=sets[0].model_hash, data_set=f"{options.name} ({len(y)} images)", score_low=0.0, score_high=1.0,
        higher_is_better=images.higher_is_better, deviation=float(np.sqrt(np.mean((y - held_out) ** 2))), spread=spread,
        standing=Standing.of(held_out), hidden=hidden,
    ).save(options.out / PROBE)  # fmt: skip
    rows = Rows(degraded, told[:, 1], told[:, 2], list(map(str, told[:, 0])))
    if not options.leave_why:
        fit_why(rows, x, model_hash=sets[0].model_hash).save(options.out / WHY)
    print(f"written: {options.out / PROBE}" + ("" if options.leave_why else f", {options.out / WHY}"))


if __name__ == "__main__":
    main()
