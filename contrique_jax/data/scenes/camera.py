"""A simulated camera: the distortions of everyday photographs, a random few of them, from hardly any to strong."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Float, UInt8
from numpy.random import Generator
from PIL import Image, ImageFilter

Photograph = Float[np.ndarray, "h w 3"]
Stage = Callable[[Generator, Photograph, float], Photograph]  # the last: how strongly, in (0, 1]


def photograph(rng: Generator, scene: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """`scene` as taken: optics and sensor in linear light, then what the camera's program makes of it, then JPEG."""
    severity = rng.beta(1.1, 1.3)  # of the whole photograph
    busy = rng.uniform(0.15, 0.6)  # share of the stages that show

    def strength() -> float:
        """In [0, 1]; 0 where a stage does not show."""
        return min(float(severity * rng.uniform(0.4, 1.3)), 1.0) if rng.random() < busy else 0.0

    x = (scene.astype(np.float32) / 255) ** 2.2
    optics: tuple[Stage, ...] = (_blur, _exposure, _sensor)
    program: tuple[Stage, ...] = (_denoise, _tone, _sharpen, _rescale)
    for stage in optics:
        if (s := strength()) > 0:
            x = stage(rng, x, s)
    x = np.clip(x, 0, 1) ** np.float32(1 / 2.2)
    for stage in program:
        if (s := strength()) > 0:
            x = stage(rng, x, s)
    return _jpeg(rng, _bytes(x), strength())


def _bytes(x: Photograph) -> UInt8[np.ndarray, "h w 3"]:
    return np.clip(x * 255 + 0.5, 0, 255).astype(np.uint8)


def _blur(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Defocus (a disc) or a shaken hand (a wandering line)."""
    side = 2 * (int(2 + 12 * s) // 2) + 3
    grid = np.arange(side) - side // 2
    if rng.random() < 0.55:
        kernel = np.clip(0.3 + 5.5 * s + 0.5 - np.hypot(grid[:, None], grid[None]), 0, 1)
    else:
        turns = np.cumsum(rng.normal(0, 0.12, 200)) + rng.uniform(0, 2 * math.pi)
        path = np.cumsum(np.stack([np.sin(turns), np.cos(turns)]), axis=1)
        path = (path - path.mean(1, keepdims=True)) / max(np.abs(path).max(), 1e-6) * (0.5 + 6 * s) * 0.8
        inside = np.clip(path, -(side // 2), side // 2) + side // 2
        kernel = scipy.ndimage.gaussian_filter(
            np.histogram2d(inside[0], inside[1], side, ((0, side), (0, side)))[0], 0.45
        )
    kernel = (kernel / kernel.sum()).astype(np.float32)
    pad = side // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    shape = [scipy.fft.next_fast_len(n, real=True) for n in padded.shape[:2]]
    spectrum = scipy.fft.rfft2(padded, shape, axes=(0, 1)) * scipy.fft.rfft2(kernel, shape)[..., None]
    return scipy.fft.irfft2(spectrum, shape, axes=(0, 1))[
        2 * pad : 2 * pad + x.shape[0], 2 * pad : 2 * pad + x.shape[1]
    ]


def _exposure(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Too much or too little light, a colour cast, darker corners, veiling glare."""
    gain = 2 ** (rng.normal(0, 1.3) * s) * np.exp(rng.normal(0, 0.25, 3) * s)
    y, z = np.linspace(-1, 1, x.shape[0])[:, None], np.linspace(-1, 1, x.shape[1])[None]
    corners = 1 / (1 + s * rng.uniform(0, 0.8) * (y * y + z * z)) ** 2
    glare = s * rng.uniform(0, 0.12) if rng.random() < 0.3 else 0.0
    return x * (gain * corners[..., None]).astype(np.float32) + np.float32(glare)


def _sensor(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Photon and read noise; the demosaicked colour part is coarser than the bright part."""
    h, w = x.shape[:2]
    deviation = np.sqrt(np.clip(x, 0, 1) * (0.02 * s) ** 1.3 + (0.035 * s**1.5) ** 2).astype(np.float32)
    grey = rng.standard_normal((h, w, 1), np.float32)
    coarse = rng.standard_normal((h // 2 + 1, w // 2 + 1, 3), np.float32)
    colour = np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:h, :w]
    return np.clip(x, 0, 1) + deviation * (grey + rng.uniform(0, 1.2) * scipy.ndimage.uniform_filter(colour, (2, 2, 1)))


def _denoise(rng: Generator, x: Photograph, s: float) -> Photograph:
    """A noise filter that takes fine texture with it: edges stay, flats turn to wax; colour bleeds."""
    image = Image.fromarray(_bytes(x))
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(0.7 + 1.6 * s))).astype(np.float32) / 255
    keep = np.clip(np.abs(x - smooth).mean(2, keepdims=True) * (14 - 9 * s) - 0.3, 0, 1)
    out = x * keep + smooth * (1 - keep)
    grey = out.mean(2, keepdims=True)
    return grey + scipy.ndimage.gaussian_filter(out - grey, (2.5 * s, 2.5 * s, 0)) if rng.random() < 0.5 else out


def _tone(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Gamma, contrast, saturation."""
    x = np.clip(x, 0, 1) ** np.float32(2 ** (rng.normal(0, 0.7) * s))
    x = (x - 0.5) * np.float32(2 ** (rng.normal(0, 0.8) * s)) + 0.5
    grey = x.mean(2, keepdims=True)
    return grey + (x - grey) * np.float32(2 ** (rng.normal(0, 1.0) * s))


def _sharpen(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Unsharp masking, up to broad halos."""
    radius = rng.uniform(0.6, 2.5)
    return x + np.float32(3 * s) * (x - scipy.ndimage.gaussian_filter(x, (radius, radius, 0)))


def _rescale(rng: Generator, x: Photograph, s: float) -> Photograph:
    """Made small and large again, as by a digital zoom or a thumbnail."""
    h, w = x.shape[:2]
    factor = 1 + 3 * s
    down, up = rng.choice([0, 1, 2, 3], 2)  # Pillow's nearest, Lanczos, bilinear, bicubic
    small = Image.fromarray(_bytes(x)).resize((int(w / factor), int(h / factor)), Image.Resampling(down))
    return np.asarray(small.resize((w, h), Image.Resampling(up))).astype(np.float32) / 255


def _jpeg(rng: Generator, pixels: UInt8[np.ndarray, "h w 3"], s: float) -> UInt8[np.ndarray, "h w 3"]:
    """Every photograph is a JPEG: quality 97 down to 8."""
    stream = io.BytesIO()
    quality = int(rng.uniform(85, 98) - 78 * s)
    Image.fromarray(pixels).save(stream, "JPEG", quality=max(quality, 8), subsampling=int(rng.choice([0, 2])))
    return np.array(Image.open(stream))
