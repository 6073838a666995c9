"""What an extractor makes of a clip: a vector for each block of its frames, and their mean, weighted by their frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.data.clips import Frame, blocks, frames, is_clip
from contrique_jax.data.sizes import fitted
from contrique_jax.errors import BrokenImage
from contrique_jax.inference.file_features import FileFeatures

SECONDS_BETWEEN = 0.5  # between the frames that stand for a clip, of a model that sees each by itself


class OfClips(Protocol):
    max_megapixels: float
    shorter_side: int | None
    seconds_between: float  # 0: all frames
    block_frames: int

    def of_block(self, images: list[UInt8[np.ndarray, "h w 3"]]) -> Float[np.ndarray, " d"]:
        """Features of frames that follow each other."""


def clip_features(extractor: OfClips, path: Path) -> FileFeatures:
    """Features of a whole clip, its last, shorter block included, holding one block of frames at a time; each frame as an
    image is read."""
    total: Any = 0.0
    count, reduced = 0, False

    def image(frame: Frame) -> UInt8[np.ndarray, "h w 3"]:
        nonlocal reduced
        found, smaller = fitted(frame.image, extractor.max_megapixels, extractor.shorter_side)
        reduced |= smaller
        return found

    try:
        for block in blocks(map(image, frames(path, every=extractor.seconds_between)), extractor.block_frames):
            total = total + len(block) * np.asarray(extractor.of_block(block), np.float64)
            count += len(block)
    except BrokenImage as error:
        frame = f"{Path(error.name).name}: " if error.name not in ("", str(path)) else ""  # of a folder of frames
        return FileFeatures(path, None, broken=BrokenImage(str(path), f"{frame}{error.why}"))
    return FileFeatures(path, np.asarray(total / count, np.float32), reduced=reduced)


def images_and_clips(
    paths: Iterable[Path],
    images: Callable[[Iterable[Path]], Iterator[FileFeatures]],
    clip: Callable[[Path], FileFeatures],
) -> Iterator[FileFeatures]:
    """File by file, in order: what `images` gives of those that are none, and `clip` of the others."""
    known = isinstance(paths, Sequence)  # then `images` may look ahead
    for clips, run in itertools.groupby(paths, is_clip):
        if clips:
            yield from map(clip, run)
        else:
            yield from images(list(run) if known else run)  # noqa: B031 (one of the two, once)
