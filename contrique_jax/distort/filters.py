"""Linear filters with the border pixels repeated (docs/distortions.md), for any image size and traced kernels."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_taps(sigma: Float[Array, ""] | float, radius: int) -> Float[Array, " taps"]:
    """The 2 radius + 1 taps of a Gaussian cut at r = ceil(2 sigma) <= `radius` and normalised; sigma in pixels, > 0."""
    offset = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    taps = jnp.exp(-0.5 * (offset / sigma) ** 2)
    taps = jnp.where(jnp.abs(offset) <= jnp.ceil(2 * sigma), taps, 0)
    return taps / taps.sum()


def separable(image: Float[Array, "h w c"], taps: Float[Array, " taps"]) -> Float[Array, "h w c"]:
    """`image` filtered with the outer product of an odd number of symmetric taps: the way for short kernels."""
    height, width, channels = image.shape
    radius, steps = len(taps) // 2, range(len(taps))
    # a sum of shifted slices of whole rows is one vectorised loop, many times faster than a convolution on a CPU; the
    # barriers keep the compiler from padding anew for each slice
    rows = jnp.pad(image, ((0, 0), (radius, radius), (0, 0)), mode="edge").reshape(height, -1)
    rows = jax.lax.optimization_barrier(rows)
    rows = summed(taps[k] * rows[:, k * channels : (k + width) * channels] for k in steps)
    columns = jax.lax.optimization_barrier(jnp.pad(rows, ((radius, radius), (0, 0)), mode="edge"))
    return summed(taps[k] * columns[k : k + height] for k in steps).reshape(image.shape)


def summed(terms: Iterable[Array]) -> Array:
    """The terms one after the other added up, which compiles to one loop."""
    return functools.reduce(operator.add, terms)


def fft_filter(image: Float[Array, "h w c"], kernel: Float[Array, "k k"]) -> Float[Array, "h w c"]:
    """`image` convolved with a kernel of odd side: the way for large and non-separable kernels."""
    height, width, _ = image.shape
    margin = len(kernel) - 1
    radius = margin // 2
    size = (_fast_length(height + margin), _fast_length(width + margin))
    planes = jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="edge").transpose(2, 0, 1)
    spectrum = jnp.fft.rfft2(planes, s=size) * jnp.fft.rfft2(kernel, s=size)
    planes = jnp.fft.irfft2(spectrum, s=size)[:, margin : margin + height, margin : margin + width]
    return planes.transpose(1, 2, 0)


def _fast_length(length: int) -> int:
    """The next length without prime factors above 5, where FFTs are fast."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
