"""Milliseconds of one core for the two views of a JPEG without distortion: plain Pillow and SciPy beside ours.

`pillow_two_views` does what the original's loader does with an image, as one would write it with care: decode, full and
half scale, crop or pad to 256, colour space, flip. Ours decodes with Pillow too and does the rest in one compiled
function. Both take the same images in turn in one process.

  taskset -c 0 python benchmarks/pillow_loader.py
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
import scipy.ndimage
from PIL import Image, ImageCms, ImageOps

SIZE = 256
LAB = ImageCms.buildTransformFromOpenProfiles(
    ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
)
WINDOW = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
WINDOW = WINDOW / WINDOW.sum()


def cut(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop, or, where a side is too short, both sides centre-cropped or zero-padded."""
    width, height = image.size
    if min(width, height) >= SIZE:
        left, top = int(rng.integers(width - SIZE + 1)), int(rng.integers(height - SIZE + 1))
    else:
        left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))  # what lies outside comes as zeros


def mean_subtracted(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(np.float32)
    mean = scipy.ndimage.correlate1d(pixels, WINDOW, axis=0, mode="reflect")
    mean = scipy.ndimage.correlate1d(mean, WINDOW, axis=1, mode="reflect")
    difference = pixels - mean
    low = difference.min(axis=(0, 1))
    return ((difference - low) / (difference.max(axis=(0, 1)) - low + np.float32(1e-3)) * 255).astype(np.uint8)


def coloured(image: Image.Image, colour: int) -> np.ndarray:
    if colour == 0:
        return np.asarray(Image.merge("RGB", [image.convert("L")] * 3))
    if colour == 1:
        return np.asarray(ImageCms.applyTransform(image, LAB))
    if colour == 2:
        return np.asarray(image.convert("HSV"))
    if colour == 3:
        return mean_subtracted(image)
    return np.asarray(image)


def pillow_two_views(data: bytes, rng: np.random.Generator) -> np.ndarray:
    """An encoded image -> uint8 [2, 256, 256, 3]: a view at full and one at half scale, in random order."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    views = np.empty((2, SIZE, SIZE, 3), np.uint8)
    for view, scaled in enumerate((image, half) if rng.random() < 0.5 else (half, image)):
        crop = cut(scaled, rng)
        if rng.random() < 0.5:
            crop = ImageOps.mirror(
                crop
            )  # before the colour space, where an image is still Pillow's: the result is the same
        views[view] = coloured(crop, int(rng.integers(5)))
    return views


def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG of a procedural scene."""
    from contrique_jax.data.scenes import pristine_scene

    file = io.BytesIO()
    Image.fromarray(pristine_scene(seed, 0)).resize((width, height)).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=300, help="images each way")
    options = parser.parse_args()

    import jax

    from contrique_jax.augment.views import draw_views, two_views

    jax.config.update("jax_platforms", "cpu")
    files = [photograph(options.width, options.height, seed) for seed in range(4)]
    compiled = jax.jit(two_views, static_argnums=2)
    draws = jax.tree.map(np.asarray, jax.vmap(draw_views)(jax.random.split(jax.random.key(0), options.repeats)))
    rng = np.random.default_rng(0)

    def decode(number: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[number % len(files)])).convert("RGB"))

    def views(number: int, image: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(image, jax.tree.map(lambda part: part[number], draws), SIZE))

    views(0, decode(0))
    seconds: dict[str, list[float]] = {
        "decoding, in both": [],
        "Pillow and SciPy, with decoding": [],
        "ours, with decoding": [],
    }
    for number in range(options.repeats):
        ways = (
            lambda number=number: decode(number),
            lambda number=number: pillow_two_views(files[number % len(files)], rng),
            lambda number=number: views(number, decode(number)),
        )
        for samples, way in zip(seconds.values(), ways, strict=True):
            start = time.perf_counter()
            way()
            samples.append(time.perf_counter() - start)
    print(f"{options.width} x {options.height} JPEG -> two views; ms a sample, mean and median of {options.repeats}")
    for name, samples in seconds.items():
        print(f"{name:<34}{1e3 * statistics.mean(samples):8.2f}{1e3 * statistics.median(samples):8.2f}")


if __name__ == "__main__":
    main()
