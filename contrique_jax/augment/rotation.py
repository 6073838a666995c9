"""Rotation of an image about its centre, by any angle."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def rotated(image: Float[Array, "h w c"], angle: Float[Array, ""], outside: float) -> Float[Array, "h w c"]:
    """Anticlockwise by `angle` [radians]: each pixel is the nearest one of the image at its place before; those from outside
    the image have the value `outside`."""
    height, width = image.shape[:2]
    down, across = (jnp.arange(side) - (side - 1) / 2 for side in (height, width))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    y = jnp.round(cos * down[:, None] + sin * across[None, :] + (height - 1) / 2).astype(jnp.int32)
    x = jnp.round(cos * across[None, :] - sin * down[:, None] + (width - 1) / 2).astype(jnp.int32)
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    found = image[jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)]
    return jnp.where(inside[:, :, None], found, outside)
