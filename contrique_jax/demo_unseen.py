"""The demo's measure: severity and kind of distortions on scenes that no network has seen, by ridges on frozen features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, UInt8

from contrique_jax.config import TrainConfig
from contrique_jax.evaluation.correlation import rank_correlations
from contrique_jax.evaluation.protocol import make_splits
from contrique_jax.recipes.contrique_head.config import HeadConfig, HeadData

HEIGHT, WIDTH = 192, 256
SEED = 1_000_003  # no run of the demo trains on these scenes
ALPHAS = (1e-3, 1e-2, 1e-1, 1.0)  # of the mean square of a row
TOLD = 3  # the level from which a kind has to be told


class Unseen(NamedTuple):
    """Scenes under a draw of distortions and levels each."""

    images: UInt8[np.ndarray, "n h w 3"]
    severity: Float[np.ndarray, " n"]  # 0 untouched .. 5 worst
    kinds: Int[np.ndarray, " n"]  # 1..25
    levels: Int[np.ndarray, " n"]
    scenes: list[str]


def get_config() -> HeadConfig:
    """The demo's training: a head on the embedded network, on small procedural scenes; a minute on two cores."""
    data = HeadData(
        pristine="scenes:100", authentic="scenes:100", batch_size=256, height=HEIGHT, width=WIDTH, view_size=96
    )
    return HeadConfig(data=data, train=TrainConfig(epochs=30, checkpoint_every=100, log_every=20))


def unseen(scenes: int, each: int) -> Unseen:
    import jax

    from contrique_jax.data.scenes import pristine_scene
    from contrique_jax.distort import bank

    distort = jax.jit(bank.distort)
    classes = [(kind, level) for kind in bank.TYPES for level in range(1, bank.NUM_LEVELS + 1)]
    images, told, names = [], [], []
    for number in range(scenes):
        scene = pristine_scene(SEED, number, HEIGHT, WIDTH)
        drawn = np.random.default_rng([SEED, number]).choice(len(classes), each, replace=False)
        for kind, level in (classes[i] for i in drawn):
            key = np.array([number, bank.class_id(kind, level)], np.uint32)
            images.append(np.asarray(distort(key, scene, bank.class_id(kind, level))))
            told.append((bank.get(kind).severity[level - 1], kind, level))
            names.append(str(number))
    severity, kinds, levels = (np.array(part) for part in zip(*told, strict=True))
    return Unseen(np.stack(images), severity.astype(float), kinds, levels, names)


def sharpness_and_noise(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 8"]:
    """What a careful person would measure by hand: gradients, Laplacian, noise, contrast, brightness, colour, blocks."""
    from scipy import ndimage

    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])  # Immerkaer's noise estimate: blind to edges and ramps
    rows = []
    for image in images:
        grey = image.mean(axis=2)
        across, down = ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=0)
        edges = np.hypot(across, down)
        rows.append(
            [
                np.log1p(ndimage.laplace(grey).var()),
                np.log1p(edges.mean()),
                np.log1p(np.percentile(edges, 99)),
                np.log1p(np.abs(ndimage.convolve(grey, kernel)).mean()),
                grey.std(),
                grey.mean(),
                image.std(axis=2).mean(),
                np.log1p(np.abs(np.diff(grey, axis=1))[:, 7::8].mean() / (np.abs(np.diff(grey, axis=1)).mean() + 1e-6)),
            ]
        )
    return np.array(rows)


def measured(features: Float[np.ndarray, "n d"], told: Unseen, splits: int, seed: int = 0) -> dict[str, float]:
    """Means over splits of "severity" and "kind", the columns of `by_split`."""
    return dict(zip(("severity", "kind"), by_split(features, told, splits, seed).mean(axis=0).tolist(), strict=True))


def by_split(
    features: Float[np.ndarray, "n d"], told: Unseen, splits: int, seed: int = 0
) -> Float[np.ndarray, "splits 2"]:
    """Of each split by scene (70 fitted, 10 for the penalty, 20 tested) the SROCC of severity within a kind, mean of the
    kinds, and the share of images from level 3 on whose kind of 25 is named right. One ridge gives both."""
    found = []
    targets = np.column_stack([told.severity, np.eye(told.kinds.max())[told.kinds - 1]])
    for split in make_splits(told.scenes, splits, seed):
        mean, deviation = features[split.train].mean(axis=0), np.maximum(features[split.train].std(axis=0), 1e-6)
        x = (features - mean) / deviation / np.sqrt(features.shape[1])
        gram, centre = x[split.train] @ x[split.train].T, targets[split.train].mean(axis=0)
        answers = []
        for alpha in ALPHAS:
            damped = gram + alpha * np.trace(gram) / len(gram) * np.eye(len(gram))
            dual = scipy.linalg.solve(damped, targets[split.train] - centre, assume_a="pos")
            answers.append(x @ (x[split.train].T @ dual) + centre)
        best = [
            max(answers, key=lambda answer, measure=measure: measure(answer, told, split.validation))  # type: ignore[misc]
            for measure in (_severity, _kind)
        ]
        found.append([_severity(best[0], told, split.test), _kind(best[1], told, split.test)])
    return np.array(found)


def _severity(answer: Float[np.ndarray, "n t"], told: Unseen, rows: Int[np.ndarray, " m"]) -> float:
    ranks = []
    for kind in np.unique(told.kinds[rows]):
        own = rows[told.kinds[rows] == kind]
        if len(np.unique(told.severity[own])) > 1 and len(own) > 2:
            ranks.append(rank_correlations(answer[None, own, 0], told.severity[own])[0])
    return float(np.nanmean(ranks)) if ranks else float("nan")


def _kind(answer: Float[np.ndarray, "n t"], told: Unseen, rows: Int[np.ndarray, " m"]) -> float:
    strong = rows[told.levels[rows] >= TOLD]
    return float(np.mean(np.argmax(answer[strong, 1:], axis=1) + 1 == told.kinds[strong]))
