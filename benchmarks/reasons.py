"""What `score --why` is worth: the embedded model's reasons on clean photographs that they were not fitted on, each under every
type and level of the bank.

They were fitted on the first 403 of the same folder in the order that `benchmarks/default_probe.py` takes (`--skip`).

  python benchmarks/reasons.py --pristine PHOTOS/clean --photographs 48
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from default_probe import Distorted, features_of_distorted, in_order

from contrique_jax.distort.bank import BANK
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import load_why
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED
from contrique_jax.probe.why import Why

STRONG = 3  # the least level at which a distortion is to be named


def named(why: Why, shown: Distorted) -> tuple[float, float, float]:
    """The share of strong distortions named first and among the first three, and of clean photographs with none first."""
    strong = shown.told[:, 2] >= STRONG
    places = np.argsort(-why.judge(shown.x)[0], axis=1)
    pairs = list(zip(shown.told[strong, 1], places[strong], strict=True))
    first, three = (np.mean([kind in row[:count] for kind, row in pairs]) for count in (1, 3))
    return float(first), float(three), float(np.mean(places[shown.told[:, 1] == 0, 0] == 0))


def severities(why: Why, shown: Distorted) -> dict[str, tuple[float, float]]:
    """Of each type, SROCC of its levels as judged with its severities: over all photographs, and the mean of that in each."""
    levels, found = why.judge(shown.x)[1], {}
    for row in BANK:
        own = shown.told[:, 1] == row.type
        judged, true = levels[own, row.type], np.array(row.severity, float)[shown.told[own, 2] - 1]
        photographs = shown.told[own, 0]
        parts = [
            correlate(judged[photographs == one], true[photographs == one]).srocc for one in np.unique(photographs)
        ]
        found[row.name] = (
            correlate(judged, true).srocc,
            float(np.mean(np.nan_to_num(parts))),
        )  # all levels judged alike: 0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pristine", required=True, help="folder of clean photographs")
    parser.add_argument("--skip", type=int, default=403, help="of them that were fitted on (default: %(default)s)")
    parser.add_argument("--photographs", type=int, default=48, help="of the others (default: %(default)s)")
    parser.add_argument("--kept", type=Path, help=".npz that keeps the features for the next time")
    options = parser.parse_args()
    use_compilation_cache()
    if options.kept and options.kept.exists():
        kept = np.load(options.kept)
        shown = Distorted(kept["x"], kept["told"])
    else:
        chosen = in_order(options.pristine)[options.skip : options.skip + options.photographs]
        shown = features_of_distorted(Extractor(*load_model(EMBEDDED / DEFAULT)), chosen)
        if options.kept:
            np.savez(options.kept, x=shown.x, told=shown.told)
    why = load_why(DEFAULT)
    first, three, none = named(why, shown)
    count = shown.told[:, 0].max() + 1
    print(
        f"{count} photographs, {np.sum(shown.told[:, 2] >= STRONG)} images of them at levels {STRONG} to 5: named first"
    )
    print(f"{first:.3f}, among the first three {three:.3f}; none first for {none:.3f} of the clean ones")
    of_type = severities(why, shown)
    over, inside = np.mean(list(of_type.values()), axis=0)
    weak = ", ".join(f"{name} {value:.2f}" for name, (value, _) in of_type.items() if value < 0.85)
    print(f"severity within a type, over photographs {over:.3f} (below .85: {weak}); within a photograph {inside:.3f}")


if __name__ == "__main__":
    main()
