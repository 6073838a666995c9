"""Canvas and views of single photographs of any size, in NumPy on the host.

Images are scaled in three places of the package, each by the filter of what it repeats:

- `to_canvas` here: bicubic, as MATLAB's imresize
- `authentic_view` here and `augment.views.half_size`: bilinear, as torchvision's Resize in the original's training
- `data.sizes`: `half_size` and the limit of megapixels bicubic, as Pillow's default in the original's scoring;
  `to_shorter_side` bilinear, as the authors of SPAQ
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def to_canvas(image: UInt8[np.ndarray, "h w 3"], height: int = 384, width: int = 512) -> UInt8[np.ndarray, "H W 3"]:
    """The image brought to height x width: turned by 90 degrees if one is portrait and the other landscape, scaled
    to cover (antialiased bicubic, as MATLAB's imresize), centre-cropped. Returned as it is if it already fits."""
    if (image.shape[0] - image.shape[1]) * (height - width) < 0:
        image = np.ascontiguousarray(np.rot90(image))
    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return image
    scale = min(h / height, w / width)
    top, left = (h - height * scale) / 2, (w - width * scale) / 2
    box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(resized)


def authentic_view(
    image: UInt8[np.ndarray, "h w 3"], div: int, y: float, x: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A view of a photograph of any size, with the original's geometry (docs/contrique.md).

    The photograph at 1/div of its size (`div` 1 or 2; Pillow's antialiased bilinear); then, if a side is under
    `size`, both sides are centre-cropped or zero-padded; else a crop at the place `y`, `x`, each uniform in [0, 1).
    """
    h, w = max(image.shape[0] // div, 1), max(image.shape[1] // div, 1)
    if h < size or w < size:
        small = image if div == 1 else np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
        return _centre(_centre(small, size, axis=0), size, axis=1)
    top = min(math.floor(y * (h - size + 1)), h - size)
    left = min(math.floor(x * (w - size + 1)), w - size)
    if div == 1:
        return image[top : top + size, left : left + size]
    (first_row, last_row, top), (first_column, last_column, left) = (
        _needed(image.shape[0], top, size),
        _needed(image.shape[1], left, size),
    )
    region = np.ascontiguousarray(image[first_row:last_row, first_column:last_column])
    shape = (region.shape[1] // 2, region.shape[0] // 2)
    half = np.asarray(Image.fromarray(region).resize(shape, Image.Resampling.BILINEAR))
    return half[top : top + size, left : left + size]


def _needed(side: int, start: int, size: int) -> tuple[int, int, int]:
    """First and last source pixel needed for `size` pixels of the half-size side from `start`, and their new start.

    Halving an even side reaches one source pixel past a pixel's own two, so one half-size pixel of margin makes the
    crop exact. An odd side is scaled by a little more than two, at a phase that changes along it: it stays whole.
    """
    if side % 2:
        return 0, side, start
    first, last = max(start - 1, 0), min(start + size + 1, side // 2)
    return 2 * first, 2 * last, start - first


def _centre(image: UInt8[np.ndarray, "h w 3"], size: int, axis: int) -> UInt8[np.ndarray, "..."]:
    """Crops or zero-pads one axis to `size` about its centre, rounding as torchvision's CenterCrop."""
    side = image.shape[axis]
    if side >= size:
        start = round((side - size) / 2)  # half to even
        return image[start : start + size] if axis == 0 else image[:, start : start + size]
    before = (size - side) // 2
    padding = [(0, 0)] * image.ndim
    padding[axis] = (before, size - side - before)
    return np.pad(image, padding)
