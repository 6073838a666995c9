"""What a measure teaches systems trained on opinions: a full-reference one on a part of LIVE, contents left out; a blind
student on BIQ2021, with few labels.

The networks are those of configs/zeng_kwong.py:small and configs/student.py:small, their losses, optimiser and schedule too.
Their trunk is frozen, so the maps of a fixed number of windows are computed once, in place of new windows each step.

  python benchmarks/opinions.py live live_part/scores.csv --photographs PHOTOS
  python benchmarks/opinions.py student biq2021/scores.csv --photographs PHOTOS
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from contrique_jax.augment.masks import noisy
from contrique_jax.data.bank_pairs import BankPairs
from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.ms_ssim import LUMA, ms_ssim
from contrique_jax.data.sources import open_source
from contrique_jax.evaluation.correlation import srocc
from contrique_jax.evaluation.intervals import bootstrap_difference, bootstrap_intervals, compare_over_splits
from contrique_jax.networks import encoder, token_mixer
from contrique_jax.networks.trunk import load_trunk
from contrique_jax.recipes.opinions.rows import crop
from contrique_jax.recipes.opinions.scale import fitted
from contrique_jax.recipes.student import recipe as student
from contrique_jax.recipes.student.config import StudentConfig, StudentModel
from contrique_jax.recipes.zeng_kwong import recipe as two_mode
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig, TwoModeModel
from contrique_jax.training import optim

SIDE, BATCH, PHOTOGRAPHS, SEEDS, REPEATS = 224, 16, 120, 3, 3
TAUGHT, JUDGED = 600, 300  # steps on a teacher's scores, and on opinions
TOGETHER = 32  # windows that are judged at once
RECIPES: dict[str, Any] = {"zeng_kwong": two_mode, "student": student}
SMALL = {"width": 64, "depth": 1, "heads": 4, "hidden": 128, "crop_count": 4}
CORNERS = [(0.0, 0.0), (0.0, 0.999), (0.999, 0.0), (0.999, 0.999)]  # of a grid of 2 x 2


class Trunk:
    """The maps of crops by the network inside the package."""

    def __init__(self) -> None:
        self.model = TwoModeModel(**SMALL).of_trunk
        self.weights = load_trunk(TwoModeModel(**SMALL))
        self.run = jax.jit(functools.partial(encoder.last_two_maps, self.model))

    def maps(self, crops: Any, count: int, said: str) -> tuple[np.ndarray, np.ndarray]:
        """Of an iterable of uint8 [s, s, 3]; in float16."""
        found, waiting = [], []
        for i, each in enumerate(tqdm(crops, total=count, desc=said)):
            waiting.append(each)
            if len(waiting) == BATCH or i == count - 1:
                full = np.stack(waiting + waiting[:1] * (BATCH - len(waiting)))
                found.append([np.asarray(x[: len(waiting)], np.float16) for x in self.run(self.weights, full)])
                waiting = []
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def windows(path: Any, mirrored: bool) -> list[np.ndarray]:
    """Four corners of an image, and the same mirrored."""
    four = [crop(read(path)[None], np.array(corner), SIDE)[0] for corner in CORNERS]
    return four + [x[:, ::-1] for x in four] * mirrored


def bank(photographs: str, with_noise: bool) -> tuple[np.ndarray, np.ndarray]:
    """Windows of pairs [n, 2 or 4, s, s, 3]: distorted, as it was, the distorted one twice under noise; MS-SSIM's scores."""
    source = BankPairs(open_source(photographs, role="pristine", field="--photographs"), 0)
    chosen = np.random.default_rng(0).permutation(len(source) // 8)[:PHOTOGRAPHS]
    one = jax.jit(functools.partial(noisy, turned=True, cut=0.25, gridded=0.25))
    crops, scores = [], []
    for i in tqdm([8 * int(p) + k for p in chosen for k in range(8)], desc="pairs"):
        pair = source.load(i)[:, 16 : 16 + SIDE, 16 : 16 + SIDE]
        scores.append(ms_ssim(pair[:1], pair[1:])[0])
        more = []
        if with_noise:
            keys = np.array([[0, 2 * i], [0, 2 * i + 1]], np.uint32)
            more = [np.asarray(one(key, pair[0].astype(np.float32)), np.uint8) for key in keys]
        crops.append(np.stack([*pair, *more]))
    return np.stack(crops), np.array(scores)


@functools.cache
def step_of(name: str, steps: int) -> tuple[Any, Any]:
    """The optimiser, and a compiled step: (params, its state, maps, the references', targets, keys) -> (params, state)."""
    recipe, (config, variables) = RECIPES[name], small(name, 0)
    rule, widths = optim.optimiser(config.optim, steps, recipe.decays(config, variables)), recipe._widths(config.model)

    def loss(params: Any, maps: Any, reference: Any, target: Any, keys: Any) -> Any:
        found = token_mixer.judge(widths, {"params": params}, maps, reference, keys)
        alone = jnp.mean(jnp.abs(found.alone - target))
        return alone if reference is None else (alone + jnp.mean(jnp.abs(found.beside - target))) / 2

    @jax.jit
    def step(params: Any, state: Any, maps: Any, reference: Any, target: Any, key: Any) -> Any:
        keys = jax.vmap(jax.random.key_data)(jax.random.split(key, BATCH))
        updates, state = rule.update(jax.grad(loss)(params, maps, reference, target, keys), state, params)
        return optax.apply_updates(params, updates), state

    return rule, step


def trained(
    name: str, params: Any, views: np.ndarray, targets: np.ndarray, steps: int, own: Any, theirs: Any, seed: int
) -> Any:
    """Parameters after so many steps. `views` [n, w]: rows in the maps `own` of each image's windows; a step draws one;
    `theirs`: maps of the references' windows, if there are any."""
    rule, step = step_of(name, steps)
    state, generator = rule.init(params), np.random.default_rng(seed)
    for number in range(steps):
        rows = generator.choice(len(views), BATCH, replace=len(views) < BATCH)
        seen = views[rows, generator.integers(0, views.shape[1], BATCH)]
        maps, reference = (None if x is None else tuple(part[seen] for part in x) for x in (own, theirs))
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, state = step(params, state, maps, reference, targets[rows].astype(np.float32), key)
    return params


@functools.cache
def judge_of(name: str) -> Any:
    """Compiled: (params, maps, the references') -> outputs."""
    widths = RECIPES[name]._widths(small(name, 0)[0].model)

    @jax.jit
    def judge(params: Any, maps: Any, reference: Any) -> Any:
        found = token_mixer.judge(widths, {"params": params}, maps, reference)
        return found.alone if found.beside is None else found.beside

    return judge


def outputs(name: str, params: Any, views: np.ndarray, own: Any, theirs: Any) -> np.ndarray:
    """Means over an image's windows."""
    rows = views.reshape(-1)
    full = np.resize(rows, -(-len(rows) // TOGETHER) * TOGETHER)  # one shape for all
    found = []
    for at in range(0, len(full), TOGETHER):
        seen = full[at : at + TOGETHER]
        maps, reference = (None if x is None else tuple(part[seen] for part in x) for x in (own, theirs))
        found.append(np.asarray(judge_of(name)(params, maps, reference)))
    return np.concatenate(found)[: len(rows)].reshape(views.shape).mean(1)


def small(name: str, seed: int) -> tuple[Any, Any]:
    """Config and fresh variables."""
    config = (
        TwoModeConfig(model=TwoModeModel(**SMALL))
        if name == "zeng_kwong"
        else StudentConfig(model=StudentModel(**SMALL))
    )
    config.optim.learning_rate = 1e-3
    return config, RECIPES[name].init(config, seed)


def live(csv: str, photographs: str) -> None:
    images = read_scores(csv, reference_column="reference")
    trunk, contents = Trunk(), np.array(images.groups)
    files = [*images.paths, *dict.fromkeys(images.references or [])]
    maps = trunk.maps((x for f in files for x in windows(f, True)), 8 * len(files), "windows of LIVE")
    at = {file: i for i, file in enumerate(files)}
    order = {"own": images.paths, "theirs": images.references}
    index = {k: np.concatenate([8 * at[f] + np.arange(8) for f in v or []]) for k, v in order.items()}
    own, theirs = (tuple(part[index[k]] for part in maps) for k in ("own", "theirs"))
    views = np.arange(8 * len(images)).reshape(-1, 8)
    pairs, told = bank(photographs, with_noise=False)
    taught = [trunk.maps(iter(pairs[:, k]), len(pairs), "pairs") for k in (0, 1)]
    line = fitted(told, True, "min-max", "bank")
    quality = -images.scores
    results: dict[str, np.ndarray] = {
        name: found for name, found in zip(("PSNR", "SSIM", "MS-SSIM"), measures(images), strict=True)
    }
    sums: dict[str, list[np.ndarray]] = {"opinions alone": [], "measure alone": [], "measure, then opinions": []}
    for seed in range(SEEDS):
        fresh = small("zeng_kwong", seed)[1]["params"]
        each_one = np.arange(len(pairs))[:, None]
        first = trained("zeng_kwong", fresh, each_one, line.targets(told), TAUGHT, *taught, seed)
        sums["measure alone"].append(outputs("zeng_kwong", first, views[:, :4], own, theirs))
        for name, start in (("opinions alone", fresh), ("measure, then opinions", first)):
            held_out = np.zeros(len(images))
            for content in np.unique(contents):
                rows = contents != content
                targets = fitted(images.scores[rows], False, "min-max", "LIVE").targets(images.scores[rows])
                found = trained("zeng_kwong", start, views[rows], targets, JUDGED, own, theirs, seed)
                held_out[~rows] = outputs("zeng_kwong", found, views[~rows, :4], own, theirs)
            sums[name].append(held_out)
        print(seed, {name: round(srocc(each[-1], quality), 3) for name, each in sums.items()}, flush=True)
    results |= {name: np.mean(each, axis=0) for name, each in sums.items()}
    groups = list(contents)
    for name, found in results.items():
        interval = bootstrap_intervals(found, quality, groups=groups)["srocc"]
        apart = bootstrap_difference(found, results["SSIM"], quality, groups=groups)
        within = np.mean([srocc(found[contents == c], quality[contents == c]) for c in np.unique(contents)])
        seeds = "" if name not in sums else ", single seeds " + " ".join(f"{srocc(x, quality):.3f}" for x in sums[name])
        print(
            f"{name}: SROCC {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}], mean within contents {within:.3f}, "
            f"less SSIM {apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]{seeds}"
        )


def measures(images: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PSNR and SSIM of brightness, and MS-SSIM in decibels, of whole images."""
    found = []
    for path, reference in zip(images.paths, images.references, strict=True):
        a, b = read(path), read(reference)
        luma = [(x.astype(np.float32) @ LUMA)[..., None] / 255 for x in (a, b)]
        psnr, ssim = (float(f(*map(jnp.asarray, luma))) for f in (dm_pix.psnr, dm_pix.ssim))
        found.append((psnr, ssim, ms_ssim(a[None], b[None])[0]))
    return tuple(np.array(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def blind(csv: str, photographs: str) -> None:
    images, trunk = read_scores(csv), Trunk()
    kept = np.sort(np.random.default_rng(1).permutation(len(images))[:1400])
    images = images.subset(kept)
    own = trunk.maps((x for f in images.paths for x in windows(f, False)), 4 * len(images), "windows of BIQ2021")
    views = np.arange(4 * len(images)).reshape(-1, 4)
    pairs, told = bank(photographs, with_noise=True)
    taught = trunk.maps((x for pair in pairs for x in pair[[0, 2, 3]]), 3 * len(pairs), "pairs")
    line = fitted(told, True, "min-max", "bank")
    groups = np.array(images.groups)
    found: dict[tuple[int, str], list[float]] = {}
    for repeat in range(REPEATS):
        fresh = small("student", repeat)[1]["params"]
        shown = np.arange(3 * len(pairs)).reshape(-1, 3)
        first = trained("student", fresh, shown, line.targets(told), TAUGHT, taught, None, repeat)
        names = np.random.default_rng(repeat).permutation(np.unique(groups))
        place = {name: i for i, name in enumerate(names)}
        order = np.argsort([place[g] for g in groups], kind="stable")
        train, test = order[:1000], order[1000:]
        test = test[~np.isin(groups[test], groups[train])]

        def on_test(params: Any, test: np.ndarray = test) -> float:
            return srocc(outputs("student", params, views[test], own, None), images.scores[test])

        found.setdefault((0, "taught"), []).append(on_test(first))
        for labels in (100, 300, 1000):
            rows = train[:labels]
            targets = fitted(images.scores[rows], True, "min-max", "BIQ2021").targets(images.scores[rows])
            ways = (
                ("taught", first, JUDGED),
                ("label-only", fresh, JUDGED),
                ("label-only, longer", fresh, JUDGED + TAUGHT),
            )
            for name, start, steps in ways:
                after = trained("student", start, views[rows], targets, steps, own, None, repeat)
                found.setdefault((labels, name), []).append(on_test(after))
        print({key: [round(x, 3) for x in each] for key, each in found.items()}, flush=True)
    for (labels, name), each in found.items():
        said = f"{labels} labels, {name}: mean SROCC {np.mean(each):.3f} of {len(each)} splits"
        if name.startswith("label-only"):
            apart = compare_over_splits(np.array(found[labels, "taught"]), np.array(each), 400 / labels)
            said += (
                f"; taught less this {apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}], higher in {apart.wins}"
            )
        print(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("live", "student"))
    parser.add_argument("scores", help="a csv of rated images")
    parser.add_argument("--photographs", required=True, help="a folder of clean photographs")
    flags = parser.parse_args()
    {"live": live, "student": blind}[flags.what](flags.scores, flags.photographs)


if __name__ == "__main__":
    main()
