"""Colour distortions: types 04, 07 and 08 (specification, section 3)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.colourspaces import lab_from_rgb, rgb_from_lab
from contrique_jax.distort.filters import fft_filter, gaussian_taps

DIFFUSION_RADIUS = 40  # of the widest Gaussian of the table [pixels]


def diffusion(key: PRNGKeyArray, image: Float[Array, "h w 3"], amount: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 04. In Lab, a and b are blurred (sigma 1.5 amount + 2 pixels) and multiplied by `amount`, at most 12."""
    lab = lab_from_rgb(image)
    taps = gaussian_taps(1.5 * amount + 2, DIFFUSION_RADIUS)
    colours = fft_filter(lab[..., 1:], amount * taps[:, None] * taps)
    return rgb_from_lab(jnp.concatenate([lab[..., :1], colours], axis=-1))


def hsv_saturation(key: PRNGKeyArray, image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 07. HSV saturation times `factor`, not clipped: a negative factor leaves values above 1."""
    # hue and value stay, so the distance of each channel from the value scales: no need to go through HSV
    value = jnp.maximum(jnp.maximum(image[..., 0:1], image[..., 1:2]), image[..., 2:3])
    return value - factor * (value - image)


def lab_saturation(key: PRNGKeyArray, image: Float[Array, "h w 3"], factor: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 08. In Lab, a and b times `factor`."""
    return rgb_from_lab(lab_from_rgb(image) * jnp.stack([jnp.ones_like(factor), factor, factor]))
