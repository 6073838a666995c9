"""Spatial distortions: types 19, 20, 21 and 23 (docs/distortions.md)."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from contrique_jax.distort import random_numbers

PATCH, PATCH_MARGIN, MOST_PATCHES = 16, 15, 100  # pixels, pixels, count
BLOCK, MOST_BLOCKS = 32, 10  # pixels, count
JITTERS = 5
_REACH = 3  # pixels beyond the border that the cubic looks at


def jitter(key: PRNGKeyArray, image: Float[Array, "h w 3"], amount: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 19. Five times, each pixel is taken from a place at normal distances, of deviation `amount` pixels an axis.

    The cubic overshoots, so values may leave [0, 1].
    """

    def turn(i: Int[Array, ""], image: Float[Array, "h w 3"]) -> Float[Array, "h w 3"]:
        return shifted(image, amount * random_numbers.normal(jax.random.fold_in(key, i), (2, *image.shape[:2])))

    return jax.lax.fori_loop(0, JITTERS, turn, image)


def shifted(image: Float[Array, "h w 3"], shift: Float[Array, "2 h w"]) -> Float[Array, "h w 3"]:
    """The image at (row - shift[0], column - shift[1]) of each pixel, by Keys' cubic with the border repeated.

    Shifts are in pixels and may be of any size.
    """
    height, width, channels = image.shape
    padded = jnp.pad(image, ((_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    pixels = jax.lax.optimization_barrier(padded.reshape(-1, channels))
    whole = jnp.floor(-shift)  # apart from the place: a float32 of some hundreds leaves the fraction few digits
    rows, columns = (_keys_weights(part) for part in -shift - whole)
    # from 2 pixels outside on, all four taps see the border pixel
    place = jnp.indices((height, width)) + whole.astype(jnp.int32)
    corner = [jnp.clip(along, -2, length) + _REACH - 1 for along, length in zip(place, (height, width), strict=True)]
    stride = width + 2 * _REACH
    first = corner[0] * stride + corner[1]
    total = jnp.zeros_like(image)
    for down, across in itertools.product(range(4), range(4)):
        taken = pixels.at[first + (down * stride + across)].get(mode="promise_in_bounds")
        total += (rows[down] * columns[across])[..., None] * taken
    return total


def _keys_weights(t: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """Keys' cubic convolution (a = -0.5) at the distances 1 + t, t, 1 - t and 2 - t, t in [0, 1]."""
    return (
        ((1 - 0.5 * t) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((2 - 1.5 * t) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


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
    chance = jax.random.uniform(key, (2, MOST_PATCHES, 2))
    room = np.array([height, width], np.float32) - 48
    sources = jnp.floor(chance[0] * room + 0.5).astype(jnp.int32) + PATCH_MARGIN
    return sources, sources + jnp.floor((chance[1] - 0.5) * PATCH + 0.5).astype(jnp.int32)


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
