"""A contact sheet: one image under every type and level, with names, parameters, PSNR and SSIM."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import dm_pix as pix
import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from contrique_jax import distort
from contrique_jax.data.decode import decode
from contrique_jax.distort import bank
from contrique_jax.distort.flags import add_flags, types
from contrique_jax.distort.on_arrays import SMALLEST_SIDE
from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.io.machine import available_cores, host_device, use_compilation_cache
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.io.regular import read_bytes

LONGEST, SHORTEST = 512, 384  # pixels: a larger image is reduced to this, the size of KADIS-700k
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 2**27  # of a sheet

# of the sheet [pixels]
GAP, TITLE, CAPTION = 8, 24, 34
NARROWEST = 150  # a column, for its caption
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 20), (95, 95, 95)

RGB = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Cell:
    """One distorted image and how far it is from the source; PSNR in dB, infinite if nothing changed."""

    type: int
    level: int
    image: RGB
    psnr: float
    ssim: float

    @property
    def caption(self) -> str:
        """Two lines."""
        value = bank.BANK[self.type - 1].levels[self.level - 1]
        if np.isinf(self.psnr):
            return f"L{self.level}: {value:g}\nunchanged"
        return f"L{self.level}: {value:g}\n{self.psnr:.1f} dB   SSIM {self.ssim:.3f}"


def reduced(image: RGB) -> RGB:
    """`image`, brought to at most 512 x 384 pixels (or 384 x 512) if it is larger; its shape stays."""
    height, width = image.shape[:2]
    scale = min(LONGEST / max(height, width), SHORTEST / min(height, width))
    if scale >= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def cells(image: RGB, types: Sequence[int], *, seed: int = 0, minmax: bool = True) -> Iterator[list[Cell]]:
    """`image` under each type at its five levels, type by type."""
    likeness = jax.jit(lambda a, b: (pix.psnr(a, b), pix.ssim(a, b)))

    def row(type: int) -> list[Cell]:
        done = []
        for level in range(1, bank.NUM_LEVELS + 1):
            distorted = distort.apply(image, type, level, seed=seed, minmax=minmax)
            with jax.default_device(host_device()):
                psnr, ssim = likeness(*(np.float32(each) / 255 for each in (image, distorted)))
            done.append(Cell(type, level, distorted, float(psnr), float(ssim)))
        return done

    with ThreadPoolExecutor(available_cores()) as pool:
        yield from pool.map(row, types)


@dataclass(frozen=True)
class Layout:
    """Of a sheet, in pixels: an image on it, from one column and row to the next, and all of it (width, height)."""

    width: int
    height: int
    column: int
    row: int
    size: tuple[int, int]


def layout(image: RGB, count: int, scale: float) -> Layout:
    """Of a sheet of `count` types with images at `scale`. Raises UserError if it would be too large."""
    width, height = (max(round(side * scale), 1) for side in (image.shape[1], image.shape[0]))
    column, row = max(width, NARROWEST) + GAP, TITLE + height + CAPTION + GAP
    size = (GAP + bank.NUM_LEVELS * column, GAP + row * (count + 1))
    if size[0] * size[1] > MOST_PIXELS:
        raise UserError(f"--scale {scale:g}: the sheet would have {size[0]} x {size[1]} pixels; take a smaller scale.")
    return Layout(width, height, column, row, size)


def sheet(image: RGB, rows: Sequence[Sequence[Cell]], *, title: str, scale: float = 0.5) -> Image.Image:
    """The source on top, then a row for each type; images are drawn at `scale`. Raises UserError as `layout`."""
    page_layout = layout(image, len(rows), scale)
    width, height, column = page_layout.width, page_layout.height, page_layout.column
    page = Image.new("RGB", page_layout.size, PAPER)
    draw = ImageDraw.Draw(page)
    large, small = (ImageFont.load_default(size=points) for points in (16, 13))

    def paste(pixels: RGB, x: int, y: int) -> None:
        picture = Image.fromarray(pixels)
        page.paste(picture.resize((width, height), Image.Resampling.LANCZOS) if scale != 1 else picture, (x, y))

    draw.text((GAP, GAP), title, INK, large)
    paste(image, GAP, GAP + TITLE)
    draw.text((GAP, GAP + TITLE + height + 3), "source", INK, small)
    for number, row in enumerate(rows, 1):
        y = GAP + number * page_layout.row
        entry = bank.BANK[row[0].type - 1]
        name = f"{entry.type:02}  {entry.name}"
        draw.text((GAP, y), name, INK, large)
        draw.text((GAP + large.getlength(name) + 12, y + 3), f"{entry.group}; {entry.parameter}", FAINT, small)
        for place, cell in enumerate(row):
            paste(cell.image, GAP + place * column, y + TITLE)
            draw.text((GAP + place * column, y + TITLE + height + 1), cell.caption, INK, small, spacing=2)
    return page


def load(path: Path) -> RGB:
    """The image, reduced. Raises UserError if it cannot be read or is too small to be distorted."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read ({error.strerror}).") from error
    image = decode(data, name=str(path))
    small = reduced(image)
    if min(small.shape[:2]) < SMALLEST_SIDE:
        size = f"{image.shape[1]} x {image.shape[0]}"
        within = f"at least {SMALLEST_SIDE} pixels a side once it fits {LONGEST} x {SHORTEST}"
        raise UserError(f"{path}: the image has {size} pixels; a gallery needs {within}.")
    return small


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax gallery`."""
    parser = Parser(
        prog="contrique-jax gallery",
        description="A sheet of one image under every distortion at every level, with PSNR and SSIM against the image. "
        f"A larger image is first reduced to {LONGEST} x {SHORTEST} pixels.",
        epilog="Example: contrique-jax gallery photo.jpg --out sheet.png --type 1,2,10 --scale 1",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("--out", required=True, metavar="F.png|F.jpg")
    add_flags(parser)
    parser.add_argument("--scale", type=float, default=0.5, help="of the images on the sheet, 0.05 to 4; default 0.5")
    flags = parser.parse_args(argv)
    out = output_path("--out", flags.out, SUFFIXES)
    if not 0.05 <= flags.scale <= 4:
        raise UserError(f"--scale {flags.scale:g}: choose one from 0.05 to 4.")
    chosen = types(flags.type)
    path = Path(flags.image).expanduser()
    image = load(path)
    layout(image, len(chosen), flags.scale)  # refused before the work
    use_compilation_cache()
    rows = list(
        tqdm(
            cells(image, chosen, seed=flags.seed, minmax=flags.minmax),
            total=len(chosen),
            unit="type",
            disable=None,
            dynamic_ncols=True,
        )
    )
    size = f"distorted at {image.shape[1]} x {image.shape[0]} pixels, shown at {flags.scale:g} of that"
    ends = "values stretched to the whole range" if flags.minmax else "values clipped"
    page = sheet(image, rows, title=f"{path.name}: {size}; {ends}; seed {flags.seed}", scale=flags.scale)
    with atomic_write(out) as temporary:
        page.save(temporary, "PNG" if out.suffix.lower() == ".png" else "JPEG", quality=92)


if __name__ == "__main__":
    sys.exit(run_verb(main))
