"""Means and deviations of one image's maps and of their windows, in NumPy: `pooling` for `lite0`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

WINDOWS, WINDOW = 13, 1 / 4  # along each side of an image: how many, and the share of it that one spans
LEAST_VARIANCE = 1e-6  # added to a variance before the root, whose gradient is then finite at 0

HostMap = Float[np.ndarray, "h w c"]


def global_statistics(maps: Iterable[HostMap]) -> Float[np.ndarray, " d"]:
    """As `pooling.global_statistics`, float32."""
    return np.concatenate([part for x in maps for part in _over_all(x)])


def window_statistics(maps: Iterable[HostMap]) -> Float[np.ndarray, "g g d"]:
    """As `pooling.window_statistics`, float32."""
    vectors = []
    for x in maps:
        mean = _mean(x)
        off = x - mean  # about the mean, so that the difference below keeps its digits
        shift = _window_means(off)
        vectors += [mean + shift, _deviation(np.maximum(_window_means(np.square(off)) - np.square(shift), 0))]
    return np.concatenate(vectors, axis=2)


def _over_all(x: HostMap) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    mean = _mean(x)
    return mean, _deviation(np.square(x - mean).mean((0, 1), dtype=np.float64)).astype(np.float32)


def _mean(x: HostMap) -> Float[np.ndarray, " c"]:
    return x.mean((0, 1), dtype=np.float64).astype(np.float32)


def _window_means(x: HostMap) -> Float[np.ndarray, "g g c"]:
    rows, columns = (_shares(side) for side in x.shape[:2])
    return np.stack([columns @ row for row in np.tensordot(rows, x, 1)])


def _shares(side: int) -> Float[np.ndarray, "g side"]:
    """What each pixel of a side counts in each window along it."""
    first = np.linspace(0, 1 - WINDOW, WINDOWS)[:, None] * side
    pixel = np.arange(side)
    shared = np.minimum(pixel + 1, first + WINDOW * side) - np.maximum(pixel, first)
    return (np.maximum(shared, 0) / (WINDOW * side)).astype(np.float32)


def _deviation(variance: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.sqrt(variance + LEAST_VARIANCE)
