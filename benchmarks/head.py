"""What a trained head knows beside the frozen stages that it stands on: opinions of photographs, and severity and kind of
distortions of photographs that it was not trained on.

  python -m contrique_jax.main --config configs/contrique_head.py --workdir runs/head ...
  python benchmarks/head.py --run runs/head --scores biq2021/scores.csv --unseen PHOTOS
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from contrique_jax import distort
from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.decode import read
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.demo import of_head
from contrique_jax.demo_unseen import Unseen, measured
from contrique_jax.distort.bank import BANK, Distortion
from contrique_jax.evaluation.comparison import Contender, extract_all
from contrique_jax.evaluation.protocol import evaluate_features, make_splits
from contrique_jax.inference.extractor import Extractor
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.training.load import load_network

EACH = 60  # distortions of an unseen photograph, of 125


def candidates(run: Path, stages: np.ndarray) -> dict[str, np.ndarray]:
    head = of_head(run, stages)
    return {
        "stages": standard(stages),
        "head": standard(head),
        "stages+head": np.hstack(list(map(standard, (stages, head)))),
    }


def standard(features: np.ndarray) -> np.ndarray:
    """Mean 0 and the variance 1 / 1000, for which the protocol's penalties are made."""
    return (features - features.mean(0)) / np.maximum(features.std(0), 1e-6) / np.sqrt(1000)


def drawn(number: int) -> list[tuple[Distortion, int]]:
    """Distortions and levels of the photograph of that number."""
    chosen = np.random.default_rng([7, number]).choice(5 * len(BANK), EACH, replace=False)
    return [(BANK[i // 5], int(i % 5 + 1)) for i in chosen]


def distorted(paths: list[Path], with_images: bool = True) -> Unseen:
    images, told, names = [], [], []
    for number, path in enumerate(paths):
        image = to_canvas(read(path)) if with_images else None
        for row, level in drawn(number):
            if image is not None:
                images.append(np.asarray(distort.apply(image, type=row.type, level=level, seed=number)))
            told.append((row.severity[level - 1], row.type, level))
            names.append(path.name)
    severity, kinds, levels = (np.array(part) for part in zip(*told, strict=True))
    return Unseen(np.array(images), severity.astype(float), kinds, levels, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="workdir of a head on the embedded model")
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group, subset")
    parser.add_argument("--unseen", type=Path, required=True, help="folder of photographs that the run has not seen")
    options = parser.parse_args()
    use_compilation_cache()
    model, weights = load_network("lite0")
    network = Contender("stages", lambda side: Extractor(model, weights, shorter_side=side))
    (found,) = extract_all([network], read_scores(options.scores), user_cache("features"))
    images = found.images
    splits = make_splits(images.groups, 10, 0)
    base = None
    for name, x in candidates(options.run, found.features).items():
        result = evaluate_features(x, images.scores, splits, images.subsets, groups=images.groups)
        srocc = result.values("srocc")
        base = srocc if base is None else base
        parts = [f"{kind} {np.median(result.values('srocc', kind)):.3f}" for kind in sorted(set(images.subsets or ()))]
        ahead, error = (srocc - base).mean(), 1.96 * (srocc - base).std(ddof=1) / np.sqrt(len(srocc))
        plcc = np.median(result.values("plcc"))
        said = (
            f"SROCC {np.median(srocc):.3f} PLCC {plcc:.3f}; {', '.join(parts)}; to stages {ahead:+.3f} +- {error:.3f}"
        )
        print(f"{name:12} {said}", flush=True)
    told = distorted(list_images([str(options.unseen)]))
    stages = Extractor(model, weights).features(list(told.images))
    for name, x in candidates(options.run, stages).items():
        row = measured(x, told, 10)
        print(f"{name:12} severity within a kind {row['severity']:.3f}, kind {row['kind']:.3f}", flush=True)


if __name__ == "__main__":
    main()
