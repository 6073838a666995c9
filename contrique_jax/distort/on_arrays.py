"""The distortions for people: one call with checked arguments, NumPy arrays in and out."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from contrique_jax.distort import bank
from contrique_jax.errors import UserError
from contrique_jax.io.machine import ONE_THREAD, host_device

SMALLEST_SIDE = 48  # pixels; what type 20 needs
MOST_COMPILED = 128  # functions kept, one for each type and size; the one unused for longest goes first

Pixels = UInt8[np.ndarray, "h w 3"] | Float[np.ndarray, "h w 3"]


def apply(image: Pixels, type: int, level: int, *, seed: int = 0, minmax: bool = True) -> Pixels:
    """`image` under distortion `type` (1..25, see `BANK`) at `level` (1..5), made as for training.

    - `image`: [H, W, 3] of at least 48 x 48 pixels: RGB as uint8, or as floats in [0, 1]. Bytes give bytes, floats give
      float32 in [0, 1]: the same image before its values are rounded to bytes. The argument is not changed.
    - `seed`, 0..2^64 - 1: of the types that draw something. The same arguments give the same bytes.
    - `minmax`: the image's values are stretched to [0, 1] before and after, as in KADIS-700k; else clipped at the end

    Runs on the CPU, compiled once for each type and size; threads may call it. Formulas, with their errors against other
    libraries and their sources, are in docs/distortions.md. In jitted code of your own
    use `bank.get(type).apply`, a pure function.

    Raises UserError for a type, level or seed out of range, an image of another shape or dtype, under 48 x 48 pixels, or
    with floats outside [0, 1] or not a number.
    """
    type, level = _whole("type", type), _whole("level", level)
    row = bank.get(type)
    bank.class_id(type, level)
    seed = _whole("seed", seed)
    if not 0 <= seed < 2**64:
        raise UserError(f"seed {seed}: choose one from 0 to 2^64 - 1.")
    pixels = _checked(image, f"distortion {type} ({row.name})")
    key_data = np.array([seed >> 32, seed % 2**32], np.uint32)
    compiled = _compiled(type, pixels.shape, pixels.dtype == np.uint8, bool(minmax))
    with jax.default_device(host_device()):
        return np.array(compiled(key_data, pixels, np.int32(level)))


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} {value!r}: give a whole number.") from None


def _checked(image: Any, operation: str) -> Pixels:
    """uint8 or float32. Raises UserError, naming the operation, if the image is not one that it takes."""
    pixels = np.asarray(image)
    floats = np.issubdtype(pixels.dtype, np.floating)
    shaped = pixels.ndim == 3 and pixels.shape[2] == 3 and min(pixels.shape[:2]) >= SMALLEST_SIDE
    if not shaped or not (floats or pixels.dtype == np.uint8):
        raise UserError(
            f"{operation}: the image is {pixels.dtype} {list(pixels.shape)}, but it takes RGB [H, W, 3] of at least "
            f"{SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, uint8 or floats in [0, 1]."
        )
    if not floats:
        return pixels
    low, high = pixels.min(), pixels.max()
    if np.isnan(low):
        raise UserError(f"{operation}: the image holds values that are not a number, but it takes floats in [0, 1].")
    if low < 0 or high > 1:
        raise UserError(f"{operation}: the image's values run from {low:g} to {high:g}, but it takes floats in [0, 1].")
    return pixels.astype(np.float32)


@functools.lru_cache(maxsize=MOST_COMPILED)
def _compiled(type: int, shape: tuple[int, ...], in_bytes: bool, minmax: bool) -> Callable[..., Array]:
    """One for each shape too, although jit would tell these apart: so that it can be forgotten by itself."""
    function = _on_bytes if in_bytes else _on_floats
    return jax.jit(functools.partial(function, type=type, minmax=minmax), compiler_options=ONE_THREAD)


def _on_bytes(
    key_data: UInt32[Array, "2"], image: UInt8[Array, "h w 3"], level: Int[Array, ""], *, type: int, minmax: bool
) -> UInt8[Array, "h w 3"]:
    return bank.distort_kind(key_data, image, jnp.int32(type - 1), level, types=(type,), minmax=minmax)


def _on_floats(
    key_data: UInt32[Array, "2"], image: Float[Array, "h w 3"], level: Int[Array, ""], *, type: int, minmax: bool
) -> Float[Array, "h w 3"]:
    operation = bank.get(type).apply
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data, impl="threefry2x32"), type)
    x = bank.stretched(image, *bank.extremes(image)) if minmax else image
    y = operation(key, x, level)
    return bank.stretched(y, *bank.extremes(y)) if minmax else jnp.clip(y, 0, 1)
