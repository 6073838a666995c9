"""Brightness changes: types 16 to 18 (docs/distortions.md)."""

from __future__ import annotations

import dm_pix as pix
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.colourspaces import lab_from_rgb, rgb_from_lab, with_lightness


def curve(x: Float[Array, "..."], bend: Float[Array, ""]) -> Float[Array, "..."]:
    """The parabola through (0, 0), (0.5, 0.5 + bend / 2) and (1, 1), clipped to [0, 1]."""
    return jnp.clip(x + 2 * bend * x * (1 - x), 0, 1)


def brighten(key: PRNGKeyArray, image: Float[Array, "h w 3"], bend: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 16. Two parts of the curve on R, G, B and one part of the curve on the lightness L."""
    lab = lab_from_rgb(image)
    lightness = 100 * curve(lab[..., :1] / 100, bend)
    lit = rgb_from_lab(with_lightness(lab, lightness))
    return (2 * curve(image, bend) + lit) / 3


def darken(key: PRNGKeyArray, image: Float[Array, "h w 3"], bend: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 17. The curve bent down."""
    return curve(image, -bend)


def shift(key: PRNGKeyArray, image: Float[Array, "h w 3"], offset: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 18. Adds `offset` and clips."""
    return jnp.clip(pix.adjust_brightness(image, offset), 0, 1)
