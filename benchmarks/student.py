"""A blind student against the same network that has labels alone, on BIQ2021: 100, 300 and 1,000 labels, with a teacher's phase
before them and without it.

  python benchmarks/student.py --scores biq2021/scores.csv --photographs PHOTOS --kept FOLDER [--rated live_part/scores.csv]

Teachers, of pairs of the bank: MS-SSIM; with --rated a zeng_kwong:small too, which learned from it and then those opinions.
One third of the images, by groups, is tested, in all repeats the same; a repeat has its own seed, teacher phase and labels.
Intervals are of paired differences, photographs of the test side and repeats both drawn again (Owen 2007, "pigeonhole").
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from frozen_maps import JUDGED, TAUGHT, Bank, Maps, System, kept, windows
from opinions import Rated, add_flags, by_measure, pair_maps

from contrique_jax.augment.masks import noisy
from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.evaluation.correlation import srocc
from contrique_jax.evaluation.splits import images_hash, short_hash
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.probe.problem import rows_by_group

LABELS = (100, 300, 1000)
PHOTOGRAPHS = (
    120  # of which the bank makes pairs, those of opinions.py; a multiple of 5, so that files of maps are whole
)
OF_IMAGE, OF_PAIR = 3, 2  # windows to learn from, each under noise of its own
MEASURE, TRAINED, ALONE, LONGER = "MS-SSIM", "zeng_kwong", "labels alone", "labels alone, longer"
RESAMPLES = 1000


class Noise:
    """The student's, on windows that its own config asks for."""

    def __init__(self, system: System):
        data = system.config.data
        noise = functools.partial(noisy, turned=data.turns, cut=data.cutout, gridded=data.grid_mask)
        self._noise = jax.jit(jax.vmap(noise))

    def __call__(self, crops: np.ndarray, number: int) -> np.ndarray:
        keys = jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(number), len(crops)))
        return np.asarray(self._noise(keys, crops.astype(np.float32)), np.uint8)


def sides(images: ScoredImages) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, in a random order, and to be tested on; a group is on one side."""
    generator = np.random.default_rng(0)
    names = generator.permutation(np.unique(images.groups))
    tested = np.isin(images.groups, names[: len(names) // 3])
    return generator.permutation(np.flatnonzero(~tested)), np.flatnonzero(tested)


def trained_teacher(bank: Bank, rated: ScoredImages, folder: Path) -> np.ndarray:
    """Its scores of the bank's pairs, higher is better."""
    system = System("zeng_kwong", folder)
    maps = pair_maps(system, bank)

    def of_trained() -> dict[str, Any]:
        beside = Rated(system, rated)
        variables = beside.taught(by_measure(system, bank, maps, 0), np.arange(len(rated)), 0)
        return {"scores": system.outputs(variables, *maps)}

    where = system.folder / f"teacher {short_hash([bank.name, len(bank), images_hash(rated), TAUGHT, JUDGED])}.npz"
    return kept(where, of_trained)["scores"]


def one_way(
    system: System, images: ScoredImages, maps: dict[str, Maps], told: np.ndarray | None, steps: int, repeat: int
) -> dict[str, np.ndarray]:
    """Outputs for the tested images with so many labels, after a teacher's phase on the scores `told` of the bank's pairs, and
    of that alone; or without one."""
    pool, _ = sides(images)
    place = np.argsort(np.argsort(pool))  # of an image of the pool among its maps, which are in the order of the csv
    start, found = system.fresh(repeat), {}
    if told is not None:
        start = system.trained(start, maps["pairs"], None, system.targets(told, True), TAUGHT, repeat)
        found["0"] = system.outputs(start, maps["tested"], None)
    for labels in LABELS:
        drawn = np.arange(repeat * labels, (repeat + 1) * labels) % len(pool)  # another part of the pool each time
        targets = system.targets(images.scores[pool[drawn]], images.higher_is_better)
        after = system.trained(start, maps["learned"], None, targets, steps, repeat, place[drawn])
        found[str(labels)] = system.outputs(after, maps["tested"], None)
    return found


def interval(first: np.ndarray, second: np.ndarray | None, scores: np.ndarray, groups: list[str]) -> tuple[float, ...]:
    """Mean SROCC over repeats of outputs [repeats, n], less that of `second` if there is one, and its 95 % interval."""

    def sroccs(rows: np.ndarray) -> np.ndarray:
        return np.array(
            [
                srocc(a[rows], scores[rows]) - (0 if second is None else srocc(second[i][rows], scores[rows]))
                for i, a in enumerate(first)
            ]
        )

    units = rows_by_group(np.unique(groups, return_inverse=True)[1])
    generator, means = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([units[i] for i in generator.integers(0, len(units), len(units))])
        means.append(sroccs(rows)[generator.integers(0, len(first), len(first))].mean())
    return (float(sroccs(np.arange(len(scores))).mean()), *map(float, np.quantile(means, (0.025, 0.975))))


def report(found: dict[tuple[str, str], np.ndarray], scores: np.ndarray, groups: list[str]) -> None:
    """A table, as docs/results.md has it."""
    print(f"| labels | way | SROCC | less {ALONE} | less {LONGER} | higher in |\n|---|---|---|---|---|---|")
    for (labels, way), outputs in sorted(found.items(), key=lambda item: int(item[0][0])):
        value, low, high = interval(outputs, None, scores, groups)
        less, wins = ["", ""], []
        for i, other in enumerate((ALONE, LONGER)):
            theirs = found.get((labels, other))
            if theirs is None or way == other or (way, other) == (ALONE, LONGER):
                continue
            less[i] = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval(outputs, theirs, scores, groups))
            ahead = [srocc(a, scores) > srocc(b, scores) for a, b in zip(outputs, theirs, strict=True)]
            wins.append(f"{sum(ahead)}")
        counted = f"{', '.join(wins)} of {len(outputs)}" if wins else ""
        print(f"| {labels} | {way} | {value:.3f} [{low:.3f}, {high:.3f}] | {less[0]} | {less[1]} | {counted} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", required=True, help="a csv of images and mos")
    parser.add_argument("--rated", help="a csv of images with references and dmos, for the trained teacher")
    add_flags(parser)
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    use_compilation_cache()
    images, bank = read_scores(flags.scores), Bank(flags.photographs, PHOTOGRAPHS, flags.kept)
    system = System("student", flags.kept)
    noise = Noise(system)
    pool, tested = sides(images)
    rows, name = np.sort(pool), f"{images.name} {images_hash(images)}"

    def learned(i: int) -> np.ndarray:
        return noise(windows(read(images.paths[rows[i]])[None], system.side, OF_IMAGE, [9, rows[i]], False)[0], rows[i])

    def untouched(i: int) -> np.ndarray:
        return windows(read(images.paths[tested[i]])[None], system.side, 0, [9, tested[i]], True)[0]

    def pairs(i: int) -> np.ndarray:
        return noise(windows(bank.pair(i)[:1], system.side, OF_PAIR, [10, i], False)[0], len(images) + i)

    maps = {
        "pairs": system.maps(f"{bank.name} noisy {OF_PAIR}", pairs, len(bank)),
        "tested": system.maps(f"{name} tested", untouched, len(tested)),
        "learned": system.maps(f"{name} learned {OF_IMAGE}", learned, len(rows)),
    }
    settings = [name, bank.name, len(bank), TAUGHT, JUDGED, OF_IMAGE, OF_PAIR, repr(system.config)]
    where = system.folder / f"repeats {short_hash(settings)}"
    ways: dict[str, tuple[np.ndarray | None, int]] = {ALONE: (None, JUDGED), MEASURE: (bank.scores, JUDGED)}
    ways[LONGER] = None, JUDGED + TAUGHT
    if flags.rated:
        ways[TRAINED] = (
            trained_teacher(bank, read_scores(flags.rated, reference_column="reference"), flags.kept),
            JUDGED,
        )
    scores, each = images.scores[tested], dict[tuple[str, str], list[np.ndarray]]()
    for way, (told, steps) in ways.items():
        for repeat in range(flags.repeats):
            made = kept(
                where / f"{repeat} {way}.npz",
                functools.partial(one_way, system, images, maps, told, steps, repeat),
            )
            for labels, outputs in made.items():
                each.setdefault((labels, way), []).append(outputs)
            print(repeat, way, {n: round(srocc(x, scores), 3) for n, x in made.items()}, flush=True)
    found = {key: np.stack(outputs) for key, outputs in each.items()}
    report(found, scores, [images.groups[i] for i in tested])


if __name__ == "__main__":
    main()
