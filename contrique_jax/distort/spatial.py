"""Spatial distortions: types 20, 21 and 23 (specification, section 3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

PATCH, PATCH_MARGIN, MOST_PATCHES = 16, 15, 100  # pixels, pixels, count
BLOCK, MOST_BLOCKS = 32, 10  # pixels, count


def patches(key: PRNGKeyArray, image: Float[Array, "h w 3"], count: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 20. `count` times (at most 100), a patch of 16 x 16 pixels is copied to a place up to 8 pixels off.

    Height and width of at least 48 pixels.
    """
    sources, targets = patch_moves(key, *image.shape[:2])
    size = (PATCH, PATCH, image.shape[2])

    def move(i: Int[Array, ""], done: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        # past the count a patch moves onto itself: a fixed number of turns keeps vmap from copying the image in each
        source, target = (jnp.append(place, 0) for place in (sources[i], jnp.where(i < count, targets[i], sources[i])))
        return jax.lax.dynamic_update_slice(done, jax.lax.dynamic_slice(done, source, size), target)

    return jax.lax.fori_loop(0, MOST_PATCHES, move, image)


def patch_moves(key: PRNGKeyArray, height: int, width: int) -> tuple[Int[Array, "100 2"], Int[Array, "100 2"]]:
    """(row, column) of the patches' top left corners before and after their moves."""
    draws = jax.random.uniform(key, (2, MOST_PATCHES, 2))
    room = np.array([height, width], np.float32) - 48
    sources = jnp.floor(draws[0] * room + 0.5).astype(jnp.int32) + PATCH_MARGIN
    return sources, sources + jnp.floor((draws[1] - 0.5) * PATCH + 0.5).astype(jnp.int32)


def pixelate(
    key: PRNGKeyArray, image: Float[Array, "h w 3"], level: Int[Array, ""], strengths: tuple[float, ...]
) -> Float[Array, "h w 3"]:
    """Type 21. Nearest-neighbour scaling down by 0.95 - strength^0.6 and back up, strength = strengths[level - 1]."""
    rows, columns = (
        jnp.asarray(np.stack([_nearest(0.95 - strength**0.6, length) for strength in strengths]))[level - 1]
        for length in image.shape[:2]
    )
    return image[rows][:, columns]


def _nearest(scale: float, length: int) -> np.ndarray:
    """For each pixel of a side of `length` pixels, the pixel seen there after scaling down by `scale` and back up."""
    small = int(np.ceil(scale * length))
    index = (2 * np.arange(length) + 1) * small // (2 * length)
    # the scale itself, not small / length, takes the small pixels back, as MATLAB does
    return np.minimum(np.floor((index + 0.5) / scale), length - 1).astype(np.int32)


def colour_blocks(key: PRNGKeyArray, image: Float[Array, "h w 3"], count: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 23. `count` squares (at most 10) of 32 x 32 pixels in random colours, later ones over earlier ones.

    Height and width of at least 32 pixels.
    """
    corners, colours = block_places(key, *image.shape[:2])
    rows, columns = (jnp.arange(length) for length in image.shape[:2])
    for i in range(MOST_BLOCKS):
        inside_rows = (rows >= corners[i, 0]) & (rows < corners[i, 0] + BLOCK) & (i < count)
        inside_columns = (columns >= corners[i, 1]) & (columns < corners[i, 1] + BLOCK)
        image = jnp.where((inside_rows[:, None] & inside_columns)[..., None], colours[i], image)
    return image


def block_places(key: PRNGKeyArray, height: int, width: int) -> tuple[Int[Array, "10 2"], Float[Array, "10 3"]]:
    """(row, column) of the squares' top left corners, and their colours."""
    corner_key, colour_key = jax.random.split(key)
    room = np.array([height, width], np.float32) - BLOCK
    corners = jnp.floor(jax.random.uniform(corner_key, (MOST_BLOCKS, 2)) * room + 0.5).astype(jnp.int32) - 1
    return jnp.maximum(corners, 0), jax.random.uniform(colour_key, (MOST_BLOCKS, 3))
