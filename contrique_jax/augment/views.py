"""Two views of an image, at full and at half scale: crop or pad, colour space, flip (docs/contrique.md)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, PRNGKeyArray, UInt8

COLOURS = ("grey", "lab", "hsv", "ms", "none")

# sRGB under D50 (Bradford-adapted), each row divided by the white's X, Y or Z, and sRGB's linear light of each byte
_WHITE_SHARE_OF_RGB = np.divide(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]],
    [[0.9642], [1.0], [0.8249]],
)
_BYTES = np.arange(256) / 255
_LIGHT = np.where(_BYTES <= 0.04045, _BYTES / 12.92, ((_BYTES + 0.055) / 1.055) ** 2.4).astype(np.float32)
_KNEE = np.float32((6 / 29) ** 3)  # CIE Lab is linear below

_MS_RADIUS = 3
_MS_WINDOW = np.exp(-(np.arange(-_MS_RADIUS, _MS_RADIUS + 1) ** 2) / (2 * (7 / 6) ** 2))
_MS_TAPS = (_MS_WINDOW / _MS_WINDOW.sum())[_MS_RADIUS + 1 :].astype(np.float32)  # of the neighbours at 1, 2, 3


class ViewDraw(NamedTuple):
    """The random choices of one view; with a leading axis 2, of both views of an image."""

    div: Int32[Array, "..."]  # 1: full scale, 2: half
    y: Float[Array, "..."]  # where the crop starts, as a share of the room there is, in [0, 1)
    x: Float[Array, "..."]
    colour: Int32[Array, "..."]  # index in COLOURS
    flip: Bool[Array, "..."]  # left to right


def draw_at(draws: ViewDraw, place: int) -> ViewDraw:
    """The choices at one place of the leading axis."""
    return ViewDraw(*(part[place] for part in draws))


def draw_views(key: PRNGKeyArray) -> ViewDraw:
    """The choices of both views, fields [2]: full and half scale in random order, all else independent."""
    div_key, y_key, x_key, colour_key, flip_key = jax.random.split(key, 5)
    first = jax.random.randint(div_key, (), 1, 3, jnp.int32)
    return ViewDraw(
        div=jnp.stack([first, 3 - first]),
        y=jax.random.uniform(y_key, (2,), jnp.float32),
        x=jax.random.uniform(x_key, (2,), jnp.float32),
        colour=jax.random.randint(colour_key, (2,), 0, len(COLOURS), jnp.int32),
        flip=jax.random.bernoulli(flip_key, 0.5, (2,)),
    )


# geometry


def half_size(image: UInt8[Array, "h w 3"]) -> UInt8[Array, "h//2 w//2 3"]:
    """The image at half its size, exactly as Pillow's bilinear resize. Raises ValueError if a side is odd.

    Along rows first, then along columns; Pillow 13 does so if the image is at most twice as tall as wide.
    """
    height, width = image.shape[:2]
    return _half_part(image, jnp.int32(0), jnp.int32(0), height // 2, width // 2)


def crop_or_pad(
    image: UInt8[Array, "h w 3"], y: Float[Array, ""], x: Float[Array, ""], size: int
) -> UInt8[Array, "size size 3"]:
    """A crop at `y`, `x`; if a side is under `size`, both are centre-cropped or zero-padded, as by CenterCrop."""
    top, left, height, width = _place(image.shape[0], image.shape[1], y, x, size)
    return _pad(lax.dynamic_slice(image, (top, left, jnp.int32(0)), (height, width, 3)), size)


def _place(h: int, w: int, y: Array, x: Array, size: int) -> tuple[Array, Array, int, int]:
    """Top, left, height and width of what a view keeps of an h x w image."""
    if h < size or w < size:
        height, width = min(h, size), min(w, size)
        return jnp.int32(round((h - height) / 2)), jnp.int32(round((w - width) / 2)), height, width  # half to even

    def start(share: Array, room: int) -> Array:
        return jnp.minimum(jnp.floor(share * np.float32(room + 1)).astype(jnp.int32), room)

    return start(y, h - size), start(x, w - size), size, size


def _pad(part: Array, size: int) -> Array:
    h, w = part.shape[:2]
    above, before = (size - h) // 2, (size - w) // 2
    return jnp.pad(part, ((above, size - h - above), (before, size - w - before), (0, 0)))


def _half_part(image: Array, top: Array, left: Array, height: int, width: int) -> Array:
    """Rows top..top+height and columns left..left+width of the half-size image, from the pixels they need only."""
    h, w = image.shape[:2]
    if h % 2 or w % 2:
        raise ValueError(f"an image of {h} x {w} pixels has an odd side and is not halved exactly")
    # two rows of margin: a part that does not reach the image's border then does not reach its own border either
    rows = min(2 * height + 4, h)
    first = jnp.clip(2 * top - 2, 0, h - rows)
    part = lax.dynamic_slice_in_dim(image, first, rows, axis=0)
    part = _halve(part, 2 * left, 2 * width, axis=1)
    return _halve(part, 2 * top - first, 2 * height, axis=0)


def _halve(image: Array, start: Array, length: int, axis: int) -> Array:
    """Pixels start..start+length along an axis (both even), halved with weights 1 3 3 1 and rounded to bytes."""
    side, count = image.shape[axis], length // 2
    cut = functools.partial(lax.dynamic_slice_in_dim, image, axis=axis)
    before, after = cut(jnp.maximum(start - 1, 0), 1), cut(jnp.minimum(start + length, side - 1), 1)
    padded = jnp.concatenate([before, cut(start, length), after], axis)
    pairs = padded.reshape(*image.shape[:axis], count + 1, 2, *image.shape[axis + 1 :])

    def tap(number: int, first: int, last: int) -> Array:
        span = lax.slice_in_dim(pairs, first + number // 2, last + number // 2, axis=axis)
        return lax.index_in_dim(span, number % 2, axis + 1, keepdims=False).astype(jnp.int32)

    def filtered(first: int, last: int, outer: tuple[Array, Array] | None) -> Array:
        a, b, c, d = (tap(number, first, last) for number in range(4))
        if outer is None:
            return ((a + 3 * (b + c) + d + 4) >> 3).astype(jnp.uint8)
        # Pillow leaves out what is outside the image and divides by the weights that remain
        weights = 6 + outer[0] + outer[1]
        total = outer[0] * a + 3 * (b + c) + outer[1] * d
        return ((2 * total + weights) // (2 * weights)).astype(jnp.uint8)

    def inside(first: int) -> tuple[Array, Array]:
        place = start + 2 * first
        return (place > 0).astype(jnp.int32), (place + 2 < side).astype(jnp.int32)

    # the two end pixels are written over: choosing inside the large loop would cost its vectorisation
    halved = filtered(0, count, None)
    halved = lax.dynamic_update_slice_in_dim(halved, filtered(0, 1, inside(0)), 0, axis)
    return lax.dynamic_update_slice_in_dim(halved, filtered(count - 1, count, inside(count - 1)), count - 1, axis)


# colour


def _planes(image: Array) -> Array:
    # a barrier after each change of layout keeps the arithmetic in one plain loop over a plane, which vectorises
    return lax.optimization_barrier(jnp.moveaxis(image, -1, 0))


def _interleaved(planes: Array) -> Array:
    return jnp.moveaxis(lax.optimization_barrier(planes), 0, -1)


def grey(image: UInt8[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """Luma (BT.601) three times, equal to Pillow's convert("L")."""
    r, g, b = _planes(image).astype(jnp.int32)
    luma = ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).astype(jnp.uint8)
    return _interleaved(jnp.stack([luma, luma, luma]))


def lab(image: UInt8[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """CIE Lab (D50): L in 0..255, a and b as two's-complement bytes (0 is 0, -1 is 255), within 1 of LittleCMS."""
    light = lax.optimization_barrier(
        jnp.asarray(_LIGHT).at[_planes(image).astype(jnp.int32)].get(mode="promise_in_bounds")
    )
    r, g, b = light
    shares = _WHITE_SHARE_OF_RGB.astype(np.float32)
    t = jnp.stack([share_r * r + share_g * g + share_b * b for share_r, share_g, share_b in shares])
    # exp and log vectorise on a CPU, cbrt does not
    root = jnp.exp(jnp.log(jnp.maximum(t, _KNEE)) * np.float32(1 / 3))
    fx, fy, fz = lax.optimization_barrier(jnp.where(t > _KNEE, root, np.float32(841 / 108) * t + np.float32(4 / 29)))
    lightness = (116 * fy - 16) * np.float32(255 / 100)
    coded = jnp.stack([lightness, 500 * (fx - fy), 200 * (fy - fz)])
    # bytes of an sRGB colour never leave [-128, 127], so the lowest eight bits are the code
    return _interleaved(jnp.floor(coded + np.float32(0.5)).astype(jnp.int32).astype(jnp.uint8))


def hsv(image: UInt8[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """Hue, saturation and value in 0..255, as Pillow's convert("HSV"); hue within 1, modulo 256."""
    r, g, b = _planes(image).astype(jnp.float32)
    value, low = jnp.maximum(jnp.maximum(r, g), b), jnp.minimum(jnp.minimum(r, g), b)
    chroma = value - low
    saturation = jnp.floor(255 * chroma / jnp.maximum(value, 1))
    span = jnp.maximum(chroma, 1)
    sextant = jnp.where(value == r, (g - b) / span, jnp.where(value == g, 2 + (b - r) / span, 4 + (r - g) / span))
    turn = sextant / 6 + jnp.where(sextant < 0, np.float32(1), np.float32(0))
    return _interleaved(jnp.stack([jnp.floor(255 * turn), saturation, value]).astype(jnp.int32).astype(jnp.uint8))


def mean_subtracted(image: UInt8[Array, "h w 3"]) -> UInt8[Array, "h w 3"]:
    """MS: each channel less its local mean (Gaussian, 7 taps, sigma 7/6 pixels), its range stretched to 0..254."""
    h, w, channels = image.shape

    def less_mean(line: Array, step: int) -> Array:
        # a sum of differences, so that flat parts are exactly 0 in float32 as they are in SciPy's float64
        length = line.shape[1] - 2 * _MS_RADIUS * step

        def at(offset: int) -> Array:
            start = (_MS_RADIUS + offset) * step
            return lax.slice_in_dim(line, start, start + length, axis=1).astype(jnp.float32)

        pairs = [tap * (2 * at(0) - (at(-k) + at(k))) for k, tap in enumerate(_MS_TAPS, start=1)]
        return functools.reduce(jnp.add, pairs)

    margin = (_MS_RADIUS, _MS_RADIUS)
    # rows lie end to end, so that a step along either axis is a shift of one long line
    tall = jnp.pad(image, (margin, (0, 0), (0, 0)), "symmetric").reshape(1, -1)
    column_mean = image.astype(jnp.float32) - less_mean(tall, w * channels).reshape(image.shape)
    wide = jnp.pad(column_mean, ((0, 0), margin, (0, 0)), "symmetric").reshape(h, -1)
    mean = column_mean.reshape(h, -1) - less_mean(wide, channels)
    difference = lax.optimization_barrier(image.reshape(h, -1).astype(jnp.float32) - mean)
    # over rows first: that loop vectorises
    low = difference.min(axis=0).reshape(w, channels).min(axis=0)
    high = difference.max(axis=0).reshape(w, channels).max(axis=0)
    stretch = high - low + np.float32(1e-3)
    codes = 255 * ((difference - jnp.tile(low, w)[None]) / jnp.tile(stretch, w)[None])
    return codes.astype(jnp.int32).astype(jnp.uint8).reshape(image.shape)


def colour_view(crop: UInt8[Array, "h w 3"], colour: Int32[Array, ""]) -> UInt8[Array, "h w 3"]:
    """The crop in the colour space COLOURS[colour]."""
    return lax.switch(colour, [grey, lab, hsv, mean_subtracted, lambda image: image], crop)


# views


def flip_view(crop: UInt8[Array, "h w 3"], flip: Bool[Array, ""]) -> UInt8[Array, "h w 3"]:
    """The crop, left and right exchanged if `flip`."""
    return lax.cond(flip, lambda image: lax.rev(image, (1,)), lambda image: image, crop)


def finish_view(crop: UInt8[Array, "h w 3"], draw: ViewDraw) -> UInt8[Array, "h w 3"]:
    """A crop, padded already if it must be, in its colour space and flipped."""
    return flip_view(colour_view(crop, draw.colour), draw.flip)


def place_view(image: UInt8[Array, "h w 3"], draw: ViewDraw, size: int) -> UInt8[Array, "size size 3"]:
    """The crop of one view of an image with even sides: scale, crop or pad to `size`."""

    def full(image: Array) -> Array:
        return crop_or_pad(image, draw.y, draw.x, size)

    def half(image: Array) -> Array:
        return _pad(_half_part(image, *_place(image.shape[0] // 2, image.shape[1] // 2, draw.y, draw.x, size)), size)

    return lax.cond(draw.div == 2, half, full, image)


def make_view(image: UInt8[Array, "h w 3"], draw: ViewDraw, size: int) -> UInt8[Array, "size size 3"]:
    """One view of an image with even sides: scale, crop or pad to `size`, colour space, flip."""
    return finish_view(place_view(image, draw, size), draw)


def two_views(image: UInt8[Array, "h w 3"], draws: ViewDraw, size: int) -> UInt8[Array, "2 size size 3"]:
    """Both views of an image with even sides; `draws` with fields [2]."""
    return jnp.stack([make_view(image, draw_at(draws, view), size) for view in (0, 1)])
