"""Makes distortions.md from the table of distortions, and its pictures from a procedural scene.

python docs/make_distortions.py             # the text
python docs/make_distortions.py --pictures  # the text and the pictures, a strip of five levels a type
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from contrique_jax import distort
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.distort import bank

HERE = Path(__file__).parent
TEXT, PICTURES = HERE / "distortions.md", "images/distortions"
SCENE = (3, 17, 168, 224)  # seed, number, height, width
GAP = 4  # pixels between the images of a strip


class Note(NamedTuple):
    """What the table of the package does not say of a type."""

    formula: str  # p: the level's parameter; x: the image in [0, 1]
    sections: str  # of docs/specification.md
    test: str  # against which reference, how close


LAB = "scikit-image `rgb2lab`, `lab2rgb`"
NOTES = {
    1: Note(
        "y = G x, G(i) = exp(-i² / 2p²) for |i| <= ceil(2p), normalised; border repeated.",
        "3",
        "SciPy `gaussian_filter(mode='nearest')` with that radius: largest error 1e-5",
    ),
    2: Note(
        "y = D x, D(i, j) = the share of pixel (i, j) that a disk of radius p covers, over πp²; border repeated.",
        "3",
        "the disk counted with 64 x 64 points a pixel: 1e-3; `fspecial`'s values for radii 1 and 2: 5e-5; OpenCV `filter2D` "
        "with that kernel: 1e-5",
    ),
    3: Note(
        "y = M x, M(i, j) = max(0, 1 - distance of (i, j) from a segment of length p - 1 about 0), normalised; the angle is a "
        "whole number of degrees drawn from 0..180.",
        "3",
        "the kernel point by point in NumPy: 1e-6; OpenCV `filter2D` at one of the angles: 1e-5",
    ),
    4: Note(
        "In Lab: a, b = p G(a, b) with the Gaussian G of standard deviation 1.5p + 2; L stays.",
        "3",
        f"{LAB} and SciPy `gaussian_filter`: largest error 1e-3, mean 1e-5",
    ),
    5: Note(
        "G(r, c) = w G(r - s, c - t) + (1 - w) G(r, c), |(s, t)| = p, down and right at random; w is the blurred gradient of "
        "the grey image, between 1 % and 99 % of its values stretched to 0..1.",
        "3",
        "the steps in NumPy and SciPy, in double precision: 1e-4",
    ),
    6: Note(
        "A palette of p colours: boxes of the colour cube are cut, each time where it lowers the squared error most; then "
        "Floyd-Steinberg dithering to the nearest colour, looked up by cells of 8 x 8 x 8 codes.",
        "3 and 4.2",
        "the serial Floyd-Steinberg loop: equal; all cuts searched in NumPy: equal; PSNR at most 1.5 dB under Pillow's "
        "`quantize` with dithering, 3 dB at 8 colours, and on average at most 1 dB",
    ),
    7: Note(
        "y = V - p (V - x), V = max(R, G, B): the saturation of HSV times p, not clipped.",
        "3",
        "scikit-image `rgb2hsv`, `hsv2rgb` for p >= 0: 1e-6; dm_pix for p < 0: 2e-6",
    ),
    8: Note("In Lab: a, b = p (a, b).", "3", f"{LAB}: largest error 1e-3, mean 1e-5"),
    9: Note(
        "Irreversible JPEG2000: colour transform, 9/7 wavelet of five levels, one step for all bands such that a model of the "
        "coded length meets 24/p bits a pixel.",
        "3 and 4.4",
        "lifting in NumPy on values of -200..200: 2e-3, and 1e-2 in the lowest band, whose values are up to 32 times as "
        "large; Pillow's OpenJPEG (`irreversible=True, mct=1`) on those of 7 photographs and 5 scenes whose files fill their "
        "budget: PSNR against the source within 0.6 dB on photographs (1 dB above 48 dB) and 1.4 dB on scenes, 0.25 dB on "
        "average",
    ),
    10: Note(
        "Baseline JPEG of quality p, 4:2:0, tables of ITU-T T.81 annex K, smooth upsampling, written and read back.",
        "3 and 4.3",
        "Pillow's libjpeg-turbo: PSNR of at least 45 dB (40 dB on small images), at most 12 % of samples off by more than 1",
    ),
    11: Note(
        "y = clip(x + sqrt(p) n), n ~ N(0, 1) for each sample.",
        "3",
        "SciPy's Kolmogorov-Smirnov test, mean within 4 standard errors, variance within 2 %, no correlation of neighbours",
    ),
    12: Note(
        "The same in studio-range YCbCr, clipped there and in RGB.",
        "3",
        "the same of the noise in scikit-image's `rgb2ycbcr`; the conversion within 1e-6",
    ),
    13: Note(
        "Of all samples, each channel on its own: p/2 become 0, p/2 become 1.",
        "3",
        "binomial: both shares within 4 standard deviations, channels independent",
    ),
    14: Note(
        "y = clip(x (1 + n)), n uniform with variance p.",
        "3",
        "SciPy's Kolmogorov-Smirnov test against the uniform distribution, variance within 2 %, |n| <= sqrt(3p)",
    ),
    15: Note(
        "Noise as of type 11 with variance p, then removed: in 8 x 8 DCTs of each channel, at every second pixel, "
        "coefficients up to 2.7 sqrt(p) become 0. The original does it with a network of MATLAB's, whose weights are not free.",
        "3 and 4.1",
        "the definition patch by patch in SciPy: 1e-5; PSNR at least 5 dB over the noisy image and at most 0.5 dB under "
        "scikit-image's `denoise_wavelet`",
    ),
    16: Note(
        "y = (2 c(x) + RGB(100 c(L/100), a, b)) / 3, c(v) = clip(v + 2p v (1 - v)).",
        "3",
        f"SciPy `CubicSpline` and {LAB}: largest error 1e-3, mean 1e-5",
    ),
    17: Note("y = clip(x - 2p x (1 - x)).", "3", "SciPy `CubicSpline` through the three points: 1e-6"),
    18: Note("y = clip(x + p).", "3", "NumPy: 1.2e-7"),
    19: Note(
        "Five times: y(r, c) = x(r - s, c - t), s, t ~ N(0, p²) for each pixel; Keys' cubic, border repeated, no clipping.",
        "3",
        "Keys' cubic in NumPy, in double precision: 1e-4 for given shifts; SciPy `map_coordinates` of order 3: PSNR of at "
        "least 45 dB for one turn",
    ),
    20: Note(
        "p times, one after another: a patch of 16 x 16 pixels is copied to a place up to 8 pixels off an axis.",
        "3",
        "the loop in NumPy with the same draws: equal",
    ),
    21: Note(
        "Nearest neighbour down to ceil(z H) x ceil(z W) and back, z = 0.95 - p^0.6.",
        "3",
        "the index tables in exact decimal arithmetic: equal",
    ),
    22: Note(
        "The p thresholds with the largest variance between classes, over all samples; a sample becomes the least threshold "
        "not below it, 0 up to the first one, 1 above the last one.",
        "3 and 4.5",
        "scikit-image `threshold_multiotsu` for up to 3 thresholds: within one of 256 bins; no worse than SciPy's Nelder-Mead "
        "for all p; samples against `np.searchsorted`: 1e-6",
    ),
    23: Note(
        "p squares of 32 x 32 pixels at random places in random colours, later ones over earlier ones.",
        "3",
        "the loop in NumPy with the same draws: equal",
    ),
    24: Note(
        "In Lab: L = L + p (L - G L), G the Gaussian of standard deviation 3 pixels, cut at 6.",
        "3",
        f"{LAB} and SciPy `gaussian_filter`: largest error 1e-3, mean 1e-5",
    ),
    25: Note(
        "y = clip of the cubic through (0, 0), (0.3, 0.25 - p/4), (0.5, 0.5), (0.7, 0.75 + p/4), (1, 1).",
        "3",
        "SciPy `CubicSpline(bc_type='not-a-knot')`: 1e-6",
    ),
}

HEAD = """\
# The 25 distortions

Made by `python docs/make_distortions.py --pictures` from the table in `contrique_jax/distort/bank.py`; do not edit it here.

```python
from contrique_jax import distort

compressed = distort.apply(photo, type=10, level=3, seed=0)  # uint8 [H, W, 3] of at least 48 x 48 pixels
```

`contrique-jax gallery PHOTO --out sheet.png` shows all of them on an image of your own,
`contrique-jax distort SRC OUT --all` writes them to a folder.

Every image is stretched to [0, 1] before and after its distortion, as in KADIS-700k (`minmax=False`: clipped at the end
instead). The errors below are those of the distortion itself, in [0, 1], before that and before rounding to bytes.

A class is 5 (type - 1) + (level - 1), and 125 for an undistorted image. Severity ranks the visible strength of the levels
from 1 to 5; 0 stands for a level that changes nothing. In the formulas x is the image in [0, 1], p the parameter of the
level, and clip limits to [0, 1].

The pictures show levels 1 to 5 on a procedural scene of 224 x 168 pixels: what is measured in pixels, patches or blocks
looks stronger there than at the 512 x 384 pixels of KADIS-700k.
"""


def overview() -> list[str]:
    """The table."""
    lines = ["| type | name | group | parameter | L1 | L2 | L3 | L4 | L5 | classes | severity |", "|--" * 11 + "|"]
    for row in bank.BANK:
        levels = " | ".join(f"{value:g}" for value in row.levels)
        first, last = (bank.class_id(row.type, level) for level in (1, bank.NUM_LEVELS))
        severity = " ".join(map(str, row.severity))
        link = f"[{row.name}](#{anchor(row)})"
        lines.append(
            f"| {row.type:02} | {link} | {row.group} | {row.parameter} | {levels} | {first}..{last} | {severity} |"
        )
    return lines


def heading(row: bank.Distortion) -> str:
    return f"{row.type:02} {row.name}"


def anchor(row: bank.Distortion) -> str:
    """The name that a heading's link has on the pages of code hosts."""
    return heading(row).lower().replace(" ", "-")


def section(row: bank.Distortion) -> list[str]:
    note = NOTES[row.type]
    levels = ", ".join(f"{value:g}" for value in row.levels)
    picture = [f"![{row.name} at its five levels]({PICTURES}/{row.type:02}.jpg)", ""]
    return [
        f"## {heading(row)}",
        "",
        *picture,
        f"- {row.group}; {row.parameter}: {levels}",
        f"- {note.formula}",
        f"- Specification: section {note.sections}. Tested against {note.test}.",
        "",
    ]


def text() -> str:
    """The whole file."""
    lines = [HEAD, *overview(), ""]
    for row in bank.BANK:
        lines += section(row)
    return "\n".join(lines).rstrip() + "\n"


def strip(image: np.ndarray, type: int) -> Image.Image:
    """The image at the five levels of a type, side by side."""
    height, width, _ = image.shape
    page = Image.new("RGB", (bank.NUM_LEVELS * (width + GAP) - GAP, height), (255, 255, 255))
    for level in range(1, bank.NUM_LEVELS + 1):
        page.paste(Image.fromarray(distort.apply(image, type, level)), ((level - 1) * (width + GAP), 0))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true")
    flags = parser.parse_args()
    TEXT.write_text(text(), encoding="utf-8")
    if flags.pictures:
        (HERE / PICTURES).mkdir(parents=True, exist_ok=True)
        image = pristine_scene(*SCENE)
        for type in bank.TYPES:
            strip(image, type).save(HERE / PICTURES / f"{type:02}.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
