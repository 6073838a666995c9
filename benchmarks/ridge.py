"""Ridge for 10 splits x 100 alphas at 1,800 x 4,096 on this machine's processor, beside scikit-learn.

Each gives the predictions of all rows for every split and alpha in float64. Three ways:
  contrique_jax          held_out_paths: one Gram matrix for all splits, one eigendecomposition a split; the leave-one-out
                         predictions of the fitted rows and the leverages come with it
  sklearn, SVD by hand   scikit-learn at its best: one SVD of the training rows a split, by its own centring
  sklearn Ridge          Ridge(alpha).fit and .predict for every split and alpha, as its users write it

They alternate in one process split by split, so that a noisy machine is noisy for all, and what is compiled is compiled
before. Ridge is timed on five of a hundred alphas and counted twentyfold (its time does not depend on alpha);
--all-alphas times them all. Accuracy: largest difference of a prediction on test rows from Ridge(solver="svd"), over the
spread of the scores, on the first split, smallest, middle and largest alpha that Ridge was timed on.

  python benchmarks/ridge.py
  python benchmarks/ridge.py --rows 600 --features 512 --splits 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from contrique_jax.evaluation.splits import make_splits
from contrique_jax.probe.ridge import held_out_paths


def planted(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of unit length, as the network's features are, of falling variance, and scores with noise."""
    rng = np.random.default_rng(0)
    rank = min(rows, width)
    raw = rng.normal(size=(rows, rank)) * np.geomspace(1, 0.01, rank) @ rng.normal(size=(rank, width))
    x = np.maximum(raw / raw.std() + 0.5, 0).reshape(rows, 2, width // 2)
    x = (x / np.linalg.norm(x, axis=2, keepdims=True)).reshape(rows, width).astype(np.float32)
    y = x @ rng.normal(size=width)
    return x, y / y.std() + 0.5 * rng.normal(size=rows)


def by_svd(x: np.ndarray, y: np.ndarray, train: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Predictions [alphas, rows]: what Ridge(solver="svd") does, its SVD shared by all alphas."""
    from scipy import linalg

    mean, level = x[train].mean(axis=0), y[train].mean()
    u, s, vt = linalg.svd(x[train] - mean, full_matrices=False)
    shrunk = s / (s**2 + alphas[:, None]) * (u.T @ (y[train] - level))
    return shrunk @ (vt @ (x - mean).T) + level


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    done = work()
    return time.perf_counter() - start, done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--features", type=int, default=4096, help="an even number")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--alphas", type=int, default=100)
    parser.add_argument("--all-alphas", action="store_true", help="time scikit-learn's Ridge on every alpha")
    flags = parser.parse_args()
    from sklearn.linear_model import Ridge

    x, y = planted(flags.rows, flags.features)
    wide = x.astype(np.float64)
    alphas = np.geomspace(1e-3, 1e3, flags.alphas)
    every = 1 if flags.all_alphas else max(flags.alphas // 5, 1)
    trains = [split.train for split in make_splits([str(i) for i in range(flags.rows)], flags.splits, 0)]
    tests = [np.setdiff1d(np.arange(flags.rows), train) for train in trains]
    held_out_paths(x, y, trains[:1], alphas)  # compiles, for one split at a time

    names = ("contrique_jax", "sklearn, SVD by hand", "sklearn Ridge")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    worst = dict.fromkeys(names, 0.0)
    for number, (train, test) in enumerate(zip(trains, tests, strict=True)):
        ways = {
            names[0]: lambda train=train: held_out_paths(x, y, [train], alphas)[0][0],
            names[1]: lambda train=train: by_svd(wide, y, train, alphas),
            names[2]: lambda train=train: np.array(
                [Ridge(alpha=alpha).fit(wide[train], y[train]).predict(wide) for alpha in alphas[::every]]
            ),
        }
        found = {}
        for name, way in ways.items():
            spent, found[name] = timed(way)
            seconds[name].append(spent * (len(alphas) / len(alphas[::every]) if name == names[2] else 1))
        for i in (0, len(alphas[::every]) // 2, len(alphas[::every]) - 1) if number == 0 else ():
            reference = Ridge(alpha=alphas[::every][i], solver="svd").fit(wide[train], y[train]).predict(wide[test])
            for name in names:
                predicted = found[name][i if name == names[2] else i * every][test]
                worst[name] = max(worst[name], float(np.abs(predicted - reference).max() / y.std()))
    spent, _ = timed(lambda: held_out_paths(x, y, trains, alphas)[0])

    print(
        f"{flags.splits} splits x {flags.alphas} alphas, {flags.rows} x {flags.features}, {os.cpu_count()} processors\n"
    )
    print(f"{'':24}{'median s / split':>18}{'s, all splits':>15}{'times slower':>14}{'largest difference':>20}")
    base = statistics.median(seconds[names[0]])
    for name in names:
        middle = statistics.median(seconds[name])
        row = f"{middle:>18.3f}{sum(seconds[name]):>15.1f}{middle / base:>14.1f}{worst[name]:>20.1e}"
        print(f"{name:24}{row}")
    print(f"contrique_jax, all splits in one call, compiling included: {spent:.1f} s")


if __name__ == "__main__":
    main()
