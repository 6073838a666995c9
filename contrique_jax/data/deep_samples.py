"""Samples of more than eight bits, integers and floats, brought to 0..255; TIFF that Pillow has no mode for."""

from __future__ import annotations

import io
import logging
import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION, _PROFILE = 0x0112, 0x8773  # tags, the first of EXIF too
# of 8, 12 and 16 bits: whoever fills a sixteenth of a range alone means the smaller one
INTEGER_TOPS = (255, 4095, 65535)
FLOAT_TOPS = (1, 255, 65535)


def to_bytes(values: Shaped[np.ndarray, "..."], data: bytes = b"") -> UInt8[np.ndarray, "..."]:
    """Integers or floats of unknown range -> 0..255.

    The smallest of INTEGER_TOPS or FLOAT_TOPS that holds all values becomes 255, and 0 stays 0; where values are negative or
    beyond all of them, min..max becomes 0..255. NaN and infinities count as the smallest value. `data`: the file, whose PNG
    header may tell the bits (sBIT).
    """
    whole = np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_
    tops: tuple[int, ...] = INTEGER_TOPS if whole else FLOAT_TOPS
    bits = significant_bits(data) if whole else None
    if bits is not None:
        tops = (_png_top(values, bits), 65535)
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[finite].min(), values[finite].max()
    values = np.where(finite, values, low)
    if low >= 0 and high <= tops[-1]:
        low, high = 0.0, float(next(top for top in tops if high <= top))
    return np.floor((values - low) * (255 / max(high - low, 1e-300)) + 0.5).astype(np.uint8)


def _png_top(values: Shaped[np.ndarray, "..."], bits: int) -> int:
    """The largest value of 16-bit samples of which so many bits mean something: 65535 if they are the upper ones, as the
    standard asks, else that of `bits`, as programs write them that do not."""
    top = (1 << bits) - 1
    if bits >= 16 or values.max(initial=0) > top or not (values & ((1 << (16 - bits)) - 1)).any():
        return 65535
    return top


def significant_bits(data: bytes) -> int | None:
    """The first number of a PNG's chunk sBIT, which stands before its pixels; None if there is none."""
    if not data.startswith(PNG):
        return None
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"sBIT" and length and 0 < data[at + 8] <= 16:
            return data[at + 8]
        if kind in (b"PLTE", b"IDAT", b"IEND"):  # sBIT comes before them
            return None
        at += 12 + length
    return None


class TiffSamples(NamedTuple):
    """What a TIFF holds, as it is stored."""

    samples: Shaped[np.ndarray, "h w c"]
    orientation: int  # as in EXIF
    profile: bytes | None


def read_tiff(data: bytes, max_pixels: int) -> TiffSamples | None:
    """The samples of a TIFF's first image that Pillow has no mode for: floats of several channels, of 16 or 64 bits.

    None if it is none with 1 to 4 channels. Raises ValueError for more than `max_pixels`, and whatever `tifffile` raises
    for a damaged file or a compression that it lacks.
    """
    if data[:4] not in TIFF:
        return None
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong comes as an exception
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        if page.imagewidth * page.imagelength > max_pixels:
            raise ValueError(f"{page.imagewidth} x {page.imagelength} pixels is more than the limit of {max_pixels}")
        if (
            not 1 <= page.samplesperpixel <= 4
            or page.imagedepth != 1
            or page.dtype is None
            or page.dtype.kind not in "fui"
        ):
            return None
        samples = page.asarray(maxworkers=1)
        if samples.ndim == 3 and page.axes[0] == "S":  # a plane a channel
            samples = np.moveaxis(samples, 0, -1)
        tags = {name: page.tags[name].value for name in (ORIENTATION, _PROFILE) if name in page.tags}
    shaped = samples.reshape(*samples.shape[:2], -1)
    return TiffSamples(shaped, int(tags.get(ORIENTATION, 1)), tags.get(_PROFILE))
