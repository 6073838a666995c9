"""Images of many sizes -> batches of few shapes.

Every shape costs a compilation, which takes as long as many images do; every padded pixel costs time. A size that occurs often
keeps its own shape; the others share canvases that cover them, in whose corner they lie, and the network sees through the rest
exactly. The canvases are chosen for the sizes that come first: as few as waste at most a third of the pixels, or
`MOST_SHAPES` if no such number does: of 24 sizes 2^i x 2^(23 - i) a canvas that holds two has twice the pixels of each, so that
any twelve waste at least half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

MOST_SHAPES = 12
MOST_WASTE = 0.33  # of the pixels of all canvases
STEP = 32  # sides of canvases are multiples of it
OFTEN, LEAST = 4, 128 * 128  # images of one size, of so many pixels, that are worth a compilation of their own
MOST_IMAGES = 64
Size = tuple[int, int]  # height, width


class Canvas(NamedTuple):
    """A compiled shape: of images that small or smaller, or, without masks, of just that size."""

    height: int
    width: int
    exact: bool

    def holds(self, size: Size) -> bool:
        mine = (self.height, self.width)
        return size == mine if self.exact else size[0] <= mine[0] and size[1] <= mine[1]


@dataclass(frozen=True)
class Batch:
    """Images `places` of a list, stacked to [slots, height, width, 3]; `padded`: some may be smaller than that."""

    places: list[int]
    slots: int
    height: int
    width: int
    padded: bool


class Canvases:
    """The shapes of one network in one process: at most `MOST_SHAPES`, kept from one list of images to the next."""

    def __init__(self, always: bool = False) -> None:
        """`always`: there may be more where no other way is left for an image."""
        self._always = always
        self.slots: dict[Canvas, int] = {}  # images in a batch of that shape
        self._real = self._padded = 0  # pixels so far

    def choose(self, sizes: Sequence[Size]) -> None:
        """Makes canvases for sizes that need some; those of all images, if they can be known, before the first is planned."""
        for size, count in Counter(sizes).most_common():
            if count >= OFTEN and size[0] * size[1] >= LEAST and len(self.slots) < MOST_SHAPES // 2:
                self.slots.setdefault(Canvas(*size, True), 0)
        found = [self._cheapest(size) for size in sizes]
        if self._waste(sizes, found) > MOST_WASTE:
            found = [canvas if canvas and canvas.exact else None for canvas in found]
        missing = [size for size, canvas in zip(sizes, found, strict=True) if canvas is None]
        room = MOST_SHAPES - len(self.slots)
        for canvas in covers(missing, max(room, 1) if self._always else room):
            self.slots.setdefault(canvas, 0)

    def fix(self, sizes: Sequence[Size]) -> None:
        """Makes a canvas for images up to each of these sizes, as long as there may be more: for whoever knows what will come,
        and wants none compiled later."""
        for height, width in sizes:
            if len(self.slots) < MOST_SHAPES:
                self.slots.setdefault(Canvas(-(-height // STEP) * STEP, -(-width // STEP) * STEP, False), 0)

    def plan(self, sizes: Sequence[Size], pixels: int) -> tuple[list[Batch], list[int]]:
        """Batches of about `pixels` pixels at most (an image with more goes alone), and the places of images that no canvas
        holds while there may be no more of these."""
        self.choose(sizes)
        found = [self._cheapest(size) for size in sizes]
        places: dict[Canvas, list[int]] = {}
        for i, canvas in enumerate(found):
            if canvas is not None:
                places.setdefault(canvas, []).append(i)
                self._real += sizes[i][0] * sizes[i][1]
                self._padded += canvas.height * canvas.width
        batches = []
        for canvas, which in places.items():
            if not self.slots[canvas]:
                fitting = max(pixels // (canvas.height * canvas.width), 1)
                full = min(1 << (fitting.bit_length() - 1), MOST_IMAGES)
                self.slots[canvas] = min(full, 1 << (len(which) - 1).bit_length())
            slots = self.slots[canvas]
            runs = [which[i : i + slots] for i in range(0, len(which), slots)]
            batches += [Batch(run, slots, canvas.height, canvas.width, not canvas.exact) for run in runs]
        return batches, [i for i, canvas in enumerate(found) if canvas is None]

    def _cheapest(self, size: Size) -> Canvas | None:
        holding = [canvas for canvas in self.slots if canvas.holds(size)]
        return min(holding, key=lambda canvas: (canvas.height * canvas.width, not canvas.exact), default=None)

    def _waste(self, sizes: Sequence[Size], found: Sequence[Canvas | None]) -> float:
        real, padded = self._real, self._padded
        for (height, width), canvas in zip(sizes, found, strict=True):
            if canvas is not None:
                real, padded = real + height * width, padded + canvas.height * canvas.width
        return 1 - real / max(padded, 1)


def covers(sizes: Sequence[Size], most: int) -> list[Canvas]:
    """As few canvases as hold all sizes and waste at most `MOST_WASTE`; at most `most`, whatever that wastes. None for none.

    The one that holds everything comes first, then again and again the one that spares the most pixels.
    """
    if not sizes or most < 1:
        return []
    groups = Counter(sizes)
    shapes, counts = np.array(list(groups), np.int64), np.array(list(groups.values()), np.int64)
    heights, widths = (np.unique(-(-side // STEP) * STEP) for side in shapes.T)
    candidates = np.stack(np.meshgrid(heights, widths, indexing="ij"), -1).reshape(-1, 2)
    holds = (candidates[:, None, :] >= shapes[None]).all(2)
    areas = np.where(holds, candidates.prod(1)[:, None], np.iinfo(np.int64).max)
    chosen = [len(candidates) - 1]
    best = areas[-1]
    real = (shapes.prod(1) * counts).sum()
    while real < (1 - MOST_WASTE) * (best * counts).sum() and len(chosen) < most:
        chosen.append(int(np.argmin(np.minimum(best, areas) @ counts)))
        best = np.minimum(best, areas[chosen[-1]])
    held = np.argmin(areas[chosen], axis=0)
    found = []
    for i in range(len(chosen)):
        members = shapes[held == i]
        if len(members):
            height, width = (int(side) for side in -(-members.max(0) // STEP) * STEP)
            found.append(Canvas(height, width, bool((members == (height, width)).all())))
    return found


def batch_images(
    images: Sequence[UInt8[np.ndarray, "_ _ c"]], batch: Batch
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, "n 2"] | None]:
    """The stacked images of a batch and their real sizes (None where nothing is padded); spare slots repeat no image,
    they are black."""
    stacked = np.zeros((batch.slots, batch.height, batch.width, images[0].shape[2]), np.uint8)
    valid = np.full((batch.slots, 2), 1, np.int32)
    for i, image in enumerate(images):
        stacked[i, : image.shape[0], : image.shape[1]] = image
        valid[i] = image.shape[:2]
    return stacked, valid if batch.padded else None
