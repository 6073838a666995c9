"""Bytes -> RGB uint8, with an answer for every odd or broken file; and two geometric steps: the canvas, the view.

Not honoured, on purpose: ICC profiles (the method reads numbers as they are stored) and frames after the first.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from contrique_jax.errors import BrokenImage

# Only these: Pillow also opens formats that run other programs (EPS) or hold many images of different sizes (ICO).
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, name: str, max_pixels: int = 200_000_000) -> UInt8[np.ndarray, "h w 3"]:
    """The image in `data`, upright (EXIF), RGB, 0..255. The array may be read-only.

    - grey: three equal channels; 16-bit grey: value / 257, rounded; 32-bit integers and floats: the smallest of the
      ranges 0..1 (floats only), 0..255 (floats only), 0..65535 that holds all values becomes 0..255, else min..max
      does; NaN and infinities count as the smallest value
    - transparency: composited over white, as a page would show it; animation: the first frame
    - CMYK: Adobe's inverted inks, as every JPEG program writes them; naive conversion, since ICC profiles are ignored

    `name` is what messages call the image. Raises BrokenImage where there is no image, where it is cut off or damaged,
    and, before any pixel is decoded, where the header promises more than `max_pixels`.
    """
    if not data:
        raise BrokenImage(name, "the file is empty")
    try:
        image = _open(data)
        if image is None:
            raise BrokenImage(name, f"not an image in a format that can be read ({', '.join(FORMATS)})")
        width, height = image.size
        if width * height > max_pixels:
            raise BrokenImage(name, f"{width} x {height} pixels is more than the limit of {max_pixels}")
        image.load()
        pixels = np.asarray(_to_rgb(_upright(image)))
    except (BrokenImage, MemoryError):
        raise
    except Exception as error:  # damaged files raise nearly anything from within Pillow's plugins
        raise BrokenImage(name, f"damaged or cut off ({str(error) or type(error).__name__})") from error
    if pixels.size == 0:
        raise BrokenImage(name, "the image has no pixels")
    return pixels


def read(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """`decode` of a file. Raises BrokenImage where it cannot be read too."""
    try:
        return decode(path.read_bytes(), name=str(path))
    except OSError as error:
        raise BrokenImage(str(path), f"the file cannot be read ({error.strerror})") from error


def _open(data: bytes) -> Image.Image | None:
    """`Image.open` for FORMATS, without its own limit on pixels, which is global and warns or raises."""
    Image.preinit()
    for kind in FORMATS:
        if kind not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is None or (accept is not None and accept(data[:16]) is not True):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except SyntaxError:  # Pillow's way of saying "not mine after all"
            continue
    return None


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says (TIFF: Pillow has done so while loading)."""
    if not {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys():
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make the pixels unreadable
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(image, mask=image.getchannel("A"))
        return page
    return image.convert("RGB")


def _to_bytes(values: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Integers or floats of unknown range -> 0..255, by the rule that `decode` documents."""
    ranges = (65535,) if np.issubdtype(values.dtype, np.integer) else (1, 255, 65535)
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[finite].min(), values[finite].max()
    values = np.where(finite, values, low)
    if low >= 0 and high <= ranges[-1]:
        low, high = 0.0, float(next(top for top in ranges if high <= top))
    return np.floor((values - low) * (255 / max(high - low, 1e-300)) + 0.5).astype(np.uint8)


def to_canvas(image: UInt8[np.ndarray, "h w 3"], height: int = 384, width: int = 512) -> UInt8[np.ndarray, "H W 3"]:
    """The image brought to height x width: turned by 90 degrees where one is portrait and the other landscape, scaled
    to cover (antialiased bicubic, as MATLAB's imresize), centre-cropped. Returned as it is where it already fits."""
    if (image.shape[0] - image.shape[1]) * (height - width) < 0:
        image = np.ascontiguousarray(np.rot90(image))
    h, w = image.shape[:2]
    if (h, w) == (height, width):
        return image
    scale = min(h / height, w / width)
    top, left = (h - height * scale) / 2, (w - width * scale) / 2
    box = (max(left, 0), max(top, 0), min(w - left, w), min(h - top, h))
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(resized)


def authentic_view(
    image: UInt8[np.ndarray, "h w 3"], div: int, y: float, x: float, size: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A view of a photograph of any size, with the original's geometry (specification, section 7).

    The photograph at 1/div of its size (`div` 1 or 2; Pillow's antialiased bilinear); then, where a side is under
    `size`, both sides are centre-cropped or zero-padded; else a crop at the place `y`, `x`, each uniform in [0, 1).
    """
    h, w = max(image.shape[0] // div, 1), max(image.shape[1] // div, 1)
    if h < size or w < size:
        small = image if div == 1 else np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR))
        return _centre(_centre(small, size, axis=0), size, axis=1)
    top = min(math.floor(y * (h - size + 1)), h - size)
    left = min(math.floor(x * (w - size + 1)), w - size)
    if div == 1:
        return image[top : top + size, left : left + size]
    (first_row, last_row, top), (first_column, last_column, left) = (
        _needed(image.shape[0], top, size),
        _needed(image.shape[1], left, size),
    )
    region = np.ascontiguousarray(image[first_row:last_row, first_column:last_column])
    shape = (region.shape[1] // 2, region.shape[0] // 2)
    half = np.asarray(Image.fromarray(region).resize(shape, Image.Resampling.BILINEAR))
    return half[top : top + size, left : left + size]


def _needed(side: int, start: int, size: int) -> tuple[int, int, int]:
    """First and last source pixel needed for `size` pixels of the half-size side from `start`, and their new start.

    Halving an even side reaches one source pixel past a pixel's own two, so one half-size pixel of margin makes the
    crop exact. An odd side is scaled by a little more than two, at a phase that changes along it: it stays whole.
    """
    if side % 2:
        return 0, side, start
    first, last = max(start - 1, 0), min(start + size + 1, side // 2)
    return 2 * first, 2 * last, start - first


def _centre(image: UInt8[np.ndarray, "h w 3"], size: int, axis: int) -> UInt8[np.ndarray, "..."]:
    """Crops or zero-pads one axis to `size` about its centre, rounding as torchvision's CenterCrop."""
    side = image.shape[axis]
    if side >= size:
        start = round((side - size) / 2)  # half to even
        return image[start : start + size] if axis == 0 else image[:, start : start + size]
    before = (size - side) // 2
    padding = [(0, 0)] * image.ndim
    padding[axis] = (before, size - side - before)
    return np.pad(image, padding)
