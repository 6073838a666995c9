"""The one table of synthetic distortions: 25 types x 5 levels -> class id, function, parameter.

Specification, sections 1 and 2. A class id is 5 (type - 1) + (level - 1) with types 1..25 and levels 1..5; 125 is an
undistorted image. Ids are final.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8, UInt32

from contrique_jax.distort import (
    blur,
    brightness,
    colour,
    compression,
    denoise,
    jpeg2000,
    noise,
    palette,
    sharpness,
    spatial,
    thresholds,
)
from contrique_jax.errors import UserError

NUM_TYPES = 25
NUM_LEVELS = 5
TYPES = tuple(range(1, NUM_TYPES + 1))
PRISTINE = NUM_TYPES * NUM_LEVELS
NUM_CLASSES = PRISTINE + 1

Image = Float[Array, "h w 3"]
Operation = Callable[[PRNGKeyArray, Image, Int[Array, ""]], Image]


@dataclass(frozen=True)
class Distortion:
    """One type.

    `severity` ranks the visible strength of each level from 1 to 5, ties at the lower rank; 0 if a level changes
    nothing. `apply(key, image, level)` takes and gives float32 [H, W, 3]; the input is in [0, 1], the output may leave
    it if the original does.
    """

    type: int
    name: str
    group: str
    parameter: str  # meaning and unit of `levels`; variances and offsets are on the scale of [0, 1]
    levels: tuple[float, ...]
    severity: tuple[int, ...]
    apply: Operation


_RISING = (1, 2, 3, 4, 5)
_FROM_NOTHING = (0, 2, 3, 4, 5)  # level 1 changes nothing


def _row(
    type: int,
    name: str,
    group: str,
    parameter: str,
    levels: tuple[float, ...],
    operation: Callable[[PRNGKeyArray, Image, Float[Array, ""]], Image],
    severity: tuple[int, ...] = _RISING,
) -> Distortion:
    """A type whose operation takes the parameter itself: looked up, so that the level may be traced."""

    def apply(key: PRNGKeyArray, image: Image, level: Int[Array, ""]) -> Image:
        return operation(key, image, jnp.asarray(levels, jnp.float32)[level - 1])

    return Distortion(type, name, group, parameter, levels, severity, apply)


_PIXELATE = (0.01, 0.05, 0.1, 0.2, 0.5)

# fmt: off
BANK: tuple[Distortion, ...] = (
    _row(1, "gaussian blur", "blur", "standard deviation [pixels]", (0.1, 0.5, 1, 2, 5), blur.gaussian, _FROM_NOTHING),
    _row(2, "lens blur", "blur", "disk radius [pixels]", (1, 2, 4, 6, 8), blur.lens),
    _row(3, "motion blur", "blur", "length [pixels]", (1, 2, 4, 6, 10), blur.motion, _FROM_NOTHING),
    _row(4, "colour diffusion", "colour", "gain and blur of a and b", (1, 3, 6, 8, 12), colour.diffusion),
    _row(5, "colour shift", "colour", "shift of green [pixels]", (1, 3, 6, 8, 12), colour.shift),
    _row(6, "colour quantisation", "colour", "palette size [colours]", (64, 48, 32, 16, 8), palette.quantise),
    _row(7, "saturation in HSV", "colour", "factor of S", (0.4, 0.2, 0.1, 0, -0.4), colour.hsv_saturation),
    _row(8, "saturation in Lab", "colour", "factor of a and b", (1, 2, 3, 6, 9), colour.lab_saturation, _FROM_NOTHING),
    _row(9, "JPEG2000", "compression", "compression ratio", (16, 32, 45, 120, 400), jpeg2000.jpeg2000),
    _row(10, "JPEG", "compression", "quality, 1..100", (43, 36, 24, 7, 4), compression.jpeg),
    _row(11, "white noise", "noise", "variance", (0.001, 0.002, 0.003, 0.005, 0.01), noise.white_noise),
    _row(12, "white noise in YCbCr", "noise", "variance", (0.0001, 0.0005, 0.001, 0.002, 0.003), noise.colour_noise),
    _row(13, "impulse noise", "noise", "share of samples", (0.001, 0.005, 0.01, 0.02, 0.03), noise.impulse_noise),
    _row(14, "multiplicative noise", "noise", "variance", (0.001, 0.005, 0.01, 0.02, 0.05), noise.speckle_noise),
    _row(15, "denoise", "noise", "variance of the noise removed", (0.01, 0.03, 0.05, 0.1, 0.15), denoise.denoise),
    _row(16, "brighten", "brightness", "bend of the curve", (0.1, 0.2, 0.4, 0.7, 1.1), brightness.brighten),
    _row(17, "darken", "brightness", "bend of the curve", (0.05, 0.1, 0.2, 0.4, 0.8), brightness.darken),
    _row(18, "mean shift", "brightness", "offset", (0.15, 0.08, 0, -0.08, -0.15), brightness.shift, (4, 2, 0, 2, 4)),
    _row(19, "jitter", "spatial", "standard deviation [pixels]", (0.05, 0.1, 0.2, 0.5, 1), spatial.jitter),
    _row(20, "non-eccentricity patch", "spatial", "patches moved", (20, 40, 60, 80, 100), spatial.patches),
    Distortion(21, "pixelate", "spatial", "strength; sides are scaled by 0.95 - strength^0.6", _PIXELATE, _RISING,
               functools.partial(spatial.pixelate, strengths=_PIXELATE)),
    _row(22, "quantisation", "spatial", "thresholds", (20, 16, 13, 10, 7), thresholds.quantise),
    _row(23, "colour block", "spatial", "blocks", (2, 4, 6, 8, 10), spatial.colour_blocks),
    _row(24, "high sharpen", "sharpness and contrast", "amount", (1, 2, 3, 6, 12), sharpness.sharpen),
    _row(25, "contrast change", "sharpness and contrast", "bend of the curve; -0.2 changes nothing",
         (0.3, 0.15, 0, -0.4, -0.6), sharpness.contrast, (5, 3, 1, 1, 4)),
)
# fmt: on


# classes whose distortion changes nothing
IDENTITIES = tuple(
    NUM_LEVELS * (row.type - 1) + level for row in BANK for level, strength in enumerate(row.severity) if strength == 0
)


def class_id(type: int, level: int) -> int:
    """The class of a type (1..25) at a level (1..5). Raises UserError if either is out of range."""
    if not (1 <= type <= NUM_TYPES and 1 <= level <= NUM_LEVELS):
        raise UserError(f"distortion type {type}, level {level}: choose a type from 1 to 25 and a level from 1 to 5.")
    return NUM_LEVELS * (type - 1) + (level - 1)


def get(type: int) -> Distortion:
    """The row of a type. Raises UserError for a number out of range."""
    if not 1 <= type <= NUM_TYPES:
        raise UserError(f"distortion type {type}: there are types 1 to {NUM_TYPES}; choose one of them.")
    return BANK[type - 1]


def extremes(image: Image) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The smallest and the largest value."""
    # taken over four quarters of the rows at once (they may overlap): such loops vectorise, a plain minimum may not
    height = len(image)
    rows = -(-height // 4)
    quarters = [image[min(start, height - rows) :][:rows] for start in range(0, height, rows)]
    return functools.reduce(jnp.minimum, quarters).min(), functools.reduce(jnp.maximum, quarters).max()


def stretched(image: Image, low: Float[Array, ""], high: Float[Array, ""]) -> Image:
    """`image` with low..high stretched to 0..1, or as it is if it is flat to half an 8-bit code."""
    span, flat = high - low, 0.5 / 255  # what a filter leaves of a flat image is rounding errors, not to be blown up
    return jnp.where(span > flat, (image - low) / jnp.maximum(span, flat), image)


def kind_and_level(class_id: Int[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """A class's kind, 0..24 for types 1..25 and 25 for undistorted, and its level, 1..5."""
    return class_id // NUM_LEVELS, class_id % NUM_LEVELS + 1


def distort(
    key_data: UInt32[Array, "2"],
    image: UInt8[Array, "h w 3"],
    class_id: Int[Array, ""],
    *,
    types: tuple[int, ...] | None = None,
    minmax: bool = True,
) -> UInt8[Array, "h w 3"]:
    """`image` [at least 48 x 48] under the distortion of `class_id`; the undistorted class gives it back unchanged.

    Only the branch of the class runs, under jit and in tf.data (under vmap, all of them: map `distort_kind` over all
    but the kind). `types` limits the branches to these; the caller sees to it that no class of another type comes,
    which would give the image back unchanged. With `minmax` the image is stretched to [0, 1] before and after, as
    KADIS-700k does; without, it is clipped at the end. Raises UserError if `types` names a type that `get` refuses.
    """
    return distort_kind(key_data, image, *kind_and_level(class_id), types=types, minmax=minmax)


def distort_kind(
    key_data: UInt32[Array, "2"],
    image: UInt8[Array, "h w 3"],
    kind: Int[Array, ""],
    level: Int[Array, ""],
    *,
    types: tuple[int, ...] | None = None,
    minmax: bool = True,
) -> UInt8[Array, "h w 3"]:
    """The same with the class in two parts, so that images of one kind can be mapped over and take its branch alone."""
    rows = [get(type) for type in (TYPES if types is None else types)]
    key = jax.random.wrap_key_data(key_data, impl="threefry2x32")

    def branch(row: Distortion) -> Callable[[Image], Image]:
        return lambda x: row.apply(jax.random.fold_in(key, row.type), x, level)

    branch_of_kind = np.zeros(NUM_TYPES + 1, np.int32)
    for number, row in enumerate(rows, 1):
        branch_of_kind[row.type - 1] = number
    chosen = jnp.asarray(branch_of_kind)[kind]
    x = image.astype(jnp.float32) / 255
    if minmax:
        x = stretched(x, image.min().astype(jnp.float32) / 255, image.max().astype(jnp.float32) / 255)
    y = jax.lax.switch(chosen, [lambda x: x, *map(branch, rows)], x)
    y = stretched(y, *extremes(y)) if minmax else jnp.clip(y, 0, 1)
    return jnp.where(chosen == 0, image, jnp.floor(255 * y + 0.5).astype(jnp.uint8))
