"""What came of files: their features, or why there are none; how that is gathered and said."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.errors import BrokenImage, counted, none_read, printable
from contrique_jax.io.progress import progress_bar


@dataclass(frozen=True)
class FileFeatures:
    """What came of one file: features [2 x width], or the reason why there are none."""

    path: Path
    features: Float[np.ndarray, " d"] | None
    broken: BrokenImage | None = None
    reduced: bool = False  # it had more pixels than the limit and was scaled down to it
    windows: Float[np.ndarray, "g g d"] | None = None  # features of the image's windows, if they were asked for


def no_room(image: UInt8[np.ndarray, "h w c"]) -> str:
    """Why an image has no features if memory does not suffice for its maps."""
    height, width = image.shape[:2]
    return f"there is not enough memory for an image of {width} x {height} pixels"


class HasWidth(Protocol):
    width: int
    max_megapixels: float


def gather(
    extractor: HasWidth, items: Iterable[FileFeatures], count: int, progress: bool = True
) -> tuple[list[Path], Float[np.ndarray, "n d"], list[BrokenImage]]:
    """What `Extractor.from_files` gives, of `count` items of a stream."""
    out = np.empty((count, extractor.width), np.float32)
    kept: list[Path] = []
    broken: list[BrokenImage] = []
    reduced: list[Path] = []
    for item in progress_bar(items, count, progress):
        if item.reduced:
            reduced.append(item.path)
        if item.broken:
            broken.append(item.broken)
        else:
            out[len(kept)] = item.features
            kept.append(item.path)
    name_reduced(reduced, extractor.max_megapixels)
    return kept, out[: len(kept)], broken


def name_reduced(paths: Sequence[Path], max_megapixels: float) -> None:
    """Says on stderr which files were scaled down: the first three, and how many."""
    if paths:
        names = ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        said = f"{counted(len(paths), 'image')} scaled down to {max_megapixels:g} megapixels: {names}"
        print(printable(said), file=sys.stderr)


def name_broken(broken: Sequence[BrokenImage], total: int) -> None:
    """Names every broken image on stderr and counts them. Raises UserError if all `total` images are broken."""
    for error in broken:
        print(f"broken image left out: {error}", file=sys.stderr)
    if broken:
        print(f"{len(broken)} of {counted(total, 'image')} could not be read", file=sys.stderr)
    if broken and len(broken) == total:
        raise none_read(total, broken[0])
