"""Decoded images at the sizes at which features are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from contrique_jax.data.decode import read
from contrique_jax.data.deep_samples import ORIENTATION
from contrique_jax.errors import BrokenImage
from contrique_jax.io.regular import open_regular

RGB = UInt8[np.ndarray, "h w 3"]
MAX_MEGAPIXELS = 16.0  # of an image, if nothing else is said
TURNED = 5  # the least orientation of EXIF that swaps height and width
LEAST_SIDE = 256  # a side counts as so long where pixels are limited: in tiles the network computes that much


def read_image(path: Path, max_megapixels: float, shorter_side: int | None = None) -> tuple[RGB, bool]:
    """The file's image, brought to `shorter_side` as its data set asks, then scaled down (bicubic) to `max_megapixels`
    if it has more (`limited_size`), and whether that was so. Raises BrokenImage for a file that cannot be read.
    """
    return read_fitted(str(path), lambda: read(path), max_megapixels, shorter_side)


def read_fitted(
    name: str, image: Callable[[], RGB], max_megapixels: float, shorter_side: int | None = None
) -> tuple[RGB, bool]:
    """The same of what `image` gives, which messages call `name`."""
    try:
        found = image()
    except MemoryError as error:
        raise BrokenImage(name, "too large for this machine's memory") from error
    return fitted(found, max_megapixels, shorter_side)


def fitted(image: RGB, max_megapixels: float, shorter_side: int | None = None) -> tuple[RGB, bool]:
    """The same of an image that is decoded."""
    if shorter_side is not None:
        image = to_shorter_side(image, shorter_side)
    height, width = image.shape[:2]
    fitting = limited_size(height, width, max_megapixels)
    if fitting == (height, width):
        return image, False
    return np.asarray(Image.fromarray(image).resize(fitting[::-1], reducing_gap=3.0)), True


def limited_size(height: int, width: int, max_megapixels: float) -> tuple[int, int]:
    """Height and width of an image once it has at most that many pixels, a side below `LEAST_SIDE` counted as that."""
    most = max_megapixels * 1e6
    scale = math.sqrt(most / (height * width))
    if most > LEAST_SIDE**2 and min(height, width) * min(scale, 1) < LEAST_SIDE:
        scale = min(scale, most / (LEAST_SIDE * max(height, width)))  # of a strip its length alone counts
    if scale >= 1:
        return height, width
    return max(int(height * scale), 1), max(int(width * scale), 1)


def promised_size(path: Path, max_megapixels: float, shorter_side: int | None) -> tuple[int, int] | None:
    """The size that `read_image` will give of a file by what its header says; None if that says nothing."""
    try:
        with open_regular(path) as stream, Image.open(stream) as image:
            width, height = image.size
            if image.getexif().get(ORIENTATION, 1) >= TURNED:
                width, height = height, width
    except Exception:  # whatever is wrong with it is said when it is read
        return None
    if shorter_side is not None:
        height, width = with_shorter_side(height, width, shorter_side)
    return limited_size(height, width, max_megapixels)


def half_size(image: RGB, kernel: Image.Resampling = Image.Resampling.BICUBIC) -> RGB:
    """The image at (w // 2, h // 2), at least one pixel, by Pillow's resize (bicubic is its default)."""
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((max(width // 2, 1), max(height // 2, 1)), kernel))


def to_shorter_side(image: RGB, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """The image scaled down so that its shorter side has `side` pixels; left alone if that is smaller already.

    As the authors of SPAQ do: Pillow's antialiased bilinear, the longer side rounded down.
    """
    given = image.shape[0], image.shape[1]
    height, width = with_shorter_side(*given, side)
    if (height, width) == given:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def with_shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image after `to_shorter_side`."""
    if min(height, width) <= side:
        return height, width
    return (side * height // width, side) if width <= height else (side, side * width // height)
