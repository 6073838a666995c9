"""The main job on the embedded default, start to end: train on procedural scenes, probe, score, draw.

  make demo                             everything, into demo_out/
  contrique-jax demo --out demo_out     the same if contrique_jax[demo] is installed
  contrique-jax demo --short            every stage in about a minute, with too few steps to learn anything

The encoder learns kinds and degrees of distortion without being told about severity. A ridge on its frozen features then
predicts the severity (0 untouched .. 5 worst) of distorted scenes it has never seen, beside the same network with random
weights and beside a plain sharpness-and-noise baseline, on the same splits.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from contrique_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.errors import Parser, UserError, run_verb

if TYPE_CHECKING:
    from contrique_jax.evaluation.protocol import Evaluation
    from contrique_jax.inference.extractor import Extractor

HEIGHT, WIDTH = 192, 256
HELD_OUT_SEED = 1_000_003  # no run of the demo trains on these scenes


class Extent(NamedTuple):
    scenes: int
    distortions_each: int
    splits: int
    flags: tuple[str, ...] = ()  # of the training


# content varies more than quality: the ridge needs many scenes more than it needs every distortion of each
WHOLE = Extent(200, 10, 10)
SHORT = Extent(
    20, 25, 3, ("--config.train.steps=6", "--config.train.checkpoint_every=3", "--config.data.batch_size=16")
)


def get_config() -> Config:
    """A narrow ResNet-18 on small procedural scenes, a few minutes on two cores; this file is the run's --config."""
    return Config(
        data=DataConfig(
            pristine="scenes:300", authentic="scenes:300", batch_size=64, height=HEIGHT, width=WIDTH, view_size=64
        ),
        model=ModelConfig(encoder="resnet18", base_width=32, compute_dtype="float32"),
        optim=OptimConfig(learning_rate=0.04),
        train=TrainConfig(steps=240, checkpoint_every=120, log_every=20),
    )


def held_out(extent: Extent) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Scenes nobody trained on, each under a draw of distortions and levels.

    -> images [N, H, W, 3], severity [N], the scene and the distortion of each
    """
    import jax

    from contrique_jax.data.scenes import pristine_scene
    from contrique_jax.distort import bank

    distort = jax.jit(bank.distort)
    classes = [(kind, level) for kind in bank.TYPES for level in range(1, bank.NUM_LEVELS + 1)]
    images, severity, scenes, kinds = [], [], [], []
    for number in range(extent.scenes):
        scene = pristine_scene(HELD_OUT_SEED, number, HEIGHT, WIDTH)
        drawn = np.random.default_rng([HELD_OUT_SEED, number]).choice(
            len(classes), extent.distortions_each, replace=False
        )
        for kind, level in (classes[i] for i in drawn):
            row = bank.get(kind)
            key = np.array([number, bank.class_id(kind, level)], np.uint32)
            images.append(np.asarray(distort(key, scene, bank.class_id(kind, level))))
            severity.append(row.severity[level - 1])
            scenes.append(str(number))
            kinds.append(f"{kind:02d} {row.name}")
    return np.stack(images), np.array(severity, float), scenes, kinds


def sharpness_and_noise(images: np.ndarray) -> np.ndarray:
    """What a careful person would measure by hand -> [N, 8]: gradients, Laplacian, noise, contrast, brightness, colour."""
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
    features = np.array(rows)
    return (features - features.mean(axis=0)) / features.std(axis=0)


def print_table(evaluations: dict[str, Evaluation], kinds: list[str], splits: int) -> dict[str, dict[str, float]]:
    """Median SROCC over the splits, pooled and per distortion; -> the same numbers."""
    names = list(evaluations)
    numbers = {
        row: {name: float(np.nanmedian(evaluations[name].values("srocc", subset))) for name in names}
        for row, subset in [("all distortions", None), *((kind, kind) for kind in sorted(set(kinds)))]
    }
    mean = {name: float(np.mean([numbers[kind][name] for kind in set(kinds)])) for name in names}
    numbers = {"all distortions": numbers.pop("all distortions"), "mean of each": mean, **numbers}
    width = max(len(row) for row in numbers)
    print(f"\nSROCC of predicted severity, held-out scenes, median of {splits} splits by scene")
    print(" " * width + "".join(f"{name:>26}" for name in names))
    for row, values in numbers.items():
        print(row.ljust(width) + "".join(f"{values[name]:>26.3f}" for name in names))
    return numbers


def compare(
    run: Path, images: np.ndarray, severity: np.ndarray, scenes: list[str], kinds: list[str], splits: int
) -> tuple[dict[str, Evaluation], Extractor, np.ndarray]:
    """The protocol on the same splits for the trained network, random weights and the baseline.

    -> (name -> Evaluation, the trained network's Extractor, its features)
    """
    from contrique_jax.evaluation.protocol import evaluate_features, make_splits
    from contrique_jax.inference.extractor import Extractor
    from contrique_jax.training.load import load_network

    sides = make_splits(scenes, splits, seed=0)
    trained, untrained = Extractor(*load_network(str(run))), Extractor(*load_network(f"random:{run}"))
    features = {"trained": trained.features(list(images)), "random weights": untrained.features(list(images))}
    features["sharpness and noise"] = sharpness_and_noise(images)
    evaluations = {name: evaluate_features(values, severity, sides, kinds) for name, values in features.items()}
    return evaluations, trained, features["trained"]


def save_examples(
    out: Path,
    evaluation: Evaluation,
    extractor: Extractor,
    features: np.ndarray,
    images: np.ndarray,
    severity: np.ndarray,
    kinds: list[str],
) -> list[tuple[float, np.ndarray, str]]:
    """A probe fitted without the first split's test scenes, and some of those as files to score.

    -> [(score, image, caption)] of 18 of them, in order of score.
    """
    from PIL import Image

    from contrique_jax.probe import NO_REFERENCE, Probe, fit_ridge

    split = evaluation.results[0].split
    known = np.concatenate([split.train, split.validation])
    coefficients, intercepts = fit_ridge(features[known], severity[known], np.array([evaluation.alpha]))
    probe = Probe(
        coefficients=coefficients[0],
        intercept=float(intercepts[0]),
        alpha=evaluation.alpha,
        feature_name=NO_REFERENCE,
        model_hash=extractor.model_hash,
        data_set="severity of distorted procedural scenes",
        score_low=0.0,
        score_high=5.0,
        higher_is_better=False,
        deviation=evaluation.deviation,
    )
    probe.save(out / "probe.npz")
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    chosen = np.random.default_rng(0).choice(split.test, 18, replace=False)
    scores = probe.predict(features[chosen])
    for row in chosen[:6]:
        name = f"{row:04}_{kinds[row].replace(' ', '_')}_severity{severity[row]:.0f}.png"
        Image.fromarray(images[row]).save(folder / name)
    order = np.argsort(scores)
    return [(scores[i], images[chosen[i]], f"{kinds[chosen[i]]}, truly {severity[chosen[i]]:.0f}") for i in order]


def draw(
    path: Path, shown: list[tuple[float, np.ndarray, str]], losses: list[float], numbers: dict[str, dict[str, float]]
) -> None:
    """One picture: images in order of score, the loss curve, SROCC per distortion."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = plt.figure(figsize=(14, 10.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.25, 1])  # type: ignore[misc]
    top.suptitle("Held-out scenes in order of predicted severity (0 untouched .. 5 worst)", fontsize=13)
    for axes, (score, image, caption) in zip(top.subplots(3, 6).flat, shown, strict=True):
        axes.imshow(image)
        axes.set_title(f"{score:.1f}", fontsize=11, pad=3)
        axes.set_xlabel(caption, fontsize=8, labelpad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
    curve, bars = bottom.subplots(1, 2, gridspec_kw={"width_ratios": [1, 2]})
    curve.plot(np.arange(1, len(losses) + 1), losses, color="#c9d6e3", linewidth=1)
    window = max(len(losses) // 20, 1)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    curve.plot(np.arange(window, len(losses) + 1), smooth, color="#1f5f8b", linewidth=2)
    curve.set_title("Contrastive loss while training")
    curve.set_xlabel("step")
    rows = sorted((row for row in numbers if row[0].isdigit()), key=lambda row: next(iter(numbers[row].values())))
    rows = [*rows, "mean of each", "all distortions"]
    places = np.arange(len(rows))
    colours = ("#1f5f8b", "#e0a458", "#9aa5ad")
    for shift, (name, colour) in enumerate(zip(next(iter(numbers.values())), colours, strict=True)):
        values = [numbers[row][name] for row in rows]
        bars.bar(places + (shift - 1) * 0.27, values, 0.27, color=colour, label=name)
    bars.set_xticks(places, rows, rotation=45, ha="right")
    bars.axhline(0, color="black", linewidth=0.6)
    bars.set_ylim(min(0, bars.get_ylim()[0]), 1)
    bars.set_title("SROCC of predicted severity")
    bars.legend(frameon=False, ncols=3, loc="upper left", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax demo`."""
    parser = Parser(
        prog="contrique-jax demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: contrique-jax demo --short --out demo_out/short",
    )  # fmt: skip
    parser.add_argument("--out", default="demo_out", type=Path, help="folder for everything (default: demo_out)")
    parser.add_argument("--short", action="store_true", help="every stage, with too few steps to learn anything")
    flags = parser.parse_args(argv)
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "demo: its picture needs matplotlib, which is not installed; pip install 'contrique-jax[demo]'."
        )
    out, extent = flags.out, SHORT if flags.short else WHOLE
    start = time.monotonic()
    run = out / "run"

    from contrique_jax import main as training
    from contrique_jax import score

    train = [f"--config={Path(__file__)}", f"--workdir={run}", *extent.flags]
    print(f"== training: contrique-jax train {' '.join(train)}", flush=True)
    try:
        training.main(train)
    except UserError as error:
        raise UserError(f"{error} (To start the demo afresh: rm -r {run})") from error
    print(
        f"\n== held-out scenes: {extent.scenes} scenes under {extent.distortions_each} distortions each "
        f"({time.monotonic() - start:.0f} s)",
        flush=True,
    )

    images, severity, scenes, kinds = held_out(extent)
    evaluations, extractor, features = compare(run, images, severity, scenes, kinds, extent.splits)
    numbers = print_table(evaluations, kinds, extent.splits)
    (out / "srocc.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

    shown = save_examples(out, evaluations["trained"], extractor, features, images, severity, kinds)
    scoring = ["--model", str(run), "--probe", str(out / "probe.npz"), str(out / "images")]
    print(f"\n== scoring: contrique-jax score {' '.join(scoring)}", flush=True)
    score.main(scoring)
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    draw(out / "demo.png", shown, losses, numbers)
    print(f"\nthe picture: {out / 'demo.png'}   ({time.monotonic() - start:.0f} s in all)")
    if flags.short:
        print("this was the short form: every stage has run, and the numbers mean nothing")


if __name__ == "__main__":
    sys.exit(run_verb(main))
