"""Colour distortions: types 04, 05, 07 and 08 (docs/distortions.md)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from contrique_jax.distort.colourspaces import lab_from_rgb, rgb_from_lab
from contrique_jax.distort.filters import fft_filter, gaussian_taps, separable

DIFFUSION_RADIUS = 40  # of the widest Gaussian of the table [pixels]
FARTHEST_SHIFT = 12  # of the table [pixels]


def diffusion(key: PRNGKeyArray, image: Float[Array, "h w 3"], amount: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 04. In Lab, a and b are blurred (sigma 1.5 amount + 2 pixels) and multiplied by `amount`, at most 12."""
    lab = lab_from_rgb(image)
    taps = gaussian_taps(1.5 * amount + 2, DIFFUSION_RADIUS)
    colours = fft_filter(lab[..., 1:], amount * taps[:, None] * taps)
    return rgb_from_lab(jnp.concatenate([lab[..., :1], colours], axis=-1))


def shift(key: PRNGKeyArray, image: Float[Array, "h w 3"], amount: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 05. Green moves `amount` pixels (at most 12) in a random direction, down or right, the more the busier."""
    green = image[..., 1]
    margin = FARTHEST_SHIFT
    padded = jnp.pad(green, ((margin, 0), (margin, 0)), mode="edge")
    moved = jax.lax.dynamic_slice(padded, tuple(margin - shift_vector(key, amount)), green.shape)
    weight = edge_weight(image)
    return image.at[..., 1].set(moved * weight + green * (1 - weight))


def shift_vector(key: PRNGKeyArray, amount: Float[Array, ""]) -> Int[Array, "2"]:
    """(rows, columns) that green moves by."""
    direction = jax.random.uniform(key, (2,))
    length = jnp.sqrt((direction**2).sum())
    return jnp.floor(amount * direction / jnp.maximum(length, np.finfo(np.float32).tiny) + 0.5).astype(jnp.int32)


def edge_weight(image: Float[Array, "h w 3"]) -> Float[Array, "h w"]:
    """0 (flat parts) to 1 (strong edges): the blurred gradient of the grey image, its ends cut off at 1 % of the pixels."""
    grey = 0.298936 * image[..., 0] + 0.587043 * image[..., 1] + 0.114021 * image[..., 2]
    slope = jnp.sqrt(_differences(grey) ** 2 + _differences(grey.T).T ** 2)
    edges = separable(slope[..., None], gaussian_taps(4.0, 8))[..., 0]
    low, high = edges.min(), edges.max()
    # what a filter leaves of an even gradient is rounding errors, not to be blown up
    noise = 1e-4 * high
    even = high - low <= noise
    floor = low + 0.1 * (high - low)
    edges = jnp.maximum(edges, floor)
    pixels = edges.size
    rank = (99 * pixels + 50) // 100
    first, last = order_statistic(edges, pixels - rank), order_statistic(edges, rank - 1)
    # the stretches of the original are one: if nearly all pixels are alike, the last one changes nothing
    alike = (first - floor) / jnp.where(even, 1, high - floor)
    weight = jnp.where(last - first > noise, jnp.clip((edges - first) / jnp.maximum(last - first, noise), 0, 1), alike)
    return jnp.where(even, jnp.clip(edges, 0.1, 1), weight)


def _differences(plane: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Central differences down the rows, one-sided ones at the ends."""
    padded = jnp.pad(plane, ((1, 1), (0, 0)), mode="edge")
    distance = np.full((len(plane), 1), 2, np.float32)
    distance[[0, -1]] = 1
    return (padded[2:] - padded[:-2]) / distance


def order_statistic(values: Float[Array, "..."], rank: int) -> Float[Array, ""]:
    """The value at the 0-based `rank` of non-negative `values` in ascending order: exact, without sorting."""
    # such numbers are in the order of their bits: of these, 11, 10 and 10 are settled in turn by a histogram
    bits = jax.lax.bitcast_convert_type(values, jnp.int32).reshape(-1)
    found, left = jnp.int32(0), jnp.int32(rank)
    for settled, width in ((31, 11), (20, 10), (10, 10)):
        digits = jnp.where(bits >> settled == found, (bits >> (settled - width)) & (2**width - 1), 2**width)
        sums = jnp.cumsum(jnp.zeros(2**width, jnp.int32).at[digits].add(1, mode="drop"))
        digit = (sums <= left).sum(dtype=jnp.int32)
        left -= jnp.where(digit > 0, sums[digit - 1], 0)
        found = (found << width) | digit
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def hsv_saturation(key: PRNGKeyArray, image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 07. HSV saturation times `factor`, not clipped: a negative factor leaves values above 1."""
    # hue and value stay, so the distance of each channel from the value scales: no need to go through HSV
    value = jnp.maximum(jnp.maximum(image[..., 0:1], image[..., 1:2]), image[..., 2:3])
    return value - factor * (value - image)


def lab_saturation(key: PRNGKeyArray, image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 08. In Lab, a and b times `factor`."""
    return rgb_from_lab(lab_from_rgb(image) * jnp.stack([jnp.ones_like(factor), factor, factor]))
