"""JPEG2000: type 09 (docs/distortions.md)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from contrique_jax.distort.colourspaces import mix
from contrique_jax.distort.compression import JFIF_OF_RGB, RGB_OF_JFIF
from contrique_jax.distort.filters import summed

LEVELS = 5
FINEST, COARSEST = 0.5, 1024.0  # quantiser steps, on 8-bit codes
GAINS = np.linalg.norm(RGB_OF_JFIF, axis=0)  # what an error of 1 in Y, Cb, Cr is worth in R, G, B
# the nearly orthonormal 9/7 wavelet's symmetric filters, from the middle tap on
_LOW = (0.852698679, 0.377402856, -0.110624404, -0.023849465, 0.037828456)
_HIGH = (0.788485616, -0.418092273, -0.040689418, 0.064538883)
# of the model of the coder's bits, fitted to OpenJPEG; the header's are of an image of 384 x 512 pixels
_HEADER, _FLOOR, _SLOPE = 600 / (384 * 512), 0.0016, 1.73
_START, _TURNS, _GRID = 20.0, 5, 100  # of the search for the step: where it starts, how long, steps a factor of e

Planes = Float[Array, "3 h w"]


def jpeg2000(key: PRNGKeyArray, image: Float[Array, "h w 3"], ratio: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 09. Lossy JPEG2000 at a compression `ratio` (raw bytes per byte of file), written and read back.

    The 9/7 wavelet on five levels, one quantiser step for all of it, found such that a model of the coder's bits comes
    to the budget. Sides of any length: odd ones are split as the standard has it.
    """
    height, width, _ = image.shape
    codes = jnp.floor(255 * image + 0.5) - 128
    pyramid, inside = _pyramid((mix(codes, JFIF_OF_RGB) * GAINS.astype(np.float32)).transpose(2, 0, 1))
    step = _step(jnp.abs(pyramid), inside, height * width * (24 / ratio - _HEADER))
    count = jnp.floor(jnp.abs(pyramid) / step)
    pyramid = jnp.where(count > 0, jnp.sign(pyramid) * (count + 0.5) * step, 0)
    planes = _planes(pyramid, height, width)
    codes = mix(planes.transpose(1, 2, 0), RGB_OF_JFIF / GAINS)
    return jnp.clip(jnp.floor(codes + 128.5), 0, 255) / 255


def _step(sizes: Planes, inside: np.ndarray, budget: Float[Array, ""]) -> Float[Array, ""]:
    """The quantiser step at which the coefficients' absolute values `sizes` take `budget` bits."""
    # the logarithm of the bits is nearly straight over the logarithm of the step: secants, held in a bracket
    target = jnp.log(budget)
    ends = np.log(np.array([FINEST, COARSEST], np.float32))

    def turn(_: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, low, high, last_x, last_excess, slope = state
        excess = jnp.log(_bits(sizes, inside, jnp.exp(x))) - target
        low, high = jnp.where(excess > 0, x, low), jnp.where(excess > 0, high, x)
        apart = jnp.abs(x - last_x) > 1e-4
        secant = (excess - last_excess) / jnp.where(apart, x - last_x, 1)
        slope = jnp.where(apart & (secant < -0.1), secant, slope)
        guess = x - excess / slope
        guess = jnp.where((guess > low) & (guess < high), guess, (low + high) / 2)
        return guess, low, high, x, excess, slope

    start = jnp.log(jnp.float32(_START))
    state = (start, jnp.asarray(ends[0]), jnp.asarray(ends[1]), start, jnp.float32(0), jnp.float32(-1))
    found = jax.lax.fori_loop(0, _TURNS, turn, state)[0]
    # on a grid, so that a rounding error in the bits does not touch every coefficient
    return jnp.exp(jnp.round(found * _GRID) / _GRID)


def _bits(sizes: Planes, inside: np.ndarray, step: Float[Array, ""]) -> Float[Array, ""]:
    """What the coder makes of it, by the model: the more of a coefficient's neighbours are large, the less it costs."""
    barrier = jax.lax.optimization_barrier  # against counting anew for each neighbour
    count = barrier(jnp.floor(sizes / step))
    columns = barrier(count[:, :-2] + 2 * count[:, 1:-1] + count[:, 2:])
    count = count[:, 1:-1, 1:-1]
    around = columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:] - 4 * count
    mean = _FLOOR + _SLOPE / 12 * around
    nats = jnp.log(1 + mean) + count * jnp.log(1 + 1 / mean) + np.float32(np.log(2)) * jnp.minimum(count, 1)
    return (nats * inside).sum((0, 1)).sum() / np.float32(np.log(2))


def _sides(length: int) -> list[tuple[int, int, int]]:
    """Of each level, the finest first: where its high band begins in the pyramid, and the lengths low and high.

    The low band of every level begins at 1, and a zero follows each band, for its neighbours to be nothing.
    """
    sides = []
    for level in range(1, LEVELS + 1):
        low, high = (length + 1) // 2, length // 2
        sides.append((2 + low + LEVELS - level, low, high))
        length = low
    return sides


def _pyramid(planes: Planes) -> tuple[Planes, np.ndarray]:
    """The wavelet transform in one array with a border, and 1 where its inside has coefficients, 0 between bands."""
    height, width = planes.shape[1:]
    pyramid = jnp.zeros((3, height + LEVELS + 2, width + LEVELS + 2))
    inside = np.zeros(pyramid.shape[1:], np.float32)
    bands = {}
    for (row, low_rows, _), (column, low_columns, _) in zip(_sides(height), _sides(width), strict=True):
        split = _split(_split(planes, 2), 1)
        bands[row, 1] = split[:, low_rows:, :low_columns]
        bands[1, column] = split[:, :low_rows, low_columns:]
        bands[row, column] = split[:, low_rows:, low_columns:]
        bands[1, 1] = planes = split[:, :low_rows, :low_columns]  # in the end, of the last level
    for (top, left), band in bands.items():
        pyramid = jax.lax.dynamic_update_slice(pyramid, band, (0, top, left))
        inside[top : top + band.shape[1], left : left + band.shape[2]] = 1
    return pyramid, inside[1:-1, 1:-1]


def _planes(pyramid: Planes, height: int, width: int) -> Planes:
    """The inverse of `_pyramid`."""
    sides = list(zip(_sides(height), _sides(width), strict=True))
    (_, rows, _), (_, columns, _) = sides[-1]
    planes = pyramid[:, 1 : 1 + rows, 1 : 1 + columns]
    for (row, low_rows, high_rows), (column, low_columns, high_columns) in reversed(sides):
        low = jnp.concatenate([planes, pyramid[:, 1 : 1 + low_rows, column : column + high_columns]], 2)
        high = pyramid[:, row : row + high_rows]
        high = jnp.concatenate([high[..., 1 : 1 + low_columns], high[..., column : column + high_columns]], 2)
        rows_merged = _merged(low, high, 1)
        planes = _merged(rows_merged[..., :low_columns], rows_merged[..., low_columns:], 2)
    return planes


@functools.partial(jax.jit, static_argnames="axis")
def _split(x: Planes, axis: int) -> Planes:
    """Along an axis, the low half and after it the high half; of an odd length, the low one is longer."""
    length = x.shape[axis]
    wide = _extended(x, axis, "reflect", "reflect")
    parity = jax.lax.optimization_barrier([jax.lax.slice_in_dim(wide, i, None, 2, axis) for i in (0, 1)])
    low = _filtered(parity, {4 + k: _LOW[abs(k)] for k in range(-4, 5)}, (length + 1) // 2, axis)
    high = _filtered(parity, {5 + k: _HIGH[abs(k)] for k in range(-3, 4)}, length // 2, axis)
    return jnp.concatenate([low, high], axis)


@functools.partial(jax.jit, static_argnames="axis")
def _merged(low: Planes, high: Planes, axis: int) -> Planes:
    """The inverse of `_split`, from its two halves."""
    length = low.shape[axis] + high.shape[axis]
    odd = length % 2 == 1
    parity = [
        _extended(low, axis, "reflect", "reflect" if odd else "symmetric"),
        _extended(high, axis, "symmetric", "symmetric" if odd else "reflect"),
    ]
    evens = {8 + k: -_LOW[abs(k)] if k % 2 else _HIGH[abs(k)] for k in range(-3, 4)}
    odds = {9 + k: -_HIGH[abs(k)] if k % 2 else _LOW[abs(k)] for k in range(-4, 5)}
    half = (length + 1) // 2
    x = jnp.stack([_filtered(parity, taps, half, axis) for taps in (evens, odds)], axis + 1)
    shape = [2 * half if i == axis else n for i, n in enumerate(low.shape)]
    return jax.lax.slice_in_dim(x.reshape(shape), 0, length, axis=axis)


def _extended(x: Planes, axis: int, before: str, after: str) -> Planes:
    """`x` with four more at either end, mirrored about the last element ("reflect") or the edge ("symmetric")."""
    for mode, widths in ((before, (4, 0)), (after, (0, 4))):
        x = jnp.pad(x, [widths if i == axis else (0, 0) for i in range(3)], mode=mode)
    return jax.lax.optimization_barrier(x)


def _filtered(parity: list[Planes], taps: dict[int, float], length: int, axis: int) -> Planes:
    """sum_k taps[k] x[2 i + k] for i < length, of the even and the odd x."""
    parts = (tap * jax.lax.slice_in_dim(parity[k % 2], k // 2, k // 2 + length, axis=axis) for k, tap in taps.items())
    return jax.lax.optimization_barrier(summed(parts))
