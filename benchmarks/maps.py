"""Whether the worst window of a map lies in the fault: photographs with a fault made in about a ninth of them.

Of BSDS500 every other photograph, the ones that `benchmarks/pretrained.py` did not fit on; of any other folder all. Each is
shown three times: a corner under Gaussian blur, a patch as a JPEG of quality 5 to 11, Gaussian noise along the top.

  python benchmarks/maps.py bsds500 --every-other --count 70
  python benchmarks/maps.py PHOTOS --count 70
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import contrique_jax
from contrique_jax.data.decode import read
from contrique_jax.networks.host_pooling import WINDOW, WINDOWS

SHARE = 0.34  # of the height and of the width that a fault spans
INSIDE = 0.5  # of a window that the fault must cover for the window to count as in it


def blurred(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(part).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 3))))


def noisy(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(part + rng.normal(0, rng.uniform(12, 22), part.shape), 0, 255).astype(np.uint8)


def blocky(part: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(part).save(stored, "JPEG", quality=int(rng.integers(5, 12)))
    return np.asarray(Image.open(stored))


FAULTS = {"blurred corner": blurred, "noisy top": noisy, "blocky patch": blocky}


def faulty(image: np.ndarray, name: str, rng: np.random.Generator) -> tuple[np.ndarray, tuple[float, ...]]:
    """The image with that fault, and where it is: top, left, bottom, right as shares of the sides."""
    height, width = image.shape[:2]
    high, wide = int(height * SHARE), int(width * SHARE)
    top, left = int(rng.integers(height - high)), int(rng.integers(width - wide))
    if name == "blurred corner":
        top, left = int(rng.choice([0, height - high])), int(rng.choice([0, width - wide]))
    elif name == "noisy top":
        top = 0
    made = image.copy()
    made[top : top + high, left : left + wide] = FAULTS[name](image[top : top + high, left : left + wide], rng)
    return made, (top / height, left / width, (top + high) / height, (left + wide) / width)


def covered(place: tuple[float, ...]) -> np.ndarray:
    """The share of each window that lies in the fault [g, g]."""
    first = np.linspace(0, 1 - WINDOW, WINDOWS)
    sides = [
        np.clip(np.minimum(first + WINDOW, place[i + 2]) - np.maximum(first, place[i]), 0, None) / WINDOW
        for i in (0, 1)
    ]
    return np.outer(*sides)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--every-other", action="store_true", help="from the second on, of those of 481 x 321 pixels")
    options = parser.parse_args()
    paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if options.every_other:
        paths = [path for path in paths if Image.open(path).size == (481, 321)][1::2]
    meter, rng = contrique_jax.load(), np.random.default_rng(5)
    hits: dict[str, list[bool]] = {name: [] for name in FAULTS}
    depths = []
    for path in paths[: options.count]:
        image = read(path)
        plain = meter.map(image)
        depths.append(plain.mean() - plain.min())
        for name, found in hits.items():
            shown, place = faulty(image, name, rng)
            scores = meter.map(shown)
            found.append(bool(covered(place).ravel()[scores.argmin()] >= INSIDE))
    for name, found in hits.items():
        print(f"{name:15} worst window in the fault in {sum(found)} of {len(found)} photographs")
    every = [hit for found in hits.values() for hit in found]
    print(
        f"{'all':15} {np.mean(every):.3f}; untouched photographs sink by {np.mean(depths):.1f} points at their worst window"
    )


if __name__ == "__main__":
    main()
