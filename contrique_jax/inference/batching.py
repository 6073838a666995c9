"""Images of many sizes -> batches of few shapes.

Every shape costs a compilation, every padded pixel costs time. Sizes that occur often and fill a batch keep their own
shape; the others are padded at the bottom and right to multiples of a quarter of their magnitude, which the network
sees through exactly: ten photographs from ten cameras are to need few programs, of which each takes seconds to compile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt8

SMALLEST_STEP = 128
OFTEN = 4  # images of one size that are worth a compilation of their own
MOST_IMAGES = 64


@dataclass(frozen=True)
class Batch:
    """Images `places` of a list, stacked to [slots, height, width, 3]; `padded`: some are smaller than that."""

    places: list[int]
    slots: int
    height: int
    width: int
    padded: bool


def plan_batches(sizes: Sequence[tuple[int, int]], pixels: int) -> list[Batch]:
    """Batches that hold every image of (height, width) `sizes` once, each of about `pixels` pixels at most (an image
    with more goes alone). Slots are powers of two, so that few different ones occur."""
    exact: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        exact.setdefault(size, []).append(i)
    batches: list[Batch] = []
    pooled: dict[tuple[int, int], list[int]] = {}
    for (height, width), places in exact.items():
        full = _full(height, width, pixels)
        if len(places) >= max(full, OFTEN):
            runs = [places[i : i + full] for i in range(0, len(places), full)]
            batches += [Batch(run, full, height, width, False) for run in runs]
        else:
            pooled.setdefault((_rounded(height), _rounded(width)), []).extend(places)
    for (height, width), places in pooled.items():
        full = _full(height, width, pixels)
        for i in range(0, len(places), full):
            run = places[i : i + full]
            padded = any(sizes[i] != (height, width) for i in run)  # without, the network needs no masks
            batches.append(Batch(run, 1 << (len(run) - 1).bit_length(), height, width, padded))
    return batches


def batch_images(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], batch: Batch
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int32[np.ndarray, "n 2"] | None]:
    """The stacked images of a batch and their real sizes (None where nothing is padded); spare slots repeat no image,
    they are black."""
    stacked = np.zeros((batch.slots, batch.height, batch.width, 3), np.uint8)
    valid = np.full((batch.slots, 2), 1, np.int32)
    for i, image in enumerate(images):
        stacked[i, : image.shape[0], : image.shape[1]] = image
        valid[i] = image.shape[:2]
    return stacked, valid if batch.padded else None


def _full(height: int, width: int, pixels: int) -> int:
    fitting = max(pixels // (height * width), 1)
    return min(1 << (fitting.bit_length() - 1), MOST_IMAGES)


def _rounded(side: int) -> int:
    step = max(SMALLEST_STEP, 1 << max((side - 1).bit_length() - 2, 0))
    return -(-side // step) * step
