"""What the demo claims, over several seeds: severity and kind of distortions on unseen scenes by a trained head, frozen
stages, random weights, and sharpness and noise.

A seed is one of the head's training (its scenes, distortions, weights, order) and of the splits.

  python benchmarks/demo_seeds.py --seeds 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from contrique_jax.demo import EXTENT, frozen, of_head, train
from contrique_jax.demo_unseen import measured, unseen
from contrique_jax.io.machine import use_compilation_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=Path("demo_seeds"), help="folder of the runs, which go on where they were"
    )
    options = parser.parse_args()
    use_compilation_cache()
    told = unseen(EXTENT.scenes, EXTENT.each)
    same = frozen(told)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.seeds):
        run = options.out / str(seed)
        train(run, f"--config.train.seed={seed}")
        for name, features in {"trained head": of_head(run, same["frozen stages"]), **same}.items():
            found.setdefault(name, []).append(measured(features, told, EXTENT.splits, seed))
        print({name: rows[-1] for name, rows in found.items()}, flush=True)
    for measure in ("severity", "kind"):
        table = {name: np.array([row[measure] for row in rows]) for name, rows in found.items()}
        head = table["trained head"]
        for name, values in table.items():
            ahead = head - values
            spread = f"head ahead by {ahead.mean():.3f}, deviation of that {ahead.std(ddof=1):.3f}"
            print(f"{measure:9} {name:20} {values.mean():.3f} +- {values.std(ddof=1):.3f}   {spread}")


if __name__ == "__main__":
    main()
