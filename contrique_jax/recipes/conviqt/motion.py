"""A photograph becomes a clip: a window that pans over it, zooms, and shakes as a hand does."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

LEAST, MOST = 0.55, 0.9  # sides of the window, as shares of the largest that fits
PAN, ZOOM = 0.012, 0.006  # deviations of the speed: shares of the photograph's side, and of the window's, a frame
SHAKE, SHAKE_KEPT = 0.004, 0.8  # largest deviation of the hand, share of a side; how much of it stays to the next frame


def camera(generator: np.random.Generator, frames: int) -> Float[np.ndarray, "t 3"]:
    """Of each frame the window's centre (y, x), as shares of the room it has, and its side, as a share of the largest."""
    speed = generator.normal(0, PAN, 2)
    place, side = generator.uniform(0.1, 0.9, 2), generator.uniform(LEAST, MOST)
    zoom, shake = generator.normal(0, ZOOM), generator.uniform(0, SHAKE)
    hand = np.zeros(2)
    path = np.empty((frames, 3))
    for t in range(frames):
        hand = SHAKE_KEPT * hand + shake * generator.standard_normal(2)
        path[t] = *_bounced(place + speed * t + hand, 0, 1), *_bounced(np.array([side * np.exp(zoom * t)]), LEAST, 1)
    return path


def _bounced(values: Float[np.ndarray, " n"], low: float, high: float) -> Float[np.ndarray, " n"]:
    """Values as a ball between two walls has them."""
    span = high - low
    return low + span - np.abs((values - low) % (2 * span) - span)


def filmed(
    image: UInt8[np.ndarray, "h w 3"], path: Float[np.ndarray, "t 3"], height: int, width: int
) -> UInt8[np.ndarray, "t H W 3"]:
    """What a camera of height x width sees along `path` (bicubic); a portrait is turned by 90 degrees for a landscape."""
    if (image.shape[0] - image.shape[1]) * (height - width) < 0:
        image = np.ascontiguousarray(np.rot90(image))
    whole, (h, w) = Image.fromarray(image), image.shape[:2]
    largest = min(h / height, w / width)
    out = np.empty((len(path), height, width, 3), np.uint8)
    for t, (y, x, side) in enumerate(path):
        window_h, window_w = largest * side * height, largest * side * width
        top, left = y * (h - window_h), x * (w - window_w)
        box = (left, top, min(left + window_w, w), min(top + window_h, h))
        out[t] = np.asarray(whole.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))
    return out
