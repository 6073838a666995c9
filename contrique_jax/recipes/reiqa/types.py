"""Re-IQA's 26 distortions: most are the bank's at levels of its own; rescaling, box motion and blurred noise are not there."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8, UInt32

from contrique_jax.distort import blur, brightness, colour, compression, noise, sharpness, spatial
from contrique_jax.distort.filters import gaussian_taps, separable, summed

LONGEST_LINE = 28  # of box motion [pixels]

Image = Float[Array, "h w 3"]


def blurred_noise(key: Array, image: Image, variance: Float[Array, ""]) -> Image:
    """White noise, then a Gaussian of sigma 3 pixels or, as often, the mean over 5 x 5 pixels."""
    noise_key, kind_key = jax.random.split(key)
    box = (jnp.abs(jnp.arange(-6, 7)) <= 2) / 5.0
    taps = jnp.where(jax.random.bernoulli(kind_key), gaussian_taps(3.0, 6), box)
    return separable(noise.white_noise(noise_key, image, variance), taps)


def box_motion(key: Array, image: Image, length: Float[Array, ""]) -> Image:
    """The mean over a line of `length` pixels, an even number, across or down; borders are repeated."""
    half = LONGEST_LINE // 2
    down = jax.random.bernoulli(key)
    taps = [
        jnp.where((offset > -length / 2) & (offset <= length / 2), 1 / length, 0) for offset in range(-half, half + 1)
    ]

    def line(image: Image, axis: int) -> Image:
        margin = [(half, half) if each == axis else (0, 0) for each in range(3)]
        padded, side = jax.lax.optimization_barrier(jnp.pad(image, margin, mode="edge")), image.shape[axis]
        return summed(
            tap * jax.lax.slice_in_dim(padded, i, i + side, axis=axis) for i, tap in enumerate(taps)
        )  # fmt: skip

    return jax.lax.cond(down, lambda x: line(x, 0), lambda x: line(x, 1), image)


def _triangle(x: Array) -> Array:
    return jnp.maximum(1 - x, 0)


def _cubic(x: Array) -> Array:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def _lanczos(x: Array) -> Array:
    return jnp.where(x < 3, jnp.sinc(x) * jnp.sinc(x / 3), 0)


def rescaled(key: Array, image: Image, factor: Float[Array, ""], kernel: Callable[[Array], Array]) -> Image:
    """Down by a whole `factor` of at least 2 and up again, as Pillow: antialiased, bytes between."""
    height, width, _ = image.shape
    whole = factor.astype(jnp.int32)
    (down_rows, up_rows), (down_columns, up_columns) = (
        _weights(side, side // whole, kernel) for side in (height, width)
    )

    def filtered(image: Image, rows: Array, columns: Array) -> Image:
        # across first, and bytes after each pass, as Pillow
        across = _bytes(jnp.einsum("ij,hjc->hic", columns, image, precision="highest"))
        return _bytes(jnp.einsum("ij,jwc->iwc", rows, across, precision="highest"))

    return filtered(filtered(image, down_rows, down_columns), up_rows, up_columns)


def _bytes(image: Image) -> Image:
    return jnp.floor(255 * jnp.clip(image, 0, 1) + 0.5) / 255


def _weights(side: int, small: Int[Array, ""], kernel: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Of each pixel of a side scaled down to `small` pixels, at most half of it, in the pixels of the side; and back."""
    most = side // 2
    few, many = jnp.arange(most), jnp.arange(side)
    ratio = side / small.astype(jnp.float32)
    down = kernel(jnp.abs((few[:, None] + 0.5) * ratio - 0.5 - many[None, :]) / ratio)
    up = kernel(jnp.abs((many[:, None] + 0.5) / ratio - 0.5 - few[None, :])) * (few[None, :] < small)
    down = down * (few[:, None] < small)
    # rows beyond the small side hold nothing
    return down / jnp.where(few < small, down.sum(1), 1)[:, None], up / up.sum(1, keepdims=True)


def nearest(key: Array, image: Image, factor: Float[Array, ""]) -> Image:
    """Down by a whole `factor` and up again, each pixel the nearest one."""
    rows, columns = (_nearest(side, side // factor.astype(jnp.int32)) for side in image.shape[:2])
    return image[rows][:, columns]


def _nearest(side: int, small: Int[Array, ""]) -> Int[Array, " side"]:
    seen = (2 * jnp.arange(side) + 1) * small // (2 * side)
    return (2 * seen + 1) * side // (2 * small)


_PIXELATE = (0.01, 0.05, 0.1, 0.2, 0.5)
_SIZES = (2, 3, 4, 8, 16)
_BICUBIC, _BILINEAR, _LANCZOS = (functools.partial(rescaled, kernel=kernel) for kernel in (_cubic, _triangle, _lanczos))

# number -> parameters of the levels 1 to 5, and what takes them
TABLE: dict[int, tuple[tuple[float, ...], Callable[..., Image]]] = {
    1: ((0.1, 0.5, 1, 2, 5), blur.gaussian),
    2: ((1, 2, 4, 6, 8), blur.lens),
    3: ((1, 3, 6, 8, 12), colour.diffusion),
    4: ((1, 3, 6, 8, 12), colour.shift),
    5: ((0.4, 0.2, 0.1, 0, -0.4), colour.hsv_saturation),
    6: ((1, 2, 3, 6, 9), colour.lab_saturation),
    7: ((70, 43, 36, 24, 7), compression.jpeg),
    8: ((0.001, 0.002, 0.003, 0.005, 0.01), noise.white_noise),
    9: ((0.0001, 0.0005, 0.001, 0.002, 0.003), noise.colour_noise),
    10: ((0.001, 0.005, 0.01, 0.02, 0.03), noise.impulse_noise),
    11: ((0.001, 0.005, 0.01, 0.02, 0.05), noise.speckle_noise),
    12: ((0.001, 0.002, 0.003, 0.005, 0.01), blurred_noise),
    13: ((0.1, 0.2, 0.4, 0.7, 1.1), brightness.brighten),
    14: ((0.05, 0.1, 0.2, 0.4, 0.8), brightness.darken),
    15: ((0.15, 0.08, 0, -0.08, -0.15), brightness.shift),
    16: (_SIZES, _BICUBIC),
    17: ((1, 2, 3, 6, 12), sharpness.sharpen),
    18: ((0.3, 0.15, 0, -0.4, -0.6), sharpness.contrast),
    19: ((2, 4, 6, 8, 10), spatial.colour_blocks),
    20: ((1, 2, 3, 4, 5), lambda key, image, level: spatial.pixelate(key, image, level.astype(jnp.int32), _PIXELATE)),
    21: ((20, 40, 60, 80, 100), spatial.patches),
    22: ((0.05, 0.1, 0.2, 0.5, 1), spatial.jitter),
    23: (_SIZES, _BILINEAR),
    24: ((2, 3, 4, 5, 6), nearest),
    25: (_SIZES, _LANCZOS),
    26: ((12, 16, 20, 24, 28), box_motion),
}


def distorted(
    place: Int[Array, ""],
    key: UInt32[Array, "2"],
    image: UInt8[Array, "h w 3"],
    level: Int[Array, ""],
    types: tuple[int, ...],
) -> UInt8[Array, "h w 3"]:
    """The image under types[place] at a level 1..5, clipped and rounded to bytes."""
    wrapped = jax.random.wrap_key_data(key, impl="threefry2x32")

    def branch(kind: int) -> Callable[[Image], Image]:
        values, operation = TABLE[kind]
        return lambda x: operation(wrapped, x, jnp.asarray(values, jnp.float32)[level - 1])

    x = jax.lax.switch(place, [branch(kind) for kind in types], image.astype(jnp.float32) / 255)
    return jnp.floor(255 * jnp.clip(x, 0, 1) + 0.5).astype(jnp.uint8)
