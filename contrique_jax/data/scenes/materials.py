"""Grey textures for procedural scenes, and the colours they are tinted with.

The textures are drawn once a process, from a fixed seed: scenes take a crop, turned, zoomed, shaded and tinted.
"""

from __future__ import annotations

import colorsys
import functools
import math

import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Float
from numpy.random import Generator
from PIL import Image, ImageDraw

SIDE = 512  # textures repeat after this many pixels
Field = Float[np.ndarray, "side side"]
Colour = tuple[float, float, float]  # 0..255
_RAMP = np.linspace(0, 1, 256)[:, None]


def _rolled(width: int, height: int, image: Image.Image, rng: Generator) -> Image.Image:
    """A crop of width x height (at most SIDE each) at a random place of the doubled texture."""
    x, y = int(rng.integers(2 * SIDE - width + 1)), int(rng.integers(2 * SIDE - height + 1))
    return image.crop((x, y, x + width, y + height))


def material(rng: Generator, width: int, height: int, names: tuple[str, ...] = ()) -> Image.Image:
    """A grey ("L") texture of the size: one of `names` (any, if none), turned and zoomed at random."""
    textures = bank()
    image = textures[str(rng.choice(names or tuple(textures)))][0]
    turn = int(rng.integers(8))
    zoom = 1.0 if rng.random() < 0.5 else 2 ** rng.uniform(-0.7, 0.8)
    zoom = max(zoom, max(width, height) / (2 * SIDE))
    w, h = max(int(width / zoom), 1), max(int(height / zoom), 1)
    if turn >= 4:
        w, h = h, w
    crop = _rolled(w, h, image, rng)
    if turn:
        crop = crop.transpose(Image.Transpose(turn - 1))
    if crop.size != (width, height):
        crop = crop.resize((width, height), Image.Resampling.BICUBIC)
    return crop


def ground(rng: Generator, width: int, height: int, names: tuple[str, ...] = ()) -> Image.Image:
    """A grey texture on a plane that recedes upwards, antialiased by taking far rows from smaller copies."""
    textures = bank()
    copies = textures[str(rng.choice(names or tuple(textures)))]
    near, horizon = rng.uniform(0.4, 1.0), rng.uniform(0.05, 0.25) * height
    scale = near * (height + horizon) / (np.arange(height) + 1 + horizon)  # texture pixels a pixel, by row
    across = np.arange(width) - width * rng.uniform(0.3, 0.7)
    depth = np.cumsum(scale[::-1] ** 2)[::-1] / near
    level = np.clip(np.ceil(np.log2(scale)), 0, len(copies) - 1).astype(int)
    out = np.empty((height, width), np.uint8)
    start = rng.integers(0, SIDE, 2)
    for k in np.unique(level):
        rows = level == k
        texture = np.asarray(copies[k])
        columns = ((across[None] * scale[rows, None] + start[0]) / 2**k).astype(int) % texture.shape[1]
        out[rows] = texture[((depth[rows, None] + start[1]) / 2**k).astype(int) % texture.shape[0], columns]
    return Image.fromarray(out)


def tint(grey: Image.Image, dark: Colour, light: Colour) -> Image.Image:
    """Grey -> RGB along the ramp from `dark` to `light`."""
    colours = np.array(dark) + (np.array(light) - np.array(dark)) * _RAMP
    painted = grey.copy()
    painted.putpalette((np.clip(colours, 0, 255) + 0.5).astype(np.uint8).tobytes())
    return painted.convert("RGB")


class Palette:
    """The colours of one scene: a few hues and how saturated they are."""

    def __init__(self, rng: Generator):
        self.rng = rng
        base = rng.random()
        self.hues = (base, base + 0.5, 0.04, 0.07, 0.09, 0.12, 0.57, 0.6, 0.25)  # two free, earth, sky, leaf
        self.saturation = rng.beta(2.0, 2.8)

    def ramp(
        self, hue: float | None = None, value: float | None = None, saturation: float = 1.0
    ) -> tuple[Colour, Colour]:
        """The dark and the light end of a surface's colour; shadows are bluer and more saturated than lights."""
        rng = self.rng
        hue = (float(rng.choice(self.hues)) if hue is None else hue) + rng.normal(0, 0.025)
        strength = min(self.saturation * saturation * rng.uniform(0.4, 1.5), 0.95)
        value = rng.beta(2.0, 1.3) * 0.85 + 0.15 if value is None else value
        dark = colorsys.hsv_to_rgb((hue + 0.02) % 1, min(strength * 1.2, 1), value * rng.uniform(0.08, 0.5))
        light = colorsys.hsv_to_rgb(hue % 1, strength * 0.8, min(value * 1.15, 1))
        return tuple(255 * c for c in dark), tuple(255 * c for c in light)  # type: ignore[return-value]

    def flat(self, hue: float | None = None, value: float | None = None) -> tuple[int, int, int]:
        """One colour for small things."""
        dark, light = self.ramp(hue, value)
        share = self.rng.uniform(0.3, 1.0)
        return tuple(int(d + (b - d) * share) for d, b in zip(dark, light, strict=True))  # type: ignore[return-value]


@functools.lru_cache(maxsize=1)
def bank() -> dict[str, list[Image.Image]]:
    """Name -> the texture ("L", 2 SIDE x 2 SIDE: it repeats once each way) and its copies at 1/2, 1/4 and 1/8."""
    rng = np.random.default_rng(20211026)
    fields = {
        "haze": _pink(rng, 1.9),
        "cloud": _pink(rng, 1.5),
        "plaster": _pink(rng, 1.0),
        "sand": _pink(rng, 0.5),
        "rock": _relief(_pink(rng, 1.6)) + 0.3 * _pink(rng, 1.0),
        "dune": _relief(_pink(rng, 2.2)) + 0.15 * _pink(rng, 0.5),
        "bark": _warped(_streaks(rng, 0.012), _pink(rng, 2.0), 14),
        "marble": _warped(_streaks(rng, 0.03), _pink(rng, 1.8), 40),
        "fur": _warped(_streaks(rng, 0.035), _pink(rng, 2.4), 30) + 0.3 * _pink(rng, 1.6),
        "brushed": _streaks(rng, 0.004),
        "wood": _wood(rng),
        "brick": _brick(rng, 64, 32),
        "tile": _brick(rng, 64, 64),
        "weave": _weave(rng, 8),
        "canvas": _weave(rng, 4),
        "plaid": _plaid(rng),
        "cells": _cells(rng, 900, dome=False),
        "pebbles": _cells(rng, 500, dome=True),
        "granite": np.sign(_pink(rng, 0.6) - 0.6) + 0.8 * np.sign(_pink(rng, 0.8) - 0.9) + 0.3 * _pink(rng, 0.3),
        "water": _warped(_streaks(rng, 0.015).T, _pink(rng, 2.0), 20) + 0.6 * _pink(rng, 1.8),
        "foliage": _painted(rng, 5200, blade=False),
        "grass": _painted(rng, 5200, blade=True),
    }
    return {name: _copies(field) for name, field in fields.items()}


def _copies(field: Field) -> list[Image.Image]:
    field = _standard(field)
    grey = np.clip(128 + 50 * field, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.tile(grey, (2, 2)))
    return [image] + [image.reduce(2**k) for k in (1, 2, 3)]


def _standard(field: Field) -> Field:
    return (field - field.mean()) / field.std()


@functools.lru_cache(maxsize=1)
def _frequencies() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    return fy, fx, np.hypot(fy, fx)


def _filtered(rng: Generator, gain: np.ndarray) -> Field:
    spectrum = scipy.fft.rfft2(rng.standard_normal((SIDE, SIDE)).astype(np.float32))
    return _standard(scipy.fft.irfft2(spectrum * gain.astype(np.float32), (SIDE, SIDE)))


def _pink(rng: Generator, exponent: float) -> Field:
    """Noise with the amplitude spectrum 1 / f^exponent."""
    return _filtered(rng, 1 / np.maximum(_frequencies()[2], 1.5 / SIDE) ** exponent)


def _streaks(rng: Generator, width: float) -> Field:
    """Noise drawn out along the columns: `width` is the bandwidth along them [cycles a pixel]."""
    fy, _, radius = _frequencies()
    return _filtered(rng, np.exp(-((fy / width) ** 2)) / np.maximum(radius, 4 / SIDE) ** 0.6)


def _relief(height: Field) -> Field:
    """A height field lit from a side."""
    return _standard(np.roll(height, 1, 1) - height + 0.6 * (np.roll(height, 1, 0) - height))


def _warped(field: Field, by: Field, pixels: float) -> Field:
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    places = np.stack([rows + pixels * np.roll(by, SIDE // 3, 0), columns + pixels * by])
    return scipy.ndimage.map_coordinates(field, places, order=1, mode="grid-wrap")


def _wood(rng: Generator) -> Field:
    rings = np.mgrid[:SIDE, :SIDE][1] / SIDE * 24 + _warped(_pink(rng, 2.2), _pink(rng, 2.0), 5) * 1.3
    boards = np.repeat(rng.normal(0, 0.8, 8), SIDE // 8)
    seams = -3.0 * (np.arange(SIDE) % (SIDE // 8) < 2)
    return (rings % 1) ** 2 + 0.5 * _streaks(rng, 0.006) + boards + seams


def _brick(rng: Generator, width: int, height: int) -> Field:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    shift = (rows // height % 2) * (width // 2) if width != height else 0
    shade = rng.normal(0, 1, (SIDE // height, SIDE // width))
    bricks = shade[rows // height, (columns + shift) % SIDE // width]
    inside_x, inside_y = (columns + shift) % width, rows % height
    mortar = (inside_x < 3) | (inside_y < 3)
    lip = 0.8 * ((inside_x == 3) | (inside_y == 3)) - 0.8 * ((inside_x == width - 1) | (inside_y == height - 1))
    return np.where(mortar, 1.8, bricks * 0.7 + lip) + 0.5 * _pink(rng, 1.0)


def _weave(rng: Generator, thread: int) -> Field:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    over = (rows // thread + columns // thread) % 2 == 0
    warp, weft = np.sin(np.pi * (columns % thread + 0.5) / thread), np.sin(np.pi * (rows % thread + 0.5) / thread)
    threads = np.where(over, rng.normal(0, 0.25, SIDE // thread)[columns // thread], 0.3)
    return np.where(over, warp, weft) * 1.6 + threads + 0.35 * _pink(rng, 0.9)


def _plaid(rng: Generator) -> Field:
    def bands() -> np.ndarray:
        edges = np.sort(rng.integers(0, SIDE // 4, 7))
        return np.tile(rng.normal(0, 1, 8)[np.searchsorted(edges, np.arange(SIDE // 4))], 4)

    twill = (np.add.outer(np.arange(SIDE), np.arange(SIDE)) // 2) % 2
    return np.where(twill, bands()[:, None], bands()[None]) + 0.2 * _pink(rng, 0.8)


def _cells(rng: Generator, count: int, dome: bool) -> Field:
    """Cells about random points: flat ones with dark seams, or domes as of pebbles."""
    margin = 64
    seeds = np.ones((SIDE, SIDE), bool)
    seeds[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = False
    seeds = np.pad(seeds, margin, mode="wrap")
    distance, nearest = scipy.ndimage.distance_transform_edt(seeds, return_indices=True)
    shade = rng.normal(0, 1, (SIDE, SIDE))[tuple((nearest - margin) % SIDE)]
    seam = (np.diff(shade, axis=0, append=0) != 0) | (np.diff(shade, axis=1, append=0) != 0)
    seam = scipy.ndimage.uniform_filter(seam.astype(np.float32), 3)
    field = shade * 0.6 - 3 * seam
    if dome:
        rows, columns = np.mgrid[: len(seeds), : len(seeds)]
        field = field - 0.012 * distance**2 + 0.06 * ((nearest[0] - rows) + 0.6 * (nearest[1] - columns))
    return field[margin:-margin, margin:-margin] + 0.25 * _pink(rng, 0.8)


def _painted(rng: Generator, count: int, blade: bool) -> Field:
    """Leaves or blades of grass over each other, small ones last, each with a light and a dark half."""
    scale = 2
    side = SIDE * scale
    image = Image.new("L", (side, side), 40)
    draw = ImageDraw.Draw(image)
    lengths = np.sort(scale * (rng.uniform(14, 40, count) if blade else 8 / rng.power(1.6, count).clip(0.12)))[::-1]
    for k, length in enumerate(lengths):
        angle = rng.normal(-math.pi / 2, 0.35) if blade else rng.uniform(0, 2 * math.pi)
        width = length * (0.07 if blade else rng.uniform(0.18, 0.35))
        depth = 0.35 + 0.65 * k / count
        grey = rng.uniform(60, 230) * depth
        along, aside = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        at = rng.uniform(0, side, 2)
        for wrap in _wraps(at, length, side):
            stem, tip = at + wrap - along * length / 2, at + wrap + along * length / 2
            left, right = at + wrap + aside * width, at + wrap - aside * width
            draw.polygon([tuple(p) for p in (stem, left, tip)], fill=int(grey))
            draw.polygon([tuple(p) for p in (stem, right, tip)], fill=int(grey * 0.72))
    return np.asarray(image.reduce(scale)).astype(np.float32)


def _wraps(at: np.ndarray, length: float, side: int) -> list[tuple[int, int]]:
    """The shifts at which a shape of `length` at `at` shows in a repeating square."""
    shifts = [[s for s in (-side, 0, side) if -length < place + s < side + length] for place in at]
    return [(x, y) for x in shifts[0] for y in shifts[1]]
