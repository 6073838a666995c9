"""Milliseconds of each distortion for a 512x384 image in tf.data, beside the same operation of another library.

Ours runs as the input pipeline runs it: through jax2tf inside a tf.function, one branch a record, uint8 in and out,
stretched before and after; one record at a time for the times, `--threads` records side by side for the throughput.
Theirs is what one would write for one image with Pillow, OpenCV, SciPy, scikit-image and NumPy, from uint8 to uint8, with
its own threads switched off. They alternate in one run on the same images, all levels in turn; times are medians.
Not every pair is the same work: the last column says where theirs does less (<) or more (>).

  python benchmarks/distortions.py --type 10,11 --rounds 3
  python benchmarks/distortions.py                 # all types and the mean over the 126 classes; minutes
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import tensorflow as tf
from jax.experimental import jax2tf
from reference_distortions import REFERENCES, theirs

from contrique_jax.data.pipeline import options
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.distort import bank
from contrique_jax.distort.flags import types
from contrique_jax.errors import UserError, run_verb

HEIGHT, WIDTH = 384, 512
GOAL = 1.5  # times the other library's time


class Ours:
    """Records of every chosen type in turn, then of the undistorted class, over and over, by tf.data."""

    def __init__(self, images: np.ndarray, chosen: tuple[int, ...], *, threads: int, timed: int):
        """`threads` records at a time, 0: one, when it is asked for; `timed`: how many of each type are."""
        self._skipped, self._timed = 2 * threads, timed  # some are done before they are asked for
        levels = np.arange(self._skipped + timed) % bank.NUM_LEVELS
        of_types = [bank.NUM_LEVELS * (type - 1) + levels for type in chosen]
        classes = np.concatenate([*of_types, np.full(len(levels), bank.PRISTINE)]).astype(np.int32)

        def distorted(key: Any, image: Any, class_id: Any) -> Any:
            return bank.distort(key, image, class_id, types=chosen)

        in_graph = tf.function(
            jax2tf.convert(distorted, with_gradient=False, native_serialization_platforms=("cpu",)),
            autograph=False,
            jit_compile=False,
        )

        def record(i: Any) -> Any:
            key = tf.stack([tf.constant(7, tf.uint32), tf.cast(i, tf.uint32)])
            image = tf.gather(tf.constant(images), i // bank.NUM_LEVELS % len(images))
            return in_graph(key, image, tf.gather(tf.constant(classes), i % len(classes)))

        dataset = tf.data.Dataset.range(2**40).map(record, num_parallel_calls=threads or None)
        self._records = iter(dataset.with_options(options(max(threads, 1))))

    def next_type(self) -> float:
        """Mean milliseconds between two records of the next type in turn."""
        for _ in range(self._skipped):
            next(self._records)
        start = time.perf_counter()
        for _ in range(self._timed):
            next(self._records)
        return 1e3 * (time.perf_counter() - start) / self._timed


def theirs_of(type: int, images: np.ndarray, rng: np.random.Generator) -> float:
    """Mean milliseconds of the reference over the five levels."""
    start = time.perf_counter()
    for level in range(1, bank.NUM_LEVELS + 1):
        theirs(images[level % len(images)], type, level, rng)
    return 1e3 * (time.perf_counter() - start) / bank.NUM_LEVELS


def table(chosen: tuple[int, ...], times: dict[str, dict[int, float]]) -> list[str]:
    """A line a type; then the mean over the classes, where every type is there, and which types miss the goal."""
    lines = [f"{'type':<28}{'ours ms':>9}{'theirs ms':>11}{'ratio':>8}{'side by side/s':>16}  against"]
    ratio = {type: times["ours"][type] / times["theirs"][type] for type in chosen}
    for type in chosen:
        name, reference = f"{type:02} {bank.BANK[type - 1].name}", REFERENCES[type]
        lines.append(
            f"{name:<28}{times['ours'][type]:9.2f}{times['theirs'][type]:11.2f}{ratio[type]:8.2f}"
            f"{1e3 / times['side by side'][type]:16.0f}  {reference.library} {reference.remark}"
        )
    lines.append(f"{'undistorted':<28}{times['ours'][0]:9.2f}{'':19}{1e3 / times['side by side'][0]:16.0f}")
    if len(chosen) == bank.NUM_TYPES:
        ours, side = (
            (bank.NUM_LEVELS * sum(times[which][type] for type in chosen) + times[which][0]) / bank.NUM_CLASSES
            for which in ("ours", "side by side")
        )
        theirs = sum(times["theirs"].values()) / bank.NUM_TYPES
        lines.append(f"{'mean of the 126 classes':<28}{ours:9.2f}{theirs:11.2f}{ours / theirs:8.2f}{1e3 / side:16.0f}")
    missed = [f"{type:02} ({ratio[type]:.1f})" for type in chosen if ratio[type] > GOAL]
    lines.append(f"more than {GOAL} times theirs: {', '.join(missed) or 'none'}")
    return lines


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--type", action="append", metavar="N[,N...]", help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="side by side; default: one a core")
    flags = parser.parse_args(argv)
    chosen = types(flags.type)
    if 15 in chosen and importlib.util.find_spec("pywt") is None:
        raise UserError(
            "type 15: scikit-image's denoise_wavelet needs PyWavelets; install it, or name types with --type."
        )
    warnings.filterwarnings("ignore", "Conversion from CIE-LAB")
    cv2.setNumThreads(1)
    images = np.stack([pristine_scene(7, number, HEIGHT, WIDTH) for number in range(4)])
    rng = np.random.default_rng(0)
    contestants = {
        "ours": Ours(images, chosen, threads=0, timed=2 * bank.NUM_LEVELS),
        "side by side": Ours(images, chosen, threads=flags.threads, timed=2 * bank.NUM_LEVELS * flags.threads),
    }
    for contestant in contestants.values():  # compiled, and every branch run
        for _ in range(len(chosen) + 1):
            contestant.next_type()
    taken: dict[str, dict[int, list[float]]] = {which: {} for which in (*contestants, "theirs")}
    for _ in range(flags.rounds):
        for type in (*chosen, 0):
            for which, contestant in contestants.items():
                taken[which].setdefault(type, []).append(contestant.next_type())
            if type:
                taken["theirs"].setdefault(type, []).append(theirs_of(type, images, rng))
    times = {which: {type: statistics.median(each) for type, each in by.items()} for which, by in taken.items()}
    print(f"{WIDTH}x{HEIGHT} pixels, {flags.rounds} rounds; side by side: images a second with {flags.threads} threads")
    print("\n".join(table(chosen, times)))


if __name__ == "__main__":
    sys.exit(run_verb(main))
