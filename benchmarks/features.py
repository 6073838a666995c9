"""Two-scale ResNet-50 features of 512x384 images on this machine, beside a plain PyTorch encoder with the same weights.

Both take decoded uint8 images, halve them with Pillow, and give 4,096 numbers an image, checked to be the same. They
take turns in one process, so that a noisy machine is noisy for all; ratios are of medians. The first call of a turn is
not timed: it finds the memory as the other program left it. With --start-up the time from nothing to the first score of
a file is measured too, each in a process of its own: `contrique-jax score` with an empty compilation cache and with a
filled one, and a PyTorch script that reads the same weights.

  python benchmarks/features.py
  python benchmarks/features.py --start-up --no-throughput
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 384, 512
STAGES = {"layer1": 4, "layer2": 7, "layer3": 11, "layer4": 17}  # first block of each in torch_contrique's list

TORCH_SCORE = """
import sys
sys.path.insert(0, sys.argv[1])
from features import torch_extractor
import numpy as np, torch
from PIL import Image
features = torch_extractor(torch.load(sys.argv[2], weights_only=True), channels_last=False)
probe = np.load(sys.argv[3])
image = np.asarray(Image.open(sys.argv[4]).convert("RGB"))
print(features([image])[0] @ probe["coefficients"] + probe["intercept"])
"""


def plain_name(name: str) -> str:
    """encoder.layer1.0.conv1.weight -> its name in torch_contrique."""
    parts = name.split(".")
    if parts[0] == "encoder" and parts[1] in STAGES:
        parts[1:3] = [str(STAGES[parts[1]] + int(parts[2]))]
    elif parts[0] == "encoder":
        parts[1] = {"conv1": "0", "bn1": "1"}[parts[1]]
    return ".".join(parts)


def torch_extractor(weights, *, channels_last: bool):
    """List of uint8 RGB images of one size -> float32 [n, 4096], as one would write it in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch_contrique import TorchContrique

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = TorchContrique()
    model.load_state_dict(weights, strict=False)
    encoder = model.encoder.eval().to(memory_format=layout)

    @torch.inference_mode()
    def features(images: list[np.ndarray]) -> np.ndarray:
        halves = [np.asarray(Image.fromarray(image).resize((WIDTH // 2, HEIGHT // 2))) for image in images]
        out = []
        for scale in (images, halves):
            x = torch.from_numpy(np.stack(scale)).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=layout)
            out.append(F.normalize(encoder(x).mean((2, 3)), dim=1))
        return torch.cat(out, dim=1).numpy()

    return features


def weights_of(variables) -> dict:
    import torch

    from contrique_jax.networks.model_folder import to_flat

    return {plain_name(name): torch.tensor(np.asarray(value)) for name, value in to_flat(variables).items()}


def throughput(images: list[np.ndarray], rounds: int) -> None:
    from contrique_jax.config import ModelConfig
    from contrique_jax.inference.extractor import Extractor
    from contrique_jax.training.load import random_weights

    model = ModelConfig("resnet50")
    variables = random_weights(model)
    weights = weights_of(variables)
    contestants = {
        "contrique_jax": Extractor(model, variables).features,
        "PyTorch, default layout": torch_extractor(weights, channels_last=False),
        "PyTorch, channels-last": torch_extractor(weights, channels_last=True),
    }
    results = {name: extract(images) for name, extract in contestants.items()}
    for name, rows in results.items():
        off = np.linalg.norm(rows - results["contrique_jax"], axis=1).max() / np.sqrt(2)
        assert off < 1e-3, f"{name} gives other features: {off}"
    for title, runs in (("one by one", [[image] for image in images]), (f"{len(images)} together", [images])):
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, extract in contestants.items():
                extract(runs[0])
                start = time.perf_counter()
                for run in runs:
                    extract(run)
                times[name].append(time.perf_counter() - start)
        best = {name: statistics.median(seconds) for name, seconds in times.items()}
        print(f"{title}:")
        for name, seconds in best.items():
            ratio = seconds / best["contrique_jax"]
            print(f"  {name:<28}{len(images) / seconds:7.2f} images/s   ours is {ratio:.2f} x as fast")


def start_up(image: np.ndarray) -> None:
    import torch

    from contrique_jax.config import ModelConfig
    from contrique_jax.networks.model_folder import content_hash, save_model
    from contrique_jax.probe import NO_REFERENCE, Probe
    from contrique_jax.training.load import random_weights

    model = ModelConfig("resnet50")
    variables = random_weights(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(image).save(folder / "image.png")
        save_model(folder / "model", model, variables, provenance={})
        coefficients = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
        known = {"feature_name": NO_REFERENCE, "model_hash": content_hash(model, variables), "data_set": "none"}
        known |= {"score_low": 0.0, "score_high": 1.0, "higher_is_better": True}
        Probe(coefficients.astype(np.float64), 0.0, 1.0, **known).save(folder / "probe.npz")
        torch.save(weights_of(variables), folder / "weights.pth")
        np.savez(folder / "plain.npz", coefficients=coefficients, intercept=0.0)
        here = str(Path(__file__).parent)
        ours = [sys.executable, "-m", "contrique_jax.score", "--model", str(folder / "model")]
        ours += ["--probe", str(folder / "probe.npz"), str(folder / "image.png")]
        theirs = [sys.executable, "-c", TORCH_SCORE, here, str(folder / "weights.pth"), str(folder / "plain.npz")]
        theirs += [str(folder / "image.png")]
        environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
        for title, command in (
            ("contrique-jax score, first time", ours),
            ("contrique-jax score, again", ours),
            ("contrique-jax score, again", ours),
            ("PyTorch script", theirs),
            ("PyTorch script, again", theirs),
        ):
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(f"start to first score, {title:<36}{time.perf_counter() - start:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each")
    parser.add_argument("--start-up", action="store_true", help="also time cold processes")
    parser.add_argument("--no-throughput", action="store_true", help="cold processes only")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    images = list(generator.integers(0, 256, (options.images, HEIGHT, WIDTH, 3), dtype=np.uint8))
    if not options.no_throughput:
        throughput(images, options.rounds)
    if options.start_up:
        start_up(images[0])


if __name__ == "__main__":
    main()
