"""Parts of scenes: outlines, shading, textured things, small marks, writing, skylines, crowns of trees."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from contrique_jax.data.scenes.materials import Palette, material, tint

SOFT = [100 + v * 155 // 255 for v in range(256)]  # lowers the contrast of a texture before it is shaded


def outline(rng: Generator) -> Float[np.ndarray, "n 2"]:
    """A closed shape within [-1, 1]: ellipse, box, polygon, star, leaf or blob, turned at random."""
    kind = rng.integers(6)
    turn = rng.uniform(0, 2 * math.pi)
    if kind == 1:
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [1, rng.uniform(0.2, 1)]
        turn *= rng.random() < 0.6
    else:
        count = int(rng.integers(3, 8)) if kind == 2 else 2 * int(rng.integers(4, 9)) if kind == 3 else 40
        angle = np.arange(count) * (2 * math.pi / count)
        radius = np.ones(count)
        if kind == 2:
            angle = np.sort(rng.uniform(0, 2 * math.pi, count))
        elif kind == 3:
            radius[::2] = rng.uniform(0.35, 0.8)
        elif kind == 5:
            for k in (2, 3, 4, 7):
                radius += rng.normal(0, 0.35 / k) * np.cos(k * angle + rng.uniform(0, 6))
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        if kind == 4:
            points[:, 1] *= np.abs(points[:, 1]) ** 0.6 * rng.uniform(0.3, 0.6)
        elif kind == 0:
            points[:, 1] *= rng.uniform(0.4, 1)
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = points @ spin.T
    return points / np.abs(points).max()


def mask_of(points: Float[np.ndarray, "n 2"], width: int, height: int) -> Image.Image:
    """The antialiased polygon, in pixels of a width x height box."""
    fine = 4 if max(width, height) < 80 else 2
    mask = Image.new("L", (width * fine, height * fine))
    ImageDraw.Draw(mask).polygon((points * fine).ravel().tolist(), fill=255)
    return mask.reduce(fine)


def shade(rng: Generator, width: int, height: int, ball: bool) -> Image.Image:
    """Light falling on a plane at a slant, or on a ball."""
    y, x = np.linspace(-1, 1, 24)[:, None], np.linspace(-1, 1, 24)[None]
    angle = rng.uniform(0, 2 * math.pi)
    across = x * math.cos(angle) + y * math.sin(angle)
    if ball:
        bright = 0.3 + 0.45 * across + 0.55 * np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    else:
        bright = 0.8 + rng.uniform(0, 0.35) * across
    small = Image.fromarray((np.clip(bright, 0.06, 1) * 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def thing(
    rng: Generator, colours: Palette, canvas: Image.Image, x: float, y: float, rx: float, ry: float, shadow: float = 0.5
) -> None:
    """A textured, shaded thing about (x, y) [pixels] with half sides rx, ry, and the soft shadow it throws."""
    width, height = max(int(2 * rx), 3), max(int(2 * ry), 3)
    left, top = int(x - rx), int(y - ry)
    mask = mask_of((outline(rng) * 0.98 + 1) * (width / 2, height / 2), width, height)
    if shadow and width > 16:
        soft = max(2, width // 16)
        cast = Image.new("L", (width + 4 * soft, height + 4 * soft))
        cast.paste(mask.point([int(shadow * v) for v in range(256)]), (2 * soft, 2 * soft))
        cast = cast.filter(ImageFilter.BoxBlur(soft))
        canvas.paste((8, 8, 12), (left - 2 * soft + soft, top - soft), cast)
    grey = material(rng, width, height)
    grey = ImageChops.multiply(grey.point(SOFT), shade(rng, width, height, rng.random() < 0.4))
    canvas.paste(tint(grey, *colours.ramp()), (left, top), mask)


def fine_copy(canvas: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """The canvas at twice the size to draw on; `reduce(2)` of it is the canvas with antialiased drawing."""
    fine = canvas.resize((canvas.width * 2, canvas.height * 2), Image.Resampling.NEAREST)
    return fine, ImageDraw.Draw(fine)


def small_things(rng: Generator, colours: Palette, canvas: Image.Image, count: int) -> Image.Image:
    """Flat shapes of 1 to 20 pixels, many small and few large, and hairlines."""
    fine, draw = fine_copy(canvas)
    inks = [colours.flat() for _ in range(12)]
    shapes = [outline(rng) for _ in range(10)]
    radii = np.sort(2.0 / rng.power(1.5, count).clip(0.1))[::-1]
    places = rng.uniform(0, 1, (count, 2)) * fine.size
    for k in range(count):
        points = shapes[k % 10] * radii[k] + places[k]
        if k % 6 == 5:
            far = places[k] + rng.normal(0, 60, 2)
            draw.line((*places[k].tolist(), *far.tolist()), fill=inks[k % 12], width=int(rng.integers(1, 4)))
        else:
            draw.polygon(points.ravel().tolist(), fill=inks[k % 12])
    return fine.reduce(2)


def writing(
    rng: Generator, draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], size: float, ink: tuple
) -> None:
    """Rows of letter-like strokes within a box, `size` the height of a letter."""
    left, top, right, bottom = box
    alphabet = [rng.uniform(0, 1, (int(rng.integers(2, 5)), 2)).round(1) for _ in range(14)]
    stroke = max(int(size / 7), 1)
    y = top
    while y + size <= bottom:
        x = left
        while x + size * 0.6 <= right - rng.exponential(size):
            if rng.random() < 0.84:
                glyph = alphabet[int(rng.integers(14))] * (size * 0.55, size) + (x, y)
                draw.line(glyph.ravel().tolist(), fill=ink, width=stroke)
            x += size * 0.8
        y += size * 1.7


def ridge(rng: Generator, width: int, roughness: float) -> Float[np.ndarray, " width"]:
    """A skyline by midpoints: heights about 0 with a 1/f spectrum, `roughness` pixels."""
    line = np.zeros(width)
    octave, step = roughness, max(width // 2, 2)
    while step >= 2:
        knots = rng.normal(0, octave, width // step + 2)
        line += np.interp(np.arange(width), np.arange(len(knots)) * step - step * rng.random(), knots)
        octave, step = octave * 0.55, step // 2
    return line


def under(line: Float[np.ndarray, " width"], height: int) -> Image.Image:
    """The mask of what lies below a skyline (row numbers)."""
    cover = np.clip(np.arange(height, dtype=np.float32)[:, None] + 1 - line[None].astype(np.float32), 0, 1)
    return Image.fromarray((cover * 255).astype(np.uint8))


def crown(rng: Generator, colours: Palette, canvas: Image.Image, at: np.ndarray, radius: float) -> None:
    """A clump of leaves with a ragged edge."""
    side = max(int(2 * radius), 4)
    leaves = material(rng, side, side, ("foliage",))
    ball = shade(rng, side, side, ball=True)
    y, x = np.linspace(-1, 1, side)[:, None], np.linspace(-1, 1, side)[None]
    ragged = np.asarray(leaves).astype(np.float32) / 255 + 1.1 - 1.5 * (x * x + y * y) ** 0.5
    mask = Image.fromarray((np.clip((ragged - 0.3) * 4, 0, 1) * 255).astype(np.uint8))
    grey = ImageChops.multiply(leaves.point([90 + v * 165 // 255 for v in range(256)]), ball)
    canvas.paste(tint(grey, *colours.ramp(0.27, 0.6)), (int(at[0] - radius), int(at[1] - radius)), mask)
