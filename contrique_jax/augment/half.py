"""Half size of whole images on a device, in two ways (`augment.host_views` names the others)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def half_scale(images: Float[Array, "n h w 3"], kernel: str = "cubic") -> Float[Array, "n h//2 w//2 3"]:
    """Images in [0, 1] at half size, by Pillow's kernel of that name ("cubic", "linear") without its rounding to bytes."""
    n, height, width, channels = images.shape
    shape = (n, max(height // 2, 1), max(width // 2, 1), channels)
    return jnp.clip(jax.image.resize(images, shape, kernel, antialias=True), 0, 1)


def half_by_points(images: Float[Array, "n h w 3"]) -> Float[Array, "n h//2 w//2 3"]:
    """At half size, each pixel by a cubic through 4 x 4 pixels about a point, the corners on the corners: torch's interpolate
    with mode "bicubic" and align_corners. It does not filter before, and leaves [0, 1]."""
    rows, columns = (_at_points(side) for side in images.shape[1:3])
    across = jnp.einsum("ij,nhjc->nhic", columns, images, precision="highest")
    return jnp.einsum("ij,njwc->niwc", rows, across, precision="highest")


@functools.lru_cache(maxsize=8)
def _at_points(side: int) -> Float[np.ndarray, "s//2 s"]:
    few, a = max(side // 2, 1), -0.75
    points = np.arange(few) * ((side - 1) / max(few - 1, 1))
    first = np.floor(points).astype(int)
    weights = np.zeros((few, side), np.float32)
    for tap in range(-1, 3):
        x = np.abs(points - first - tap)
        near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * a * x - 4 * a
        np.add.at(weights, (np.arange(few), np.clip(first + tap, 0, side - 1)), np.where(x <= 1, near, far))
    return weights
