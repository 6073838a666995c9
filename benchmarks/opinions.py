"""Full-reference systems on a part of LIVE, one content left out at a time: what opinions give, and a measure before them.

  python benchmarks/opinions.py --scores live_part/scores.csv --photographs PHOTOS --kept FOLDER

For each system three ways: a run on opinions of the other contents; one on MS-SSIM's scores of pairs of the bank alone; and
that one, then opinions. FOLDER may grow to 3 GB; what is in it is not computed again.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dm_pix
import jax.numpy as jnp
import numpy as np
from frozen_maps import JUDGED, TAUGHT, Bank, Maps, System, kept, kept_tree, windows

from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.data.ms_ssim import LUMA, ms_ssim
from contrique_jax.evaluation.correlation import srocc
from contrique_jax.evaluation.intervals import bootstrap_difference, bootstrap_intervals
from contrique_jax.evaluation.splits import images_hash, short_hash
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.recipes.recipe import Variables

SYSTEMS = ("zeng_kwong", "conformer", "ahiq")
PHOTOGRAPHS = 120  # of which the bank makes pairs; a multiple of 5, so that files of maps are whole
OF_IMAGE, OF_PAIR = 8, 2  # windows to learn from, of a rated image and of a pair of the bank
OPINIONS, MEASURE, BOTH = "opinions alone", "MS-SSIM's scores alone, no opinion", "MS-SSIM's scores, then opinions"


class Rated:
    """Rated images beside their references, as maps of a system's frozen network."""

    def __init__(self, system: System, images: ScoredImages):
        self.system, self.images, self.quality = system, images, images.scores * (1 if images.higher_is_better else -1)
        references, side = images.references or [], system.side

        def both(i: int) -> np.ndarray:
            pair = np.stack([read(images.paths[i]), read(references[i])])
            return np.concatenate(windows(pair, side, OF_IMAGE, [7, i], True))

        maps = halved(system.maps(f"{images.name} {images_hash(images)} {OF_IMAGE}", both, len(images)))
        self.learned = [tuple(x[:, :OF_IMAGE] for x in part) for part in maps]
        self.tested = [tuple(x[:, OF_IMAGE:] for x in part) for part in maps]

    def taught(self, start: Variables, rows: np.ndarray, seed: int, steps: int = JUDGED) -> Variables:
        """A run on the opinions of these rows."""
        targets = self.system.targets(self.images.scores[rows], self.images.higher_is_better)
        return self.system.trained(start, *self.learned, targets, steps, seed, rows)

    def outputs(self, variables: Variables, rows: np.ndarray | None = None) -> np.ndarray:
        return self.system.outputs(variables, *self.tested, rows)


def halved(maps: Maps) -> tuple[Maps, Maps]:
    """Windows of images and, after them, of their references."""
    width = maps[0].shape[1] // 2
    return tuple(x[:, :width] for x in maps), tuple(x[:, width:] for x in maps)


def pair_maps(system: System, bank: Bank) -> tuple[Maps, Maps]:
    def both(i: int) -> np.ndarray:
        return np.concatenate(windows(bank.pair(i), system.side, OF_PAIR, [8, i], False))

    return halved(system.maps(f"{bank.name} {OF_PAIR}", both, len(bank)))


def by_measure(system: System, bank: Bank, maps: tuple[Maps, Maps], seed: int, steps: int = TAUGHT) -> Variables:
    """A run on MS-SSIM's scores of the bank's pairs."""
    return system.trained(system.fresh(seed), *maps, system.targets(bank.scores, True), steps, seed)


def three_ways(
    system: System, images: ScoredImages, bank: Bank, seeds: int, steps: tuple[int, int]
) -> dict[str, list[np.ndarray]]:
    """Outputs for all images by each way, of each seed; by a network that has not seen an image's content. `steps`: on the
    measure's scores, and on opinions."""
    rated = Rated(system, images)
    maps = pair_maps(system, bank)
    contents, found = np.array(images.groups), dict[str, list[np.ndarray]]()
    settings = [bank.name, len(bank), images_hash(images), steps, OF_IMAGE, OF_PAIR, repr(system.config)]
    where = system.folder / f"contents left out {short_hash(settings)}"

    def left_out(start: Variables, seed: int, kind: str) -> np.ndarray:
        outputs = np.zeros(len(images))
        for number, content in enumerate(np.unique(contents)):

            def judged(content: str = content) -> dict[str, Any]:
                variables = rated.taught(start, np.flatnonzero(contents != content), seed, steps[1])
                return {"outputs": rated.outputs(variables, np.flatnonzero(contents == content))}

            outputs[contents == content] = kept(where / f"{seed} {kind} {number}.npz", judged)["outputs"]
        return outputs

    for seed in range(seeds):
        fresh = system.fresh(seed)
        first = functools.partial(by_measure, system, bank, maps, seed, steps[0])
        taught = kept_tree(where / f"{seed} taught.npz", first, fresh)
        each = {
            OPINIONS: left_out(fresh, seed, "fresh"),
            MEASURE: rated.outputs(taught),
            BOTH: left_out(taught, seed, "both"),
        }
        for way, outputs in each.items():
            found.setdefault(way, []).append(outputs)
        print(system.name, seed, {w: round(srocc(x, rated.quality), 3) for w, x in each.items()}, flush=True)
    return found


def measures(images: ScoredImages) -> dict[str, np.ndarray]:
    """PSNR and SSIM of brightness, and MS-SSIM in decibels, of whole images."""
    found = []
    for path, reference in zip(images.paths, images.references or [], strict=True):
        a, b = read(path), read(reference)
        luma = [(x.astype(np.float32) @ LUMA)[..., None] / 255 for x in (a, b)]
        psnr, ssim = (float(f(*map(jnp.asarray, luma))) for f in (dm_pix.psnr, dm_pix.ssim))
        found.append((psnr, ssim, ms_ssim(a[None], b[None])[0]))
    return dict(zip(("PSNR", "SSIM", "MS-SSIM"), np.array(found).T, strict=True))


def report(images: ScoredImages, of_measures: Mapping[str, np.ndarray], of_systems: Mapping[str, Any]) -> None:
    """A table of all, as docs/results.md has it."""
    quality = images.scores * (1 if images.higher_is_better else -1)
    groups, contents = images.groups, np.array(images.groups)
    seeds = {f"{system}, {way}": outputs for system, ways in of_systems.items() for way, outputs in ways.items()}
    print(
        "| judge | SROCC | mean within a content | less SSIM | less MS-SSIM | single seeds |\n|---|---|---|---|---|---|"
    )
    for name, found in {**of_measures, **{name: np.mean(each, axis=0) for name, each in seeds.items()}}.items():
        interval = bootstrap_intervals(found, quality, groups=groups)["srocc"]
        within = np.mean([srocc(found[contents == c], quality[contents == c]) for c in np.unique(contents)])
        less = [
            "" if name == other else _signed(bootstrap_difference(found, of_measures[other], quality, groups=groups))
            for other in ("SSIM", "MS-SSIM")
        ]
        singles = ", ".join(f"{srocc(x, quality):.3f}" for x in seeds.get(name, []))
        span = f"[{interval.low:.3f}, {interval.high:.3f}]"
        print(f"| {name} | {interval.value:.3f} {span} | {within:.3f} | {less[0]} | {less[1]} | {singles} |")


def _signed(found: Any) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--photographs", required=True, help="a folder of clean photographs")
    parser.add_argument("--kept", required=True, type=Path, help="a folder for pairs, maps and results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", required=True, help="a csv of images with references, groups and dmos")
    add_flags(parser)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(TAUGHT, JUDGED), help="on MS-SSIM's scores, and on opinions"
    )
    parser.add_argument("--average", type=float, help="config.train.average; default: that of each config")
    flags = parser.parse_args()
    use_compilation_cache()
    images = read_scores(flags.scores, reference_column="reference")
    bank = Bank(flags.photographs, PHOTOGRAPHS, flags.kept)
    found = {}
    of_measures = kept(flags.kept / f"measures of {images.name}.npz", functools.partial(measures, images))
    for name in flags.systems:
        system = System(name, flags.kept, [] if flags.average is None else [f"--config.train.average={flags.average}"])
        found[name] = three_ways(system, images, bank, flags.seeds, tuple(flags.steps))
        report(images, of_measures, found)


if __name__ == "__main__":
    main()
