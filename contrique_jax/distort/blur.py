"""Blurs: types 01 to 03 (docs/distortions.md)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.filters import fft_filter, gaussian_taps, separable

# the largest radii of the table [pixels]
GAUSSIAN_RADIUS, LENS_RADIUS, MOTION_RADIUS = 10, 8, 5


def gaussian(key: PRNGKeyArray, image: Float[Array, "h w 3"], sigma: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 01. `sigma` in pixels, at most 5; the Gaussian is cut at two sigmas."""
    # not pix.gaussian_blur: its kernel size is static, it borders with zeros, and it takes 50 times as long on a CPU
    return separable(image, gaussian_taps(sigma, GAUSSIAN_RADIUS))


def lens(key: PRNGKeyArray, image: Float[Array, "h w 3"], radius: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 02. The mean over a disk of `radius` pixels, at most 8."""
    return fft_filter(image, disk_kernel(radius, LENS_RADIUS))


def motion(key: PRNGKeyArray, image: Float[Array, "h w 3"], length: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 03. The mean along a line of `length` pixels, at most 10, at a whole angle drawn from 0..180 degrees."""
    degrees = jax.random.randint(key, (), 0, 181)
    return fft_filter(image, motion_kernel(length, degrees, MOTION_RADIUS))


def disk_kernel(radius: Float[Array, ""], reach: int) -> Float[Array, "k k"]:
    """The share of a disk that falls on each pixel; side 2 reach + 1, reach >= radius - 0.5, both in pixels."""
    edges = jnp.arange(-reach, reach + 2, dtype=jnp.float32) - 0.5
    corner = _disk_corner(radius, edges[:, None], edges[None, :])
    weights = corner[1:, 1:] - corner[:-1, 1:] - corner[1:, :-1] + corner[:-1, :-1]
    return weights / (jnp.pi * radius**2)


def _disk_corner(radius: Float[Array, ""], x: Float[Array, "n 1"], y: Float[Array, "1 n"]) -> Float[Array, "n n"]:
    """The signed area that the disk about 0 shares with the rectangle from 0 to (x, y)."""
    a, b = jnp.minimum(jnp.abs(x), radius), jnp.minimum(jnp.abs(y), radius)

    def under_arc(u: Float[Array, "..."]) -> Float[Array, "..."]:
        height = jnp.sqrt(jnp.maximum(radius**2 - u**2, 0))
        return (u * height + radius**2 * jnp.arctan2(u, height)) / 2

    meets = jnp.sqrt(jnp.maximum(radius**2 - b**2, 0))  # where the rectangle's top leaves the disk
    area = jnp.where(a**2 + b**2 <= radius**2, a * b, meets * b + under_arc(a) - under_arc(meets))
    return jnp.sign(x) * jnp.sign(y) * area


def motion_kernel(length: Float[Array, ""], degrees: Float[Array, ""], reach: int) -> Float[Array, "k k"]:
    """A line one pixel wide: each tap falls off linearly with its distance from the line. Angles run anticlockwise."""
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    offset = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
    x, y = offset[None, :], -offset[:, None]
    half = (length - 1) / 2
    along = x * jnp.cos(angle) + y * jnp.sin(angle)
    across = -x * jnp.sin(angle) + y * jnp.cos(angle)
    distance = jnp.hypot(along - jnp.clip(along, -half, half), across)
    taps = jnp.maximum(1 - distance, 0)
    return taps / taps.sum()
