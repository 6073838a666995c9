"""What a measure teaches a full-reference system before opinions do: a part of LIVE, one content left out at a time.

The network is that of configs/zeng_kwong.py:small, its loss, optimiser and schedule too. Its trunk is frozen, so the maps of a
fixed number of windows are computed once, in place of new windows each step.

  python benchmarks/opinions.py --scores live_part/scores.csv --photographs PHOTOS
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

from contrique_jax.data.bank_pairs import PAIRS, BankPairs
from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.ms_ssim import LUMA, ms_ssim
from contrique_jax.data.sources import open_source
from contrique_jax.evaluation.correlation import srocc
from contrique_jax.evaluation.intervals import bootstrap_difference, bootstrap_intervals
from contrique_jax.networks import encoder, token_mixer
from contrique_jax.networks.trunk import load_trunk
from contrique_jax.recipes.opinions.rows import crop
from contrique_jax.recipes.opinions.scale import fitted
from contrique_jax.recipes.zeng_kwong import recipe as two_mode
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig, TwoModeModel
from contrique_jax.training import optim

SIDE, BATCH, PHOTOGRAPHS, SEEDS = 224, 16, 120, 3
TAUGHT, JUDGED = 600, 300  # steps on a teacher's scores, and on opinions
TOGETHER = 32  # windows that are judged at once
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


def windows(path: Any) -> list[np.ndarray]:
    """Four corners of an image, and the same mirrored."""
    four = [crop(read(path)[None], np.array(corner), SIDE)[0] for corner in CORNERS]
    return four + [x[:, ::-1] for x in four]


def bank(photographs: str) -> tuple[np.ndarray, np.ndarray]:
    """Windows of pairs [n, 2, s, s, 3], distorted and as it was, and MS-SSIM's scores of them."""
    source = BankPairs(open_source(photographs, role="pristine", field="--photographs"), 0)
    chosen = np.random.default_rng(0).permutation(len(source) // PAIRS)[:PHOTOGRAPHS]
    crops, scores = [], []
    for i in tqdm([PAIRS * int(p) + k for p in chosen for k in range(PAIRS)], desc="pairs"):
        crops.append(source.load(i)[:, 16 : 16 + SIDE, 16 : 16 + SIDE])
        scores.append(ms_ssim(crops[-1][:1], crops[-1][1:])[0])
    return np.stack(crops), np.array(scores)


@functools.cache
def step_of(steps: int) -> tuple[Any, Any]:
    """The optimiser, and a compiled step: (params, its state, maps, the references', targets, keys) -> (params, state)."""
    config, variables = small(0)
    rule, widths = (
        optim.optimiser(config.optim, steps, two_mode.decays(config, variables)),
        config.model.widths,
    )

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


def trained(params: Any, views: np.ndarray, targets: np.ndarray, steps: int, own: Any, theirs: Any, seed: int) -> Any:
    """Parameters after so many steps. `views` [n, w]: rows in the maps `own` of each image's windows; a step draws one;
    `theirs`: maps of the references' windows, if there are any."""
    rule, step = step_of(steps)
    state, generator = rule.init(params), np.random.default_rng(seed)
    for number in range(steps):
        rows = generator.choice(len(views), BATCH, replace=len(views) < BATCH)
        seen = views[rows, generator.integers(0, views.shape[1], BATCH)]
        maps, reference = (None if x is None else tuple(part[seen] for part in x) for x in (own, theirs))
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, state = step(params, state, maps, reference, targets[rows].astype(np.float32), key)
    return params


@functools.cache
def judge_of() -> Any:
    """Compiled: (params, maps, the references') -> outputs."""
    widths = small(0)[0].model.widths

    @jax.jit
    def judge(params: Any, maps: Any, reference: Any) -> Any:
        found = token_mixer.judge(widths, {"params": params}, maps, reference)
        return found.alone if found.beside is None else found.beside

    return judge


def outputs(params: Any, views: np.ndarray, own: Any, theirs: Any) -> np.ndarray:
    """Means over an image's windows."""
    rows = views.reshape(-1)
    full = np.resize(rows, -(-len(rows) // TOGETHER) * TOGETHER)  # one shape for all
    found = []
    for at in range(0, len(full), TOGETHER):
        seen = full[at : at + TOGETHER]
        maps, reference = (None if x is None else tuple(part[seen] for part in x) for x in (own, theirs))
        found.append(np.asarray(judge_of()(params, maps, reference)))
    return np.concatenate(found)[: len(rows)].reshape(views.shape).mean(1)


def small(seed: int) -> tuple[TwoModeConfig, Any]:
    """Config and fresh variables."""
    config = TwoModeConfig(model=TwoModeModel(**SMALL))
    config.optim.learning_rate = 1e-3
    return config, two_mode.init(config, seed)


def live(csv: str, photographs: str) -> None:
    images = read_scores(csv, reference_column="reference")
    trunk, contents = Trunk(), np.array(images.groups)
    files = [*images.paths, *dict.fromkeys(images.references or [])]
    maps = trunk.maps((x for f in files for x in windows(f)), 8 * len(files), "windows of LIVE")
    at = {file: i for i, file in enumerate(files)}
    order = {"own": images.paths, "theirs": images.references}
    index = {k: np.concatenate([8 * at[f] + np.arange(8) for f in v or []]) for k, v in order.items()}
    own, theirs = (tuple(part[index[k]] for part in maps) for k in ("own", "theirs"))
    views = np.arange(8 * len(images)).reshape(-1, 8)
    pairs, told = bank(photographs)
    taught = [trunk.maps(iter(pairs[:, k]), len(pairs), "pairs") for k in (0, 1)]
    line = fitted(told, True, "min-max", "bank")
    quality = -images.scores
    results: dict[str, np.ndarray] = {
        name: found for name, found in zip(("PSNR", "SSIM", "MS-SSIM"), measures(images), strict=True)
    }
    sums: dict[str, list[np.ndarray]] = {"opinions alone": [], "measure alone": [], "measure, then opinions": []}
    for seed in range(SEEDS):
        fresh = small(seed)[1]["params"]
        each_one = np.arange(len(pairs))[:, None]
        first = trained(fresh, each_one, line.targets(told), TAUGHT, *taught, seed)
        sums["measure alone"].append(outputs(first, views[:, :4], own, theirs))
        for name, start in (("opinions alone", fresh), ("measure, then opinions", first)):
            held_out = np.zeros(len(images))
            for content in np.unique(contents):
                rows = contents != content
                targets = fitted(images.scores[rows], False, "min-max", "LIVE").targets(images.scores[rows])
                found = trained(start, views[rows], targets, JUDGED, own, theirs, seed)
                held_out[~rows] = outputs(found, views[~rows, :4], own, theirs)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", required=True, help="a csv of images with references, groups and dmos")
    parser.add_argument("--photographs", required=True, help="a folder of clean photographs")
    flags = parser.parse_args()
    live(flags.scores, flags.photographs)


if __name__ == "__main__":
    main()
