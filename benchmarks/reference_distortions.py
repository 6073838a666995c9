"""The 25 distortions as one would write them for one image with Pillow, OpenCV, SciPy, scikit-image and NumPy.

What `benchmarks/distortions.py` compares with: uint8 to uint8, stretched before and after as ours are.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.ndimage
import scipy.optimize
import skimage.color
import skimage.restoration
from PIL import Image

from contrique_jax.distort import bank

Floats = np.ndarray  # float32 [H, W, 3] in [0, 1]


class Reference(NamedTuple):
    """One library's way, and how its work compares with ours."""

    library: str
    run: Callable[[Floats, float, np.random.Generator], Floats]
    remark: str = ""


def gaussian(x: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    radius = int(np.ceil(2 * sigma))
    return scipy.ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest", radius=(radius, radius, 0))


def lens(x: Floats, radius: float, rng: np.random.Generator) -> Floats:
    offset = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1)
    kernel = np.clip(radius + 0.5 - np.hypot(offset[:, None], offset), 0, 1)
    return cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def motion(x: Floats, length: float, rng: np.random.Generator) -> Floats:
    angle, offset = np.deg2rad(rng.integers(0, 181)), np.arange(-5, 6)
    along = offset * np.cos(angle) - offset[:, None] * np.sin(angle)
    across = offset * np.sin(angle) + offset[:, None] * np.cos(angle)
    half = (length - 1) / 2
    kernel = np.maximum(1 - np.hypot(along - np.clip(along, -half, half), across), 0)
    return cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def diffusion(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    lab = skimage.color.rgb2lab(x)
    lab[..., 1:] = amount * gaussian(lab[..., 1:], 1.5 * amount + 2, rng)
    return skimage.color.lab2rgb(lab)


def colour_shift(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    direction = rng.random(2)
    rows, columns = np.rint(amount * direction / np.hypot(*direction)).astype(int)
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)
    edges = scipy.ndimage.gaussian_filter(np.hypot(*np.gradient(grey)), 4, mode="nearest", radius=8)
    low, high = np.percentile(edges, (1, 99))
    weight = np.clip((edges - low) / max(high - low, 1e-6), 0, 1)
    out = x.copy()
    green = np.pad(x[..., 1], ((rows, 0), (columns, 0)), mode="edge")[: x.shape[0], : x.shape[1]]
    out[..., 1] = green * weight + x[..., 1] * (1 - weight)
    return out


def palette(x: Floats, count: float, rng: np.random.Generator) -> Floats:
    image = Image.fromarray(in_bytes(x))
    colours = image.quantize(int(count))  # Pillow dithers only where it is given the palette
    return np.asarray(image.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")) / np.float32(
        255
    )


def hsv(x: Floats, factor: float, rng: np.random.Generator) -> Floats:
    changed = cv2.cvtColor(x, cv2.COLOR_RGB2HSV) * np.float32([1, factor, 1])
    return cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)


def lab(x: Floats, factor: float, rng: np.random.Generator) -> Floats:
    return skimage.color.lab2rgb(skimage.color.rgb2lab(x) * np.float32([1, factor, factor]))


def coded(x: Floats, kind: str, **how: Any) -> Floats:
    file = io.BytesIO()
    Image.fromarray(in_bytes(x)).save(file, kind, **how)
    return np.asarray(Image.open(file)) / np.float32(255)


def jpeg2000(x: Floats, ratio: float, rng: np.random.Generator) -> Floats:
    return coded(
        x, "JPEG2000", irreversible=True, mct=1, quality_mode="rates", quality_layers=[ratio], num_resolutions=6
    )


def jpeg(x: Floats, quality: float, rng: np.random.Generator) -> Floats:
    return coded(x, "JPEG", quality=int(quality), subsampling="4:2:0")


def white(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    return np.clip(x + np.float32(np.sqrt(variance)) * rng.standard_normal(x.shape, np.float32), 0, 1)


def white_ycbcr(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    noisy = white(skimage.color.rgb2ycbcr(x).astype(np.float32) / 255, variance, rng)
    return np.clip(skimage.color.ycbcr2rgb(255 * noisy), 0, 1)


def impulse(x: Floats, density: float, rng: np.random.Generator) -> Floats:
    chance = rng.random(x.shape, np.float32)
    return np.where(chance < density / 2, np.float32(0), np.where(chance < density, np.float32(1), x))


def multiplicative(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    return np.clip(
        x * (1 + np.float32(np.sqrt(12 * variance)) * (rng.random(x.shape, np.float32) - np.float32(0.5))), 0, 1
    )


def denoise(x: Floats, variance: float, rng: np.random.Generator) -> Floats:
    return skimage.restoration.denoise_wavelet(white(x, variance, rng), channel_axis=-1, rescale_sigma=True)


def curve(x: Floats, bend: float) -> Floats:
    return np.clip(x + np.float32(2 * bend) * x * (1 - x), 0, 1)


def brighten(x: Floats, bend: float, rng: np.random.Generator) -> Floats:
    both = skimage.color.rgb2lab(x)
    both[..., 0] = 100 * curve(both[..., 0] / 100, bend)
    return (2 * curve(x, bend) + skimage.color.lab2rgb(both)) / 3


def darken(x: Floats, bend: float, rng: np.random.Generator) -> Floats:
    return curve(x, -bend)


def mean_shift(x: Floats, offset: float, rng: np.random.Generator) -> Floats:
    return np.clip(x + np.float32(offset), 0, 1)


def jitter(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    grid = np.indices(x.shape[:2], np.float32)
    for _ in range(5):
        place = grid - np.float32(amount) * rng.standard_normal(grid.shape, np.float32)
        planes = [scipy.ndimage.map_coordinates(x[..., c], place, order=3, mode="nearest") for c in range(3)]
        x = np.stack(planes, -1)
    return x


def patches(x: Floats, count: float, rng: np.random.Generator) -> Floats:
    out = x.copy()
    for _ in range(int(count)):
        row, column = 15 + rng.integers(0, [x.shape[0] - 47, x.shape[1] - 47])
        down, across = rng.integers(-8, 9, 2)
        out[row + down : row + down + 16, column + across : column + across + 16] = out[
            row : row + 16, column : column + 16
        ].copy()
    return out


def pixelate(x: Floats, strength: float, rng: np.random.Generator) -> Floats:
    scale = 0.95 - strength**0.6
    small = cv2.resize(x, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(small, x.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def thresholds(x: Floats, count: float, rng: np.random.Generator) -> Floats:
    """MATLAB's way: Nelder-Mead on the histogram."""
    counts = np.bincount(in_bytes(x).ravel(), minlength=256).astype(float)
    weights, sums = (np.concatenate([[0], np.cumsum(part)]) for part in (counts, counts * np.arange(256)))

    def loss(t: np.ndarray) -> float:
        cuts = np.concatenate([[0], np.clip(np.sort(np.rint(t)), 0, 255).astype(int) + 1, [256]])
        weight, total = np.diff(weights[cuts]), np.diff(sums[cuts])
        return -float((total**2 / np.maximum(weight, 1)).sum())

    start = np.linspace(0, 255, int(count) + 2)[1:-1]
    found = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1.0}).x
    found = np.sort(np.rint(found)).astype(np.float32) / 255
    return np.concatenate([[0], found[1:], [1]]).astype(np.float32)[np.digitize(x, found, right=True)]


def blocks(x: Floats, count: float, rng: np.random.Generator) -> Floats:
    out = x.copy()
    for _ in range(int(count)):
        row, column = rng.integers(0, [x.shape[0] - 32, x.shape[1] - 32])
        out[row : row + 32, column : column + 32] = rng.random(3, np.float32)
    return out


def sharpen(x: Floats, amount: float, rng: np.random.Generator) -> Floats:
    both = skimage.color.rgb2lab(x)
    blurred = scipy.ndimage.gaussian_filter(both[..., 0], 3, mode="nearest", radius=6)
    both[..., 0] += np.float32(amount) * (both[..., 0] - blurred)
    return skimage.color.lab2rgb(both)


def contrast(x: Floats, bend: float, rng: np.random.Generator) -> Floats:
    cubic = np.float32(-(0.25 + 1.25 * bend) / 0.21)
    u = x - np.float32(0.5)
    return np.clip(np.float32(0.5) + (1 - cubic / 4) * u + cubic * u * u * u, 0, 1)


REFERENCES = {
    1: Reference("scipy gaussian_filter", gaussian),
    2: Reference("cv2 filter2D", lens),
    3: Reference("cv2 filter2D", motion),
    4: Reference("skimage Lab, scipy gaussian_filter", diffusion),
    5: Reference("numpy, scipy gaussian_filter", colour_shift),
    6: Reference("Pillow quantize, dithered", palette, "< median cut, 6 bits"),
    7: Reference("cv2 HSV", hsv),
    8: Reference("skimage Lab", lab),
    9: Reference("Pillow JPEG2000", jpeg2000, "> writes a file"),
    10: Reference("Pillow JPEG", jpeg, "> writes a file; 8-bit SIMD"),
    11: Reference("numpy standard_normal", white),
    12: Reference("skimage YCbCr, numpy", white_ycbcr),
    13: Reference("numpy random", impulse),
    14: Reference("numpy random", multiplicative),
    15: Reference("skimage denoise_wavelet", denoise, "< another, weaker denoiser"),
    16: Reference("skimage Lab, numpy", brighten),
    17: Reference("numpy", darken),
    18: Reference("numpy", mean_shift),
    19: Reference("scipy map_coordinates x 5", jitter, "> prefilters a spline"),
    20: Reference("numpy slices", patches),
    21: Reference("cv2 resize", pixelate),
    22: Reference("scipy Nelder-Mead, numpy digitize", thresholds, "< not the optimum"),
    23: Reference("numpy slices", blocks),
    24: Reference("skimage Lab, scipy gaussian_filter", sharpen),
    25: Reference("numpy", contrast),
}


def in_bytes(x: Floats) -> np.ndarray:
    return np.floor(255 * x + np.float32(0.5)).astype(np.uint8)


def stretched(x: Floats) -> Floats:
    low, high = x.min(), x.max()
    return (x - low) / max(high - low, np.float32(1e-6))


def theirs(image: np.ndarray, type: int, level: int, rng: np.random.Generator) -> np.ndarray:
    """The reference with what goes before and after it: stretched to floats, and back to bytes."""
    x = stretched(image.astype(np.float32) / np.float32(255))
    value = bank.BANK[type - 1].levels[level - 1]
    return in_bytes(stretched(REFERENCES[type].run(x, value, rng).astype(np.float32, copy=False)))
