"""Bytes -> RGB uint8 in sRGB, with an answer for every odd or broken file.

Not honoured, on purpose: frames after the first.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from contrique_jax.data.colour_profiles import to_srgb
from contrique_jax.data.deep_samples import ORIENTATION, read_tiff, to_bytes
from contrique_jax.data.unread_formats import advice, is_raw
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
    # by the optional package pillow-heif; without it they are broken images whose sentence says so
    "HEIF": (".heic", ".heif", ".hif"),
}
EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)

_DNG_VERSION = 0xC612
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

RGB = UInt8[np.ndarray, "h w 3"]


def decode(data: bytes, *, name: str, max_pixels: int = 200_000_000) -> RGB:
    """The image in `data`, upright (EXIF), RGB, 0..255. The array may be read-only.

    - colours: numbers of an embedded ICC profile are converted to sRGB; without one they are taken as they are
    - grey: three equal channels; 16-bit grey, 32-bit integers and floats (of 1 to 4 channels): `deep_samples.to_bytes`
    - transparency: composited over white, as a page would show it; animation: the first frame
    - CMYK: Adobe's inverted inks, as every JPEG program writes them; converted naively where there is no profile

    `name` is what messages call the image. Raises BrokenImage if there is no image, if it is cut off or damaged,
    and, before any pixel is decoded, if the header promises more than `max_pixels`.
    """
    if not data:
        raise BrokenImage(name, "the file is empty")
    try:
        if is_raw(name):  # many are TIFF files, of which Pillow would read the thumbnail
            raise BrokenImage(name, advice(data, name))
        image = _open(data)
        if image is None:
            tiff = read_tiff(data, max_pixels)
            if tiff is None:
                known = f"not an image in a format that can be read ({', '.join(FORMATS)})"
                raise BrokenImage(name, advice(data, name) or known)
            image = of_samples(tiff.samples)
            image = image.transpose(_UPRIGHT[tiff.orientation]) if tiff.orientation in _UPRIGHT else image
            image.info["icc_profile"] = tiff.profile
        width, height = image.size
        if width * height > max_pixels:
            raise BrokenImage(name, f"{width} x {height} pixels is more than the limit of {max_pixels}")
        if _DNG_VERSION in getattr(image, "tag_v2", ()):
            raise BrokenImage(name, advice(data, "x.dng"))
        image.load()
        pixels = np.asarray(to_rgb(upright(image), data))
    except (BrokenImage, MemoryError):
        raise
    except Exception as error:  # damaged files raise nearly anything from within Pillow's plugins
        raise BrokenImage(name, f"damaged or cut off ({str(error) or type(error).__name__})") from error
    if pixels.size == 0:
        raise BrokenImage(name, "the image has no pixels")
    return pixels


def read(path: Path, max_pixels: int = 200_000_000) -> RGB:
    """`decode` of a file. Raises BrokenImage if it cannot be read too."""
    return decode(file_bytes(path), name=str(path), max_pixels=max_pixels)


def file_bytes(path: Path) -> bytes:
    """What a file holds. Raises BrokenImage if it cannot be read."""
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        turned = "\\" in str(path) and os.path.isfile(str(path).replace("\\", "/"))
        advice_on_it = "; write / for \\" if turned else ""
        raise BrokenImage(str(path), f"the file does not exist{advice_on_it}") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        why = getattr(error, "strerror", None) or error
        raise BrokenImage(str(path), f"the file cannot be read ({why})") from error


def _open(data: bytes) -> Image.Image | None:
    """`Image.open` for FORMATS, without its own limit on pixels, which is global and warns or raises."""
    Image.preinit()
    for kind in FORMATS:
        if kind == "HEIF" and data[4:8] != b"ftyp":
            continue
        if kind not in Image.OPEN:
            _register(kind)
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is None or (accept is not None and accept(data[:16]) is not True):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except SyntaxError:  # Pillow's way of saying "not mine after all"
            continue
    return None


def _register(kind: str) -> None:
    """Makes Pillow know a format that it does not know from the start, if what reads it is installed."""
    if kind != "HEIF":
        Image.init()
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says (TIFF: Pillow has done so while loading)."""
    if not {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"} & image.info.keys():
        return image
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF does not make the pixels unreadable
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def of_samples(samples: np.ndarray) -> Image.Image:
    """[h, w, 1 to 4] of any numbers -> an image of as many channels, of bytes."""
    if samples.dtype != np.uint8:
        samples = np.concatenate(
            [to_bytes(samples[..., :3] if samples.shape[2] > 2 else samples[..., :1]), _alpha(samples)], axis=2
        )
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else np.ascontiguousarray(samples))


def _alpha(samples: np.ndarray) -> UInt8[np.ndarray, "h w a"]:
    """The last of two or four channels, which is apart from the colours' range."""
    return to_bytes(samples[..., 3:] if samples.shape[2] > 2 else samples[..., 1:])


def to_rgb(image: Image.Image, data: bytes = b"") -> Image.Image:
    """Any mode -> RGB in sRGB. `data`: the file it comes from."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return to_srgb(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = Image.fromarray(to_bytes(np.asarray(image), data))
        grey.info["icc_profile"] = image.info.get("icc_profile")
        return to_srgb(grey).convert("RGB")
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        page = Image.new("RGB", image.size, (255, 255, 255))
        page.paste(to_srgb(image).convert("RGB"), mask=alpha)
        return page
    return to_srgb(image).convert("RGB")
