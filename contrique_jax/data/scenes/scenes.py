"""Procedural scenes: the embedded default source. No download, any number of images, the same for a number everywhere.

They stand in for photographs if there are none: occluding shapes at all scales, textures down to one pixel, shading,
skies, horizons, windows, strokes, varied palettes and light, with the 1/f spectrum of natural images.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy.random import Generator
from PIL import Image

from contrique_jax.data.scenes.camera import photograph
from contrique_jax.data.scenes.kinds import landscape, leaves, room, street, surface
from contrique_jax.data.scenes.materials import Palette

_PRISTINE, _AUTHENTIC = 1, 2  # the two roles never share a scene


def pristine_scene(seed: int, index: int, height: int = 384, width: int = 512) -> UInt8[np.ndarray, "height width 3"]:
    """A clean scene, a pure function of its arguments; sides of 32 pixels or more."""
    return _scene(_generator(_PRISTINE, seed, index), height, width)


def authentic_scene(seed: int, index: int) -> UInt8[np.ndarray, "h w 3"]:
    """A scene as a random camera, good or bad, would record it; sides of 300 to 720 pixels, both orientations."""
    rng = _generator(_AUTHENTIC, seed, index)
    short = int(rng.integers(300, 541))
    long = min(int(short * rng.choice([1, 4 / 3, 3 / 2, 16 / 9])), 720)
    height, width = (long, short) if rng.random() < 0.35 else (short, long)
    return photograph(rng, _scene(rng, height, width))


def _generator(role: int, seed: int, index: int) -> Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([role, seed % 2**64, index])))


def _scene(rng: Generator, height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    paint = (leaves, landscape, street, room, surface)[rng.choice(5, p=[0.26, 0.24, 0.2, 0.18, 0.12])]
    return _develop(rng, paint(rng, Palette(rng), width, height))


def _develop(rng: Generator, canvas: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Uneven light, vignette, black and white point, tone, the faintest grain."""
    pixels = np.asarray(canvas).astype(np.float32)
    height, width = pixels.shape[:2]
    light = rng.normal(0, rng.uniform(0.0, 0.3), (3, 4)).astype(np.float32)
    light += np.linspace(-1, 1, 4, dtype=np.float32) * rng.normal(0, 0.2)
    gain = np.asarray(Image.fromarray(light).resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    gain = np.exp(gain) * (1 - rng.uniform(0, 0.22) * (x * x + y * y))
    pixels *= gain[..., None]
    low, high = np.percentile(pixels[::4, ::4], (1, 99))
    black, white = rng.uniform(0, 14), rng.uniform(212, 272)
    scale, curve = (white - black) / max(high - low, 60.0), rng.uniform(-0.65, 0.25)  # below 0: brighter middle tones
    pixels -= low
    np.clip(pixels, 0, 1.2 * 255 / scale, out=pixels)  # the curve falls again further up
    pixels *= (np.float32(scale * curve * scale / 255) * pixels) + np.float32(scale * (1 - curve))
    grain = rng.standard_normal((height, width), np.float32) * np.float32(rng.uniform(0.3, 1.0)) + np.float32(
        black + 0.5
    )
    pixels += grain[..., None]
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
