"""Images as Python code has them, Pillow's or arrays, in the form in which files are read: uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from contrique_jax.data.decode import of_samples, to_rgb, upright
from contrique_jax.errors import BrokenImage, UserError

ONE = str | os.PathLike[str] | Image.Image
FORMS = "uint8 [H, W, 3] or [H, W], a Pillow image or a path"


def as_list(images: Any) -> list[Any]:
    """Images that a caller gave, one by one: a single path, Pillow image or array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]
    is a list of one. Raises UserError for what is neither an image nor a list of some."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and (images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3, 4))):
        return [images]
    if not isinstance(images, Sequence | np.ndarray) or isinstance(images, bytes):
        raise UserError(f"images: {type(images).__name__} {images!r:.60} is no list; give [image, ...], each {FORMS}.")
    return list(images)


def as_rgb(image: Any, name: str = "image") -> UInt8[np.ndarray, "h w 3"]:
    """A Pillow image, or an array of bytes or 16-bit integers of one of `as_list`'s shapes -> RGB as `decode` makes it of a
    file: grey in three channels, over white, from its profile to sRGB, upright; an RGB array is left as it is.

    Raises BrokenImage, which calls it `name`, for anything else.
    """
    found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    if isinstance(image, Image.Image):
        try:
            image.load()
            pixels = np.asarray(to_rgb(upright(image)))
        except (OSError, ValueError) as error:
            raise BrokenImage(name, f"damaged or cut off ({error})") from error
    elif _is_picture(image):
        samples = image if image.ndim == 3 else image[..., None]
        plain = samples.dtype == np.uint8 and samples.shape[2] == 3
        pixels = samples if plain or not samples.size else np.asarray(to_rgb(of_samples(samples)))
    else:
        raise UserError(f"{name} is {found}; give {FORMS}.")
    if pixels.size == 0:
        raise UserError(f"{name} is {found}, which has no pixels.")
    return np.ascontiguousarray(pixels)


def _is_picture(image: Any) -> bool:
    if not isinstance(image, np.ndarray) or image.dtype not in (np.uint8, np.uint16):
        return False
    return image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
