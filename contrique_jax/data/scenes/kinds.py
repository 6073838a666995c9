"""The five kinds of procedural scene: things in a heap, landscape, street, room, surface."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw

from contrique_jax.data.scenes.materials import Palette, ground, material, tint
from contrique_jax.data.scenes.parts import SOFT, crown, fine_copy, ridge, shade, small_things, thing, under, writing

_EARTH = ("sand", "rock", "dune", "pebbles", "granite", "grass", "foliage", "cells")
_FLOOR = ("tile", "brick", "wood", "granite", "pebbles", "cells", "plaid", "weave", "sand", "grass", "water")
_WALL = ("plaster", "brick", "wood", "brushed", "haze", "plaid", "tile", "canvas", "cloud")
_FACADE = ("plaster", "brick", "tile", "brushed", "haze", "canvas", "wood", "plaster")


def leaves(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    """Things of all sizes over each other, large ones behind."""
    canvas = tint(material(rng, width, height), *colours.ramp())
    largest, smallest, slope = rng.uniform(0.3, 0.6) * height, rng.uniform(0.02, 0.08) * height, rng.uniform(0.6, 1.6)
    shares = rng.random(int(rng.integers(15, 60)))
    radii = (shares * (smallest**-slope - largest**-slope) + largest**-slope) ** (-1 / slope)  # few large, many small
    shadow = rng.uniform(0, 0.75)
    for radius in np.sort(radii)[::-1]:
        stretch = rng.uniform(0.6, 1.4)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        thing(rng, colours, canvas, x, y, radius * stretch, radius / stretch, shadow)
    return small_things(rng, colours, canvas, int(rng.integers(0, 500)))


def _sky(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    mood = rng.random()
    hue, strength = (0.58, 1.4) if mood < 0.6 else (0.06, 1.2) if mood < 0.8 else (0.6, 0.3)
    _, above = colours.ramp(hue, rng.uniform(0.3, 0.85), strength)
    _, below = colours.ramp(hue if mood < 0.4 else 0.08, rng.uniform(0.75, 1.0), 0.5)
    share = (np.linspace(0, 1, height) ** rng.uniform(0.6, 1.6))[:, None, None]
    column = (np.array(above) * (1 - share) + np.array(below) * share).astype(np.uint8)
    sky = Image.fromarray(np.repeat(column, width, axis=1))
    start, span = rng.uniform(60, 190), rng.uniform(30, 120)
    cover = material(rng, width, height, ("cloud", "haze")).point(
        [int(235 * min(max((v - start) / span, 0), 1)) for v in range(256)]
    )
    body = material(rng, width, height, ("cloud", "haze")).point([min(255, 90 + v) for v in range(256)])
    sky.paste(tint(body, (110, 118, 135), (255, 252, 246)), mask=cover)
    return sky


def landscape(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    """Sky, ridges one behind the other with haze, then ground or water that comes near, and grass."""
    canvas = _sky(rng, colours, width, height)
    horizon = rng.uniform(0.3, 0.65) * height
    haze = np.asarray(canvas)[min(int(horizon), height - 1)].mean(0)
    layers = int(rng.integers(1, 5))
    rough = rng.uniform(0.02, 0.12) * height
    green = rng.random() < 0.6
    for k in range(layers):
        near = (k + 1) / layers
        line = horizon - (1 - near) * 0.12 * height + ridge(rng, width, rough * (1.2 - 0.7 * near))
        grey = material(rng, width, height, ("foliage", "rock", "dune", "plaster", "foliage"))
        dark, light = colours.ramp(0.27 if green else None, rng.uniform(0.3, 0.75))
        fade = 0.75 * (1 - near) ** 0.8
        dark, light = (
            tuple(c * (1 - fade) + h * fade for c, h in zip(end, haze, strict=True)) for end in (dark, light)
        )
        canvas.paste(tint(grey, dark, light), mask=under(line, height))  # type: ignore[arg-type]
    shore = int(min(horizon + rng.uniform(0, 0.12) * height, height - 20))
    if rng.random() < 0.35:
        mirror = canvas.crop((0, max(2 * shore - height, 0), width, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        mirror = mirror.resize((width, height - shore))
        ripples = tint(ground(rng, width, height - shore, ("water",)), (30, 50, 62), (205, 220, 228))
        canvas.paste(Image.blend(mirror, ripples, rng.uniform(0.15, 0.6)), (0, shore))
        return canvas
    near_ground = tint(ground(rng, width, height - shore, _EARTH), *colours.ramp(0.25 if green else 0.09))
    edge = shore + ridge(rng, width, 2.0)
    canvas.paste(near_ground, (0, shore), under(edge - shore, height - shore))
    if rng.random() < 0.6:
        canvas = _trees(rng, colours, canvas, shore)
    return _blades(rng, colours, canvas) if rng.random() < 0.6 else canvas


def _trees(rng: Generator, colours: Palette, canvas: Image.Image, shore: int) -> Image.Image:
    """Bare or leafy trees, far ones first."""
    width, height = canvas.size
    fine, draw = fine_copy(canvas)
    crowns: list[tuple[np.ndarray, float]] = []
    for near in np.sort(rng.uniform(0.05, 1, int(rng.integers(1, 6)))):
        tall = near * rng.uniform(0.4, 0.9) * height
        foot = np.array([rng.uniform(0, width), shore + near * 0.8 * (height - shore)])
        bark = colours.flat(0.07, rng.uniform(0.15, 0.45))
        limbs = [(foot, -math.pi / 2 + rng.normal(0, 0.08), tall * 0.3, max(tall * 0.035, 0.6))]
        while limbs:
            start, angle, length, thick = limbs.pop(0)
            tip = start + length * np.array([math.cos(angle), math.sin(angle)])
            draw.line((*(start * 2).tolist(), *(tip * 2).tolist()), fill=bark, width=max(round(2 * thick), 1))
            if length < tall * 0.1:
                continue
            for _ in range(3 if length < tall * 0.2 else 2):
                limbs.append((tip, angle + rng.normal(0, 0.5), length * rng.uniform(0.6, 0.82), thick * 0.6))
        crowns.append((foot, tall))
    canvas = fine.reduce(2)
    for foot, tall in crowns:
        if rng.random() < 0.6:
            for _ in range(5):
                crown(rng, colours, canvas, foot + rng.normal(0, 0.13, 2) * tall + (0, -0.66 * tall), 0.2 * tall)
    return canvas


def _blades(rng: Generator, colours: Palette, canvas: Image.Image) -> Image.Image:
    """Grass, reeds or flowers in front."""
    fine, draw = fine_copy(canvas)
    width, height = fine.size
    inks = [colours.flat(0.25) for _ in range(8)]
    petals = [colours.flat(value=0.95) for _ in range(3)]
    tall, lean = rng.uniform(0.05, 0.4) * height, rng.normal(0, 0.3)
    flowers = rng.random() < 0.4
    for k in range(int(rng.integers(40, 350))):
        x, reach = rng.uniform(0, width), tall * rng.uniform(0.3, 1)
        bend = reach * (lean + rng.normal(0, 0.25))
        foot, tip = (x, height), (x + bend, height - reach)
        draw.line((*foot, x + bend * 0.3, height - reach * 0.6, *tip), fill=inks[k % 8], width=int(rng.integers(1, 6)))
        if flowers and k % 9 == 0:
            r = rng.uniform(3, 12)
            draw.ellipse((tip[0] - r, tip[1] - r, tip[0] + r, tip[1] + r), fill=petals[k % 3])
    return fine.reduce(2)


def street(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    """Buildings with window grids, a pavement, poles, wires and signs with writing."""
    canvas = _sky(rng, colours, width, height)
    floor = int(rng.uniform(0.6, 0.95) * height)
    facades = []
    for row in range(int(rng.integers(1, 4))):
        x, closeness = -rng.uniform(0, 60.0), 0.5 + 0.25 * row
        while x < width:
            w, h = rng.uniform(0.1, 0.4) * width * closeness, rng.uniform(0.2, 1.15) * height * closeness * 0.9
            box = int(x), int(floor - h), max(int(x + w), int(x) + 12), floor
            grey = material(rng, box[2] - box[0], box[3] - box[1], _FACADE)
            grey = ImageChops.multiply(grey.point(SOFT), shade(rng, *grey.size, ball=False))
            canvas.paste(tint(grey, *colours.ramp(saturation=0.7)), box[:2])
            facades.append((row, box))
            x += w + (rng.exponential(20) if rng.random() < 0.4 else 0)
        if row == 0 and rng.random() < 0.5:
            mist = Image.new("L", canvas.size, int(rng.uniform(20, 110)))
            canvas.paste(canvas.resize((1, 1)).resize(canvas.size), mask=mist)
    pavement = ground(rng, width, height - floor, ("granite", "tile", "sand", "plaster", "brick"))
    canvas.paste(tint(pavement, *colours.ramp(0.6, rng.uniform(0.35, 0.8), 0.3)), (0, floor))
    fine, draw = fine_copy(canvas)
    for row, box in facades:
        _windows(rng, colours, draw, box, [nearer for other, nearer in facades if other > row])
    for _ in range(int(rng.integers(0, 4))):  # poles and wires
        x, top, ink = rng.uniform(0, 2 * width), rng.uniform(0.1, 0.6) * 2 * height, colours.flat(0.6, 0.25)
        draw.line((x, top, x, 2 * floor + 20), fill=ink, width=int(rng.integers(2, 10)))
        for k in range(int(rng.integers(0, 4))):
            sag = [(2 * width * t, top + 12 * k + 160 * t * (1 - t)) for t in np.linspace(0, 1, 12)]
            draw.line(sag, fill=(25, 25, 28), width=int(rng.integers(1, 3)))
    for _ in range(int(rng.integers(0, 4))):
        w, h = rng.uniform(0.12, 0.6) * width, rng.uniform(0.08, 0.28) * height
        x, y = rng.uniform(0, 2 * width - w), rng.uniform(0.3, 0.9) * 2 * floor - h
        draw.rectangle((x, y, x + w, y + h), fill=colours.flat(), outline=colours.flat(value=0.2), width=3)
        writing(
            rng,
            draw,
            (x + 8, y + 8, x + w - 6, y + h - 4),
            rng.uniform(12, 50),
            colours.flat(value=rng.choice([0.12, 1.0])),
        )
    canvas = fine.reduce(2)
    for _ in range(int(rng.integers(0, 5))):
        size = rng.uniform(0.03, 0.12) * height
        thing(rng, colours, canvas, rng.uniform(0, width), rng.uniform(floor, height), size, size)
    return canvas


Box = tuple[int, int, int, int]


def _windows(rng: Generator, colours: Palette, draw: ImageDraw.ImageDraw, box: Box, nearer: list[Box]) -> None:
    """A grid of windows with frames, sills and blinds, on a canvas of twice the size; none on the `nearer` facades."""
    left, top, right, bottom = (2 * v for v in box)
    pitch_x, pitch_y = rng.uniform(12, 70), rng.uniform(16, 80)
    share_x, share_y = rng.uniform(0.35, 0.85), rng.uniform(0.35, 0.85)
    columns, rows = int((right - left) / pitch_x), int((bottom - max(top, -50)) / pitch_y)
    glass, lit = colours.flat(0.58, rng.uniform(0.1, 0.5)), colours.flat(0.12, 0.95)
    frame, sill = colours.flat(value=rng.uniform(0.2, 1)), colours.flat(value=0.9)
    night, barred = rng.random() * 0.4, rng.random() < 0.5
    spare = ((right - left) - columns * pitch_x) / 2
    for row in range(rows):
        y = max(top, -50) + (row + 0.3) * pitch_y
        for column in range(columns):
            x = left + spare + (column + 0.5 - share_x / 2) * pitch_x
            x1, y1 = x + share_x * pitch_x, y + share_y * pitch_y * 0.8
            tone = rng.random(2)
            if any(x1 > 2 * b[0] and x < 2 * b[2] and y1 > 2 * b[1] for b in nearer):
                continue
            ink = lit if tone[0] < night else tuple(int(c * (0.6 + 0.7 * tone[1])) for c in glass)
            draw.rectangle((x, y, x1, y1), fill=ink, outline=frame, width=2)
            if tone[1] < 0.4:
                draw.rectangle((x, y, x1, y + (y1 - y) * tone[1] * 2), fill=frame)
            if barred:
                draw.line(((x + x1) / 2, y, (x + x1) / 2, y1), fill=frame, width=1)
            draw.line((x - 2, y1 + 2, x1 + 2, y1 + 2), fill=sill, width=2)


def room(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    """A wall, a table or floor, pictures and pages with writing, shelves of books, and things that stand there."""
    wall = ImageChops.multiply(material(rng, width, height, _WALL).point(SOFT), shade(rng, width, height, ball=False))
    canvas = tint(wall, *colours.ramp(saturation=0.6))
    edge = int(rng.uniform(0.45, 0.85) * height)
    table = ground(rng, width, height - edge, _FLOOR)
    table = ImageChops.multiply(table.point(SOFT), shade(rng, *table.size, ball=False))
    canvas.paste(tint(table, *colours.ramp()), (0, edge))
    fine, draw = fine_copy(canvas)
    draw.rectangle((0, 2 * edge - 5, 2 * width, 2 * edge), fill=colours.flat(value=0.35))
    for _ in range(int(rng.integers(0, 4))):  # frames and pages on the wall
        w, h = rng.uniform(80, 420), rng.uniform(80, 320)
        x, y = rng.uniform(-40, 2 * width - 60), rng.uniform(-20, max(2 * edge - h, 1))
        draw.rectangle((x, y, x + w, y + h), fill=colours.flat(value=0.95), outline=colours.flat(value=0.25), width=8)
        writing(rng, draw, (x + 18, y + 18, x + w - 18, y + h - 16), rng.uniform(9, 36), colours.flat(value=0.12))
    if rng.random() < 0.6:
        _books(rng, colours, draw, 2 * width, 2 * edge)
    canvas = fine.reduce(2)
    for depth in np.sort(rng.random(int(rng.integers(2, 9)))):
        radius = (0.05 + 0.15 * depth) * height * rng.uniform(0.6, 1.4)
        foot = edge + depth * (height - edge)
        thing(
            rng,
            colours,
            canvas,
            rng.uniform(0, width),
            foot - 0.7 * radius,
            radius * rng.uniform(0.6, 1.2),
            radius,
            0.6,
        )
    return small_things(rng, colours, canvas, int(rng.integers(5, 60)))


def _books(rng: Generator, colours: Palette, draw: ImageDraw.ImageDraw, width: int, floor: int) -> None:
    """A row of spines that stand on the table, on a canvas of twice the size."""
    x, end = rng.uniform(0, 0.4) * width, rng.uniform(0.5, 1.0) * width
    tall = rng.uniform(0.25, 0.6) * floor
    while x < end:
        w, h = rng.uniform(14, 60), tall * rng.uniform(0.7, 1)
        cover, ink = colours.flat(), colours.flat(value=rng.choice([0.1, 1.0]))
        draw.rectangle((x, floor - h, x + w, floor), fill=cover)
        draw.rectangle((x + w * 0.85, floor - h, x + w, floor), fill=tuple(int(c * 0.55) for c in cover))
        for at in rng.uniform(0.05, 0.95, 2):
            draw.line((x, floor - h * at, x + w * 0.85, floor - h * at), fill=ink, width=int(rng.integers(1, 6)))
        writing(rng, draw, (x + 3, floor - h * 0.8, x + w * 0.8, floor - h * 0.25), max(w / 5, 5), ink)
        x += w + 1


def surface(rng: Generator, colours: Palette, width: int, height: int) -> Image.Image:
    """A material close by, in folds or patches, perhaps with writing or with a few things on it."""
    canvas = tint(material(rng, width, height), *colours.ramp())
    for _ in range(int(rng.integers(0, 3))):
        line = (
            rng.uniform(0.1, 0.9) * height
            + rng.uniform(-0.8, 0.8) * np.arange(width)
            + ridge(rng, width, rng.uniform(1, 30))
        )
        canvas.paste(tint(material(rng, width, height), *colours.ramp()), mask=under(line, height))
    fold = material(rng, width, height, ("haze", "dune", "cloud")).point([150 + v * 105 // 255 for v in range(256)])
    canvas = ImageChops.multiply(canvas, Image.merge("RGB", [fold] * 3))
    if rng.random() < 0.35:
        fine, draw = fine_copy(canvas)
        margin = rng.uniform(0, 0.3) * width
        box = (margin, rng.uniform(0, height), 2 * width - margin, 2 * height * rng.uniform(0.6, 1))
        writing(rng, draw, box, rng.uniform(10, 60), colours.flat(value=rng.choice([0.08, 1.0])))
        canvas = fine.reduce(2)
    for _ in range(int(rng.integers(0, 5))):
        size = rng.uniform(0.04, 0.3) * height
        thing(
            rng, colours, canvas, rng.uniform(0, width), rng.uniform(0, height), size, size * rng.uniform(0.5, 1), 0.6
        )
    return canvas
