"""Bytes -> RGB uint8, with an answer for every odd or broken file.

Not honoured, on purpose: ICC profiles (the method reads numbers as they are stored) and frames after the first.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from contrique_jax.errors import BrokenImage
from contrique_jax.io.regular import read_bytes

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

    `name` is what messages call the image. Raises BrokenImage if there is no image, if it is cut off or damaged,
    and, before any pixel is decoded, if the header promises more than `max_pixels`.
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


def read(path: Path, max_pixels: int = 200_000_000) -> UInt8[np.ndarray, "h w 3"]:
    """`decode` of a file. Raises BrokenImage if it cannot be read too."""
    try:
        return decode(read_bytes(path), name=str(path), max_pixels=max_pixels)
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
