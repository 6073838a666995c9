"""Decoded images at the sizes at which features are taken."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from contrique_jax.data.decode import read
from contrique_jax.errors import BrokenImage

RGB = UInt8[np.ndarray, "h w 3"]


def read_image(path: Path, max_megapixels: float, shorter_side: int | None = None) -> tuple[RGB, bool]:
    """The file's image, brought to `shorter_side` as its data set asks, then scaled down (bicubic) to `max_megapixels`
    if it has more, and whether that was so. Raises BrokenImage for a file that cannot be read.
    """
    try:
        image = read(path)
    except MemoryError as error:
        raise BrokenImage(str(path), "too large for this machine's memory") from error
    if shorter_side is not None:
        image = to_shorter_side(image, shorter_side)
    height, width = image.shape[:2]
    scale = math.sqrt(max_megapixels * 1e6 / (height * width))
    if scale >= 1:
        return image, False
    size = (max(int(width * scale), 1), max(int(height * scale), 1))
    return np.asarray(Image.fromarray(image).resize(size, reducing_gap=3.0)), True


def half_size(image: RGB) -> RGB:
    """The image at (w // 2, h // 2), at least one pixel, by Pillow's default resize (bicubic)."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((max(width // 2, 1), max(height // 2, 1))))


def to_shorter_side(image: RGB, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """The image scaled down so that its shorter side has `side` pixels; left alone if that is smaller already.

    As the authors of SPAQ do: Pillow's antialiased bilinear, the longer side rounded down.
    """
    h, w = image.shape[:2]
    if min(h, w) <= side:
        return image
    size = (side, side * h // w) if w <= h else (side * w // h, side)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
