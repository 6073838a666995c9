"""Denoising: type 15 (docs/distortions.md)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort import random_numbers
from contrique_jax.distort.compression import DCT
from contrique_jax.distort.filters import summed

SIDE, STRIDE = 8, 2  # of the patches [pixels]
THRESHOLD = 2.7  # in standard deviations of the noise
BAND = 32  # pairs of rows cleaned at a time: few enough to stay in the cache
_MARGIN = SIDE - STRIDE  # pixels outside the image that patches reach
_MORE = SIDE // STRIDE - 1  # patches that begin before a pair of pixels and cover it

# the orthonormal DCT-II of 8 numbers is two matrices of side 4: the even rows on the sums of the numbers at equal
# distances from the ends, the odd rows on their differences
_EVEN, _ODD = DCT[0::2, :4].astype(np.float32), DCT[1::2, :4].astype(np.float32)


def denoise(key: PRNGKeyArray, image: Float[Array, "h w 3"], variance: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 15. Adds normal noise of this variance, clips, and takes the noise out again, channel by channel."""
    deviation = jnp.sqrt(variance)
    noisy = jnp.clip(image + deviation * random_numbers.normal(key, image.shape), 0, 1)
    return cleaned(noisy, THRESHOLD * deviation)


def cleaned(image: Float[Array, "h w 3"], threshold: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Sliding DCT denoising: in each 8 x 8 patch, coefficients up to `threshold` go to 0, but for the mean.

    Patches begin at every second pixel; where they overlap they are averaged, each with the weight
    1 / (1 + number of coefficients left).
    """
    height, width, _ = image.shape
    pairs = (height + 1) // 2
    bands = -(-pairs // BAND)
    filled = 2 * BAND * bands - height
    planes = image.transpose(2, 0, 1)
    # rows past the last pair are there to fill the last band, and are cut off
    planes = jnp.pad(
        planes, ((0, 0), (_MARGIN, _MARGIN + height % 2), (_MARGIN, _MARGIN + width % 2)), mode="symmetric"
    )
    planes = jnp.pad(planes, ((0, 0), (0, filled - height % 2), (0, 0)))
    # [column parity, channel, row, column pair]
    halves = jax.lax.optimization_barrier(jnp.stack([planes[:, :, 0::2], planes[:, :, 1::2]]))

    def band(number: Array) -> Float[Array, "2 2 b w2"]:
        rows = jax.lax.dynamic_slice(
            halves,
            (0, number // bands, 2 * BAND * (number % bands), 0),
            (2, 1, 2 * BAND + 2 * _MARGIN, halves.shape[-1]),
        )
        return _cleaned_band(rows[:, 0], threshold)

    done = jax.lax.map(band, jnp.arange(3 * bands)).reshape(3, bands, 2, 2, BAND, -1)
    # [channel, band, row parity, column parity, row pair, column pair] -> image
    done = done.transpose(1, 4, 2, 5, 3, 0).reshape(2 * BAND * bands, -1, 3)
    return done[:height, :width]


def _cleaned_band(halves: Float[Array, "2 h w2"], threshold: Float[Array, ""]) -> Float[Array, "2 2 b w3"]:
    """The inside of a band of rows, as [row parity, column parity, row pair, column pair]."""
    barrier = jax.lax.optimization_barrier  # against computing a stage anew for each use of it
    across = [_slices(halves[t % 2], t // 2, axis=1) for t in range(SIDE)]
    across = barrier(jnp.concatenate(_forward(across)))  # [u, row, patch]
    parity = barrier([across[:, 0::2], across[:, 1::2]])
    even, odd = barrier(_forward([_slices(parity[t % 2], t // 2, axis=1) for t in range(SIDE)]))
    limits = jnp.full((2, 4, SIDE, 1, 1), threshold).at[0, 0, 0].set(-1)
    even, odd = (jnp.where(jnp.abs(half) > limit, half, 0) for half, limit in zip((even, odd), limits, strict=True))
    even, odd = barrier((even, odd))
    kept = ((even != 0).astype(jnp.float32) + (odd != 0).astype(jnp.float32)).sum((0, 1))
    weight = barrier(1 / (1 + kept))
    down = barrier(_backward(weight * even, weight * odd))
    rows = barrier([_overlapped(down[parity::2], 1) for parity in (0, 1)])  # [u, row pair, patch] for each row parity
    total = _overlapped([_overlapped([weight] * 4, 0)] * 4, 1)
    out = []
    for plane in rows:
        pixels = barrier(_backward(plane[:4], plane[4:]))
        out.append(jnp.stack([_overlapped(pixels[parity::2], 1) / total for parity in (0, 1)]))
    return jnp.stack(out)


def _forward(parts: list[Float[Array, "..."]]) -> list[Float[Array, "4 ..."]]:
    """Eight numbers of a patch -> its even and its odd coefficients."""
    near, far = parts[:4], parts[:3:-1]
    sums = [a + b for a, b in zip(near, far, strict=True)]
    differences = [a - b for a, b in zip(near, far, strict=True)]
    return [_mixed(_EVEN.T, sums), _mixed(_ODD.T, differences)]


def _backward(even: Float[Array, "4 ..."], odd: Float[Array, "4 ..."]) -> list[Float[Array, "..."]]:
    """Even and odd coefficients -> the eight numbers."""
    even, odd = jax.lax.optimization_barrier((_mixed(_EVEN, list(even)), _mixed(_ODD, list(odd))))
    return [even[t] + odd[t] for t in range(4)] + [even[t] - odd[t] for t in (3, 2, 1, 0)]


def _mixed(matrix: np.ndarray, parts: list[Float[Array, "..."]]) -> Float[Array, "4 ..."]:
    """sum_i matrix[i, j] parts[i], written so that it becomes one vectorised loop."""
    shape = (-1,) + (1,) * parts[0].ndim
    return summed(row.reshape(shape) * part for row, part in zip(matrix, parts, strict=True))


def _slices(x: Float[Array, "..."], start: int, axis: int) -> Float[Array, "..."]:
    """For each patch, the pair of pixels at `start` in it."""
    return jax.lax.slice_in_dim(x, start, start + x.shape[axis] - _MORE, axis=axis)


def _overlapped(parts: list[Float[Array, "..."]], axis: int) -> Float[Array, "..."]:
    """The sum over the four patches that cover a pair; `parts[a]` is what a patch gives its pair number a."""
    return summed(_slices(part, _MORE - a, axis) for a, part in enumerate(parts))
