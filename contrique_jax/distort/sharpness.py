"""Sharpness and contrast: types 24 and 25 (docs/distortions.md)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.colourspaces import lab_from_rgb, rgb_from_lab, with_lightness
from contrique_jax.distort.filters import gaussian_taps, separable


def sharpen(key: PRNGKeyArray, image: Float[Array, "h w 3"], amount: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 24. Unsharp masking of the lightness L: `amount` times its distance from its blur with sigma 3 pixels."""
    lab = lab_from_rgb(image)
    lightness = lab[..., :1]
    sharper = lightness + amount * (lightness - separable(lightness, gaussian_taps(3.0, 6)))
    return rgb_from_lab(with_lightness(lab, sharper))


def contrast(key: PRNGKeyArray, image: Float[Array, "h w 3"], bend: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 25. The cubic through (0, 0), (0.3, 0.25 - bend / 4), (0.5, 0.5), (0.7, 0.75 + bend / 4), (1, 1), clipped.

    A bend of -0.2 changes nothing; above it the contrast about the middle rises, below it falls.
    """
    cubic = -(0.25 + 1.25 * bend) / 0.21
    u = image - 0.5
    return jnp.clip(0.5 + (1 - 0.25 * cubic) * u + cubic * u**3, 0, 1)
