"""Samples (both views, distortion included) per second and core on 512x384 JPEGs, beside a plain Pillow loader.

The plain loader decodes and takes the same views without any distortion, in one process a core, and hands nothing over;
ours decodes, distorts, takes the views and delivers batches. They alternate in one run. "synthetic rows" are the half of
a batch that is distorted, timed alone; "whole batches" are half synthetic, half authentic, as training gets them.

  python benchmarks/pipeline.py            # on procedural scenes saved as JPEG
  python benchmarks/pipeline.py --images PHOTOS
"""

from __future__ import annotations

import argparse
import collections
import io
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from pillow_loader import pillow_two_views

from contrique_jax.augment.host_views import to_canvas
from contrique_jax.config import Config, DataConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.decode import decode
from contrique_jax.data.image_files import list_images
from contrique_jax.data.pipeline import Pipeline, options, tfdata_rows
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.data.sources import open_source
from contrique_jax.distort import bank
from contrique_jax.io.machine import available_cores
from contrique_jax.recipes.contrique import recipe

COUNT = 200


def write_jpegs(folder: Path, images: str | None) -> None:
    """COUNT JPEGs of 512x384, quality 90: scenes, or photographs brought to that size."""
    paths = list_images([images]) if images else []
    for number in range(COUNT):
        if paths:
            path = paths[number % len(paths)]
            pixels = to_canvas(decode(path.read_bytes(), name=str(path)))
        else:
            pixels = pristine_scene(7, number)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)


def plain_samples(arguments: tuple[list[str], int]) -> int:
    """The plain loader's work in one process: reads, decodes, two views; -> samples done."""
    names, seed = arguments
    generator = np.random.default_rng(seed)
    for name in names:
        pillow_two_views(Path(name).read_bytes(), generator)
    return len(names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of photographs; default: procedural scenes")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each in a round")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    cores = available_cores()
    times: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jpegs(folder, flags.images)
        size = len(Image.open(io.BytesIO((folder / "0000.jpg").read_bytes())).tobytes())
        assert size == 384 * 512 * 3
        data = DataConfig(str(folder), str(folder), batch_size=64, pristine_share=0.0, loader="tfdata")
        sources = {role: open_source(name, role=role, field=role) for role in ("pristine", "authentic")}
        pipeline = Pipeline(Config(data=data), recipe, sources, rows=range(64), broken=BrokenLog())
        steps = 10**6

        synthetic = tfdata_rows(pipeline, 0, 0, steps, []).batch(32).prefetch(2).with_options(options(pipeline.workers))
        contestants = {"synthetic rows": (iter(synthetic), 32), "whole batches": (pipeline.batches(0, steps), 64)}
        names = [str(folder / f"{number % COUNT:04}.jpg") for number in range(flags.samples)]
        pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"))
        shares = [(names[worker::cores], worker) for worker in range(cores)]
        list(pool.map(plain_samples, [(share[:20], seed) for share, seed in shares]))
        for iterator, _ in contestants.values():  # compiled and filled
            for _ in range(4):
                next(iterator)
        for _ in range(flags.rounds):
            start = time.perf_counter()
            done = sum(pool.map(plain_samples, shares))
            times["plain Pillow, no distortion"].append(done / (time.perf_counter() - start))
            for label, (iterator, rows) in contestants.items():
                # what the last round left in the prefetch buffer is not counted
                for _ in range(3):
                    next(iterator)
                start = time.perf_counter()
                batches = -(-flags.samples // rows)
                for _ in range(batches):
                    next(iterator)
                times[label].append(batches * rows / (time.perf_counter() - start))
        pool.shutdown()
        plain = statistics.median(times["plain Pillow, no distortion"])
        print(f"{cores} cores, {len(bank.TYPES)} distortion types, 256-pixel views of 512x384 JPEGs")
        for label, rates in times.items():
            rate = statistics.median(rates)
            print(f"{label:<30}{rate / cores:8.1f} samples/s and core   {rate / plain:.2f} x plain Pillow")
        del contestants, iterator, synthetic  # tf.data still reads ahead: end it before the files go


if __name__ == "__main__":
    main()
