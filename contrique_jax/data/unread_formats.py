"""Files that look like photographs and are not read here: what they are, and what to do with them."""

from __future__ import annotations

from importlib.util import find_spec
from os.path import splitext

from PIL import features

_RAW = """
    .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl
    .sr2 .srf .srw .x3f
"""
_OTHERS = ".jxl .jxr .wdp .hdp .psd .psb .exr .hdr .tga .pcx .xcf .eps .jpx .jpf .j2c .jpc .heics .avifs"
RAW = frozenset(_RAW.split())
PHOTOGRAPHS = RAW | frozenset(_OTHERS.split())  # by extension: what may hold a photograph, and is left out of folders

_RAW_ADVICE = (
    "a camera's raw file; convert it to JPEG, PNG or TIFF first (darktable-cli, dcraw or the camera's own program do)"
)
_CONVERT = "convert it to JPEG, PNG or TIFF first"
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# how a file begins -> what it is
_BEGINNINGS = {
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"8BPS": "Photoshop", b"v/1\x01": "OpenEXR", b"%!PS": "PostScript",
    b"%PDF": "PDF", b"II\xbc": "JPEG XR", b"gimp xcf": "GIMP", b"#?RADIANCE": "Radiance",
}  # fmt: skip
_RAW_BEGINNINGS = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")


def is_raw(name: str) -> bool:
    """Whether a file is a camera's raw one, by its extension."""
    return splitext(name)[1].lower() in RAW


def advice(data: bytes, name: str) -> str:
    """What a file is that could not be opened, and what to do with it; "" if it looks like nothing known."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if is_raw(name) or data.startswith(_RAW_BEGINNINGS) or data[8:10] == b"CR" or brand == b"crx ":
        return _RAW_ADVICE
    if brand in _HEIF and find_spec("pillow_heif") is None:
        return 'HEIC, which needs the package pillow-heif: pip install "contrique-jax[heif]", or convert it to JPEG'
    if brand in (b"avif", b"avis"):
        return (
            "damaged or cut off (AVIF)"
            if features.check("avif")
            else f"AVIF, which this Pillow lacks; update it, or {_CONVERT}"
        )
    if brand in _HEIF:
        return "damaged or cut off (HEIC)"
    if data[4:8] in (b"ftyp", b"moov", b"mdat") or data.startswith((b"\x1aE\xdf\xa3", b"FLV")) or data[8:12] == b"AVI ":
        return "not an image but a video; give it the name of one, such as .mp4 or .mkv"
    found = next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), "")
    return f"not an image in a format that can be read, but {found}; {_CONVERT}" if found else ""
