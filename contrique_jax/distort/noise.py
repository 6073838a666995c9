"""Noises: types 11 to 14 (docs/distortions.md)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort import random_numbers
from contrique_jax.distort.colourspaces import rgb_from_ycbcr, ycbcr_from_rgb


def white_noise(key: PRNGKeyArray, image: Float[Array, "h w 3"], variance: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 11. Adds normal noise to each sample and clips."""
    return jnp.clip(image + jnp.sqrt(variance) * random_numbers.normal(key, image.shape), 0, 1)


def colour_noise(key: PRNGKeyArray, image: Float[Array, "h w 3"], variance: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 12. The same in studio-range YCbCr."""
    return rgb_from_ycbcr(white_noise(key, ycbcr_from_rgb(image), variance))


def impulse_noise(key: PRNGKeyArray, image: Float[Array, "h w 3"], density: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 13. Of all samples, a share `density` goes to 0 or 1, each channel on its own."""
    chance = random_numbers.words(key, image.shape)
    return jnp.where(chance < _share(density / 2), 0.0, jnp.where(chance < _share(density), 1.0, image))


def _share(density: Float[Array, ""]) -> Array:
    """The number below which that share of all 32-bit words lies."""
    return (density * 2.0**32).astype(jnp.uint32)


def speckle_noise(key: PRNGKeyArray, image: Float[Array, "h w 3"], variance: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 14. Multiplies each sample by 1 + n, n uniform about 0 with this variance, and clips."""
    return jnp.clip(image + image * (jnp.sqrt(3 * variance) * random_numbers.uniform(key, image.shape)), 0, 1)
