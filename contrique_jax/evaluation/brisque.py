"""Hand-made statistics of natural scenes, which a trained network has to beat.

The 36 statistics are those of BRISQUE (Mittal, Moorthy and Bovik 2012), from the paper's formulas. At full and half size
the luminance is normalised locally, I = (i - mu) / (sigma + 1), mu and sigma under a Gaussian window of 7 x 7. Natural
images leave nearly Gaussian coefficients, and distortions change their shape: a generalised Gaussian is fitted to the
coefficients (shape, variance), an asymmetric one to the products of neighbours in four directions (shape, mean, left and
right variance).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage, special

from contrique_jax.data.sizes import read_image
from contrique_jax.errors import BrokenImage
from contrique_jax.inference.clip_features import SECONDS_BETWEEN, clip_features, images_and_clips
from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.io.machine import available_cores
from contrique_jax.io.progress import ahead

WIDTH = 36
WINDOW_DEVIATION, WINDOW_RADIUS = 7 / 6, 3
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, the two diagonals
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as MATLAB's rgb2gray
# Shapes between which a fit is looked up; 2 is a Gaussian, 1 a Laplacian.
SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = special.gamma(2 / SHAPES) ** 2 / (
    special.gamma(1 / SHAPES) * special.gamma(3 / SHAPES)
)  # rises with the shape


def natural_statistics(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "36"]:
    """The 36 statistics of an image of any size, full size first; finite also if the image is flat."""
    grey = image.astype(np.float32) @ GREY
    half = Image.fromarray(grey).resize((max(grey.shape[1] // 2, 1), max(grey.shape[0] // 2, 1)))
    return np.concatenate([_one_size(grey), _one_size(np.asarray(half))])


def _one_size(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "18"]:
    coefficients = normalised_luminance(grey)
    shape, left, right = fit_asymmetric(coefficients, symmetric=True)
    found = [shape, left]
    for dy, dx in NEIGHBOURS:
        products = coefficients * np.roll(coefficients, (dy, dx), (0, 1))
        shape, left, right = fit_asymmetric(products)
        width = np.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
        mean = (np.sqrt(right) - np.sqrt(left)) * width * special.gamma(2 / shape) / special.gamma(1 / shape)
        found += [shape, mean, left, right]
    return np.array(found, np.float64)


def normalised_luminance(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Mean-subtracted, contrast-normalised coefficients of a luminance of 0..255."""

    def blurred(values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        return ndimage.gaussian_filter(values, WINDOW_DEVIATION, radius=WINDOW_RADIUS, mode="nearest")

    centred = grey - grey.mean()  # float32 squares of small numbers
    mean = blurred(centred)
    deviation = np.sqrt(np.maximum(blurred(centred * centred) - mean * mean, 0))
    return (centred - mean) / (deviation + 1)


def fit_asymmetric(values: Float[np.ndarray, "..."], symmetric: bool = False) -> tuple[float, float, float]:
    """(shape, left variance, right variance) of an asymmetric generalised Gaussian about 0, by matching moments
    (Lasmar, Stitou and Berthoumieu 2009); `symmetric`: both sides have the one variance."""
    values = values.astype(np.float64).ravel()
    square, size = values * values, np.abs(values)
    total = float(square.mean())
    if not total > 0:
        return float(SHAPES[-1]), 0.0, 0.0
    left = right = total
    if not symmetric:
        left, right = (float(square[side].mean()) if side.any() else 0.0 for side in (values < 0, values > 0))
    ratio = float(size.mean()) ** 2 / total
    if left > 0 and right > 0:
        skew = np.sqrt(left / right)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return float(SHAPES[min(int(np.searchsorted(RATIOS, ratio)), len(SHAPES) - 1)]), left, right


class NaturalStatistics:
    """`natural_statistics` of files, as an `Extractor` gives the features of a network."""

    model_hash = "natural-statistics-1"
    width = WIDTH
    seconds_between, block_frames = SECONDS_BETWEEN, 8

    def __init__(self, *, max_megapixels: float, shorter_side: int | None = None):
        self.max_megapixels, self.shorter_side = max_megapixels, shorter_side

    def stream(self, paths: Iterable[Path]) -> Iterator[FileFeatures]:
        """File by file, in order; of a clip the mean of its frames."""
        return images_and_clips(paths, self._images, functools.partial(clip_features, self))

    def of_block(self, images: list[UInt8[np.ndarray, "h w 3"]]) -> Float[np.ndarray, "36"]:
        return np.mean([natural_statistics(image) for image in images], axis=0)

    def _images(self, paths: Iterable[Path]) -> Iterator[FileFeatures]:
        """A thread a core is at work ahead of the reader."""
        workers = available_cores()
        pool = ThreadPoolExecutor(workers)
        try:
            yield from ahead(pool, self._one, paths, 4 * workers)
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, path: Path) -> FileFeatures:
        try:
            image, reduced = read_image(path, self.max_megapixels, self.shorter_side)
        except BrokenImage as error:
            return FileFeatures(path, None, broken=error)
        return FileFeatures(path, natural_statistics(image).astype(np.float32), reduced=reduced)
