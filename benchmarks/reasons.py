"""What `score --why` is worth: the embedded model's reasons on clean photographs that they were not fitted on, each under every
type and level of the bank.

They were fitted on the first 403 of the same folder in the order that `benchmarks/default_probe.py` takes (`--skip`).

  python benchmarks/reasons.py --pristine PHOTOS/clean --photographs 48
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from default_probe import SEVERITIES, STRONG, Distorted, features_of_distorted, in_order, named

from contrique_jax.distort.bank import BANK
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import load_why
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED
from contrique_jax.probe.why import NONE, Why


def severities(why: Why, shown: Distorted) -> dict[str, tuple[float, float]]:
    """Of each type, SROCC of its levels as judged with its severities: over all photographs, and the mean of that in each."""
    levels, found = why.judge(shown.x)[1], {}
    for row in BANK:
        own = shown.told[:, 1] == row.type
        judged, true = levels[own, row.type], SEVERITIES[row.type, shown.told[own, 2]].astype(float)
        photographs = shown.told[own, 0]
        parts = [
            correlate(judged[photographs == one], true[photographs == one]).srocc for one in np.unique(photographs)
        ]
        inside = float(np.mean(np.nan_to_num(parts)))  # all levels judged alike: 0
        found[row.name] = correlate(judged, true).srocc, inside
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pristine", required=True, help="folder of clean photographs")
    parser.add_argument("--skip", type=int, default=403, help="of them that were fitted on (default: %(default)s)")
    parser.add_argument("--photographs", type=int, default=48, help="of the others (default: %(default)s)")
    parser.add_argument("--kept", type=Path, help=".npz that keeps the features for the next time")
    options = parser.parse_args()
    use_compilation_cache()
    chosen = in_order(options.pristine)[options.skip : options.skip + options.photographs]
    shown = features_of_distorted(Extractor(*load_model(EMBEDDED / DEFAULT)), chosen, options.kept)
    why = load_why(DEFAULT)
    first, three = named(why, shown)
    none = np.mean(why.judge(shown.x[shown.told[:, 1] == 0])[0].argmax(axis=1) == NONE)
    strong = np.sum(shown.told[:, 2] >= STRONG)
    print(f"{shown.told[:, 0].max() + 1} photographs, {strong} images of them at levels {STRONG} to 5: named first")
    print(f"{first:.3f}, among the first three {three:.3f}; none first for {none:.3f} of the clean ones")
    of_type = severities(why, shown)
    over, inside = np.mean(list(of_type.values()), axis=0)
    weak = ", ".join(f"{name} {value:.2f}" for name, (value, _) in of_type.items() if value < 0.85)
    print(f"severity within a type, over photographs {over:.3f} (below .85: {weak}); within a photograph {inside:.3f}")


if __name__ == "__main__":
    main()
