"""Fits the default probe and what names distortions (`probe.npz`, `why.npz`) for an embedded model, and measures them.

Opinions are one csv of photographs in subsets and groups, on whose ten splits the probe is measured, and further ones that
are only fitted on; those that nearly repeat a photograph of the first are left out of the measurement. Clean
photographs under every type and level of the bank say which way is down. The probe's score is a quarter a ridge's and three
quarters a hidden layer's, both fitted within the subsets of the opinions; the figures of each are printed beside its own,
and those of one ridge that knows no subsets.

  python benchmarks/default_probe.py --scores biq2021/scores.csv --more biq2021_train.csv --pristine PHOTOS/clean \
      --live live_part/scores.csv --kept distorted.npz
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from contrique_jax import distort
from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.decode import read
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.distort.bank import BANK
from contrique_jax.evaluation.comparison import Contender, ExtractedFeatures, extract_all
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.evaluation.protocol import make_splits
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import PROBE, WHY
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.probe.falls import Falls, Fit, fit_with_falls, kind_numbers
from contrique_jax.probe.fit_hidden import Copies, fit_hidden
from contrique_jax.probe.hidden import Hidden, together
from contrique_jax.probe.spread import FOLDS, INSIDE, Spread, fit_spread_beside, layer_summaries
from contrique_jax.probe.standing import Standing
from contrique_jax.probe.why import Rows, Why, fit_why

# chosen on the splits that are measured: what all falls count beside all opinions, the fall a level, the penalty
SHARE, FALL, PENALTY = 0.05, 0.5, 0.7
WAYS = "one ridge", "ridge", "layer", "both"
NEARLY_EQUAL = 0.8  # cosine of standardised features
STRONG = 3  # the least level at which a distortion is to be named
UNSEEN = 12  # photographs that the measurement of falls and reasons leaves out


SEVERITIES = np.array([[0] * 6, *([0, *row.severity] for row in BANK)])  # by type (0 clean) and level


@dataclass(frozen=True)
class Opinions:
    """Photographs with opinions."""

    x: np.ndarray  # features [n, d]
    y: np.ndarray  # opinions [n]
    kinds: np.ndarray  # subsets [n]
    family: np.ndarray  # a number for those that nearly equal one another [n]
    own: np.ndarray  # whether they are of the table that is measured [n]

    @property
    def groups(self) -> np.ndarray:
        return self.family.astype(str)


@dataclass(frozen=True)
class Distorted:
    """Clean photographs under all types and levels."""

    x: np.ndarray  # features [m, d]
    told: np.ndarray  # photograph, type (0 clean), level [m, 3]

    def rows(self) -> Rows:
        """For what names distortions, whose levels are severities: contrast may change to either side."""
        return Rows(
            self.x, self.told[:, 1], SEVERITIES[self.told[:, 1], self.told[:, 2]], list(map(str, self.told[:, 0]))
        )


def in_order(folder: str) -> list[Path]:
    """The photographs of a folder in the order in which they are taken."""
    every = list_images([folder])
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))]


def distorted(paths: list[Path]) -> Iterator[tuple[np.ndarray, int, int, int]]:
    """Every photograph clean and under all types and levels: image, photograph, type (0 clean), level."""
    for number, path in enumerate(paths):
        image = to_canvas(read(path))
        yield image, number, 0, 0
        for row in BANK:
            for level in range(1, 6):
                yield np.asarray(distort.apply(image, type=row.type, level=level, seed=number)), number, row.type, level


def features_of_distorted(extractor: Extractor, paths: list[Path], kept: Path | None) -> Distorted:
    """Those in the file `kept`, which is written if it is not there."""
    if kept and kept.exists():
        stored = np.load(kept)
        return Distorted(stored["x"], stored["told"])
    features, told, batch = [], [], []
    for image, *what in distorted(paths):
        batch.append(image)
        told.append(what)
        if len(batch) == 126:
            features.append(extractor.features(batch))
            batch = []
            print(f"\r{len(features)} of {len(paths)} photographs", end="", flush=True)
    print()
    found = Distorted(np.concatenate(features), np.array(told))
    if kept:
        np.savez(kept, x=found.x, told=found.told)
    return found


def worsened(told: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows with a severity, those of their clean photographs, and the severities, 1..5."""
    severities = SEVERITIES[told[:, 1], told[:, 2]]
    clean = {photograph: i for i, (photograph, kind, _) in enumerate(told) if kind == 0}
    worse = np.flatnonzero(severities)
    return worse, np.array([clean[photograph] for photograph in told[worse, 0]]), severities[worse]


def ridge(told: Opinions, rows: np.ndarray, falls: Distorted, *, with_kinds: bool = True) -> Fit:
    x, y = told.x[rows], told.y[rows]
    worse, originals, severity = worsened(falls.told)
    steps = Falls(falls.x[worse] - falls.x[originals], severity * FALL * y.std())
    weight = SHARE * len(y) / max(len(severity), 1)
    kinds = list(told.kinds[rows]) if with_kinds else None
    penalty = np.array([PENALTY * len(y)])
    return fit_with_falls(x, y, penalty, steps, weight=weight, groups=list(told.groups[rows]), kinds=kinds)


def trust(told: Opinions, rows: np.ndarray, fit: Fit) -> np.ndarray:
    """What each opinion counts: one over the mean squared error that a ridge on the same rows has in its kind."""
    number = kind_numbers(told.kinds[rows], int(rows.sum()))
    off = told.y[rows] - fit.held_out - fit.shifts[number]
    return (np.bincount(number) / np.bincount(number, off**2))[number]


def layer(told: Opinions, rows: np.ndarray, falls: Distorted, trusted: np.ndarray) -> Hidden:
    y = told.y[rows]
    worse, originals, severity = worsened(falls.told)
    copies = Copies(falls.x, originals, worse, severity * FALL * y.std())
    return fit_hidden(told.x[rows], y, copies, kinds=list(told.kinds[rows]), weights=trusted)


class Ways(NamedTuple):
    """Both fits on some rows, and a ridge that knows no kinds."""

    one_ridge: Fit
    ridge: Fit
    layer: Hidden

    def scores(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """By each of `WAYS`."""
        one, within = (x @ fit.coefficients + fit.intercept for fit in (self.one_ridge, self.ridge))
        bent, likeness = self.layer.judge(x)
        line = within + likeness @ self.ridge.shifts
        return one, line, bent, together(line, bent)


def ways(told: Opinions, rows: np.ndarray, falls: Distorted) -> Ways:
    """All of them on these rows, taught by the distorted photographs too."""
    within = ridge(told, rows, falls)
    return Ways(ridge(told, rows, falls, with_kinds=False), within, layer(told, rows, falls, trust(told, rows, within)))


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


def read_opinions(network: Contender, scores: Path, more: Path | None) -> tuple[Opinions, list[ExtractedFeatures]]:
    """All opinions, those of `scores` first, and what each table is."""
    tables = [read_scores(path) for path in (scores, more) if path]
    sets = [extract_all([network], table, user_cache("features"))[0] for table in tables]
    x, y = np.concatenate([one.features for one in sets]), np.concatenate([one.images.scores for one in sets])
    family = families(
        x, np.concatenate([[f"{i}|{group}" for group in one.images.groups] for i, one in enumerate(sets)])
    )
    kinds = np.concatenate([np.asarray(one.images.subsets or ["all"] * len(one.images)) for one in sets])
    own = np.arange(len(y)) < len(sets[0].images)
    print(f"{len(y)} opinions, {family.max() + 1} photographs that do not nearly repeat another", flush=True)
    return Opinions(x, y, kinds, family, own), sets


def measure_splits(told: Opinions, images: ScoredImages, falls: Distorted) -> None:
    """Ten grouped splits of the first table, all further opinions fitted too, but for those that nearly repeat one of it."""
    own = told.own
    repeats = np.zeros(len(own), bool)
    repeats[~own] = (
        np.concatenate([block.any(axis=1) for block in near(told.x[~own], told.x[own])]) if (~own).any() else []
    )
    names, found = ["all", *np.unique(told.kinds[own])], []
    for number, split in enumerate(make_splits(images.groups, 10, 0)):
        used = ~own & ~repeats
        used[split.train] = True
        parts = [split.test] + [split.test[told.kinds[split.test] == kind] for kind in names[1:]]
        each = ways(told, used, falls).scores(told.x)
        of_each_way = [[correlate(one[rows], told.y[rows]) for rows in parts] for one in each]
        found.append([[part.srocc for part in one] + [one[0].plcc] for one in of_each_way])
        print(f"\r{number + 1} of 10 splits", end="", flush=True)
    for title, one in zip(WAYS, np.moveaxis(np.array(found), 1, 0), strict=True):
        said = ", ".join(f"{n} {m:.3f}" for n, m in zip([*names, "PLCC"], np.median(one, 0), strict=True))
        print(f"\n{title}: SROCC, medians of ten splits: {said}", end="")
    print()
    for title, less in ((title, np.array(found)[:, i] - np.array(found)[:, 0]) for i, title in enumerate(WAYS) if i):
        margin = 1.96 * less.std(0, ddof=1) / np.sqrt(len(less))
        each = zip([*names, "PLCC"], less.mean(0), margin, strict=True)
        said = ", ".join(f"{n} {m:+.3f} +- {d:.3f}" for n, m, d in each)
        print(f"{title} less one ridge, means and 1.96 standard errors: {said}", flush=True)


def measure_unseen(told: Opinions, falls: Distorted, live: ExtractedFeatures | None) -> None:
    """What is right of photographs that were left out: types that the score follows, the type named; SROCC against damage."""
    count = falls.told[:, 0].max() + 1
    unseen = np.arange(count - min(UNSEEN, count // 2), count)
    held = np.isin(falls.told[:, 0], unseen)
    seen = Distorted(falls.x[~held], falls.told[~held])
    fits = ways(told, np.ones(len(told.y), bool), seen)
    for title, scores in zip(WAYS, fits.scores(falls.x), strict=True):
        of_type = {}
        for row in BANK:
            ranks = []
            for number in unseen:
                rows = (falls.told[:, 0] == number) & np.isin(falls.told[:, 1], (0, row.type))
                strength = SEVERITIES[falls.told[rows, 1], falls.told[rows, 2]].astype(float)
                ranks.append(correlate(scores[rows], strength).srocc)
            of_type[row.name] = np.median(ranks)
        above = ", ".join(f"{name} {rank:.2f}" for name, rank in of_type.items() if rank > -0.8)
        ordered = sum(rank <= -0.8 for rank in of_type.values())
        print(f"{title}: of {len(unseen)} unseen photographs the score follows {ordered} of 25 types; not {above}")
    if live is not None:
        against = [-correlate(one, live.images.scores).srocc for one in fits.scores(live.features)]
        said = ", ".join(f"{title} {value:.3f}" for title, value in zip(WAYS, against, strict=True))
        print(f"{live.images.name}: SROCC against damage: {said}")
    why = fit_why(seen.rows(), told.x)
    first, three = named(why, Distorted(falls.x[held], falls.told[held]))
    print(f"named first {first:.3f}, among the first three {three:.3f}", flush=True)


def named(why: Why, shown: Distorted) -> list[float]:
    """The shares of strong distortions that are named first, and among the first three."""
    strong = shown.told[:, 2] >= STRONG
    places = np.argsort(-why.judge(shown.x[strong])[0], axis=1)
    pairs = list(zip(shown.told[strong, 1], places, strict=True))
    return [float(np.mean([kind in row[:count] for kind, row in pairs])) for count in (1, 3)]


def fit_all(told: Opinions, falls: Distorted) -> tuple[Fit, Hidden, np.ndarray, Spread]:
    """Ridge and layer on all opinions, the layer with the shifts of both; every opinion predicted by fits without its family,
    and the spread about those."""
    x, y = told.x, told.y
    every = np.ones(len(y), bool)
    fit = ridge(told, every, falls)
    trusted = trust(told, every, fit)
    hidden = layer(told, every, falls, trusted).with_shifts(fit.shifts)
    fold = np.random.default_rng(0).permutation(told.family.max() + 1)[told.family] % FOLDS
    held_out, likeness = np.empty(len(y)), np.empty((len(y), len(fit.shifts)))
    for number in range(FOLDS):
        rows = fold == number
        apart = layer(told, ~rows, falls, trusted[~rows]).with_shifts(fit.shifts)
        held_out[rows], likeness[rows] = apart.judge(x[rows])
    held_out = together(fit.held_out, held_out)
    beside = layer_summaries(held_out, likeness)

    def spread_of(rows: np.ndarray) -> Spread:
        return fit_spread_beside(beside[rows], y[rows], width=x.shape[1], kinds=list(told.kinds[rows]))

    deviations = np.empty(len(y))
    for number in range(FOLDS):
        rows = fold == number
        deviations[rows] = spread_of(~rows).deviations(x[rows], beside[rows])
    off = np.abs(y - held_out)
    for kind in [None, *np.unique(told.kinds[told.own])]:
        rows = np.flatnonzero(told.own if kind is None else told.own & (told.kinds == kind))
        inside, rank = np.mean(off[rows] <= INSIDE * deviations[rows]), correlate(deviations[rows], off[rows]).srocc
        print(
            f"{kind or 'all'}: intervals hold {100 * inside:.1f} %, rank correlation of deviation with error {rank:.2f}"
        )
    return fit, hidden, held_out, spread_of(every)


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
    told, sets = read_opinions(network, options.scores, options.more)
    chosen = in_order(options.pristine)[: options.photographs]
    falls = features_of_distorted(Extractor(model, weights), chosen, options.kept)
    measure_splits(told, sets[0].images, falls)
    live = extract_all([network], read_scores(options.live), user_cache("features"))[0] if options.live else None
    measure_unseen(told, falls, live)
    fit, hidden, held_out, spread = fit_all(told, falls)
    Probe(
        coefficients=fit.coefficients, intercept=fit.intercept, alpha=fit.alpha, feature_name=NO_REFERENCE,
        model_hash=sets[0].model_hash, data_set=f"{options.name} ({len(told.y)} images)", score_low=0.0, score_high=1.0,
        higher_is_better=sets[0].images.higher_is_better, deviation=float(np.sqrt(np.mean((told.y - held_out) ** 2))),
        spread=spread, standing=Standing.of(held_out), hidden=hidden,
    ).save(options.out / PROBE)  # fmt: skip
    if not options.leave_why:
        fit_why(falls.rows(), told.x, model_hash=sets[0].model_hash).save(options.out / WHY)
    print(f"written: {options.out / PROBE}" + ("" if options.leave_why else f", {options.out / WHY}"))


if __name__ == "__main__":
    main()
