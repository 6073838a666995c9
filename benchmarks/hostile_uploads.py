"""Uploads that mean no good to an image server: name, what is sent, and how. All from one seed."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")


@dataclass
class Hostile:
    """One request: the bytes of a file in a form (`data`), a body with headers of its own, or raw bytes on the wire, `pause`
    seconds between its parts."""

    kind: str
    name: str
    data: bytes = b""
    headers: dict[str, str] | None = None  # the body is `data` as it is
    wire: list[bytes] = field(default_factory=list)
    pause: float = 0.0
    may_close: bool = False  # a server may hang up without a word
    may_score: bool = False  # it may be an image all the same


def hostile_uploads(seed: int) -> Iterator[Hostile]:
    """About 200."""
    chance = random.Random(seed)
    photograph = Image.effect_noise((320, 240), 80).convert("RGB")
    whole = {name: _encoded(photograph, name) for name in FORMATS}
    yield from _bombs(whole)
    for name, data in whole.items():
        for _ in range(6):
            at = chance.randrange(1, len(data) - 1)
            yield Hostile("truncated", f"{at} bytes of {name}", data[:at], may_score=True)
        for _ in range(5):
            bad = bytearray(data)
            for _ in range(chance.choice((1, 4, 40))):
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            yield Hostile("bits turned", name, bytes(bad), may_score=True)
    yield from _polyglots(whole)
    yield from _wrong_types(chance)
    yield from _forms(whole["JPEG"])
    yield from _wires(whole["JPEG"])


def _encoded(image: Image.Image, name: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name)
    return stream.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, pixels: bytes, depth: int = 8, colour: int = 2, *before: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    """So many zeros, compressed."""
    squeezer, out = zlib.compressobj(9), b""
    while size > 0:
        out += squeezer.compress(bytes(min(size, 1 << 24)))
        size -= 1 << 24
    return out + squeezer.flush()


def _bombs(whole: dict[str, bytes]) -> Iterator[Hostile]:
    def bomb(name: str, data: bytes, may_score: bool = False) -> Hostile:
        return Hostile("bomb", name, data, may_score=may_score)

    yield bomb("PNG of 60,000 x 60,000, all there", _png(60_000, 60_000, _zeros(60_000 * 7_501), 1, 0))
    yield bomb("PNG of 2^31 x 2^31", _png(2**31 - 1, 2**31 - 1, _zeros(100)))
    yield bomb("PNG of 2^31 x 1", _png(2**31 - 1, 1, _zeros(1 << 26), 8, 0))
    yield bomb("PNG just within the limit", _png(7_900, 7_900, _zeros(7_900 * 7_900 * 3 + 7_900)), True)
    yield bomb(
        "PNG within the limit, 16 bits and alpha", _png(7_900, 7_900, _zeros(7_900 * 7_900 * 8 + 7_900), 16, 6), True
    )
    yield bomb("PNG of 7,900 x 7,900 without its pixels", _png(7_900, 7_900, _zeros(1000)))
    text = b"Comment\0\0" + _zeros(1 << 28)
    yield bomb("PNG with 256 MB of compressed text", _png(8, 8, _zeros(200), 8, 2, _chunk(b"zTXt", text)), True)
    profile = b"icc\0\0" + _zeros(1 << 28)
    yield bomb("PNG with a profile of 256 MB", _png(8, 8, _zeros(200), 8, 2, _chunk(b"iCCP", profile)), True)
    yield bomb("PNG with 5,000 texts", _png(8, 8, _zeros(200), 8, 2, *[_chunk(b"tEXt", b"a\0b")] * 5_000), True)
    at = whole["JPEG"].index(b"\xff\xc0") + 5
    yield bomb("JPEG that says 65,535 x 65,535", whole["JPEG"][:at] + b"\xff\xff\xff\xff" + whole["JPEG"][at + 4 :])
    yield bomb("JPEG that says 0 x 0", whole["JPEG"][:at] + b"\0\0\0\0" + whole["JPEG"][at + 4 :])
    yield bomb("JPEG of 300 scans, 60 megapixels", _many_scans(7_700, 300), True)
    yield bomb("GIF that says 65,535 x 65,535", whole["GIF"][:6] + b"\xff\xff\xff\xff" + whole["GIF"][10:], True)
    frames = [Image.new("L", (64, 64), i % 256) for i in range(2_000)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    yield bomb("GIF of 2,000 frames", stream.getvalue(), True)
    yield bomb("PPM of 999,999 x 999,999", b"P6 999999 999999 255\n" + bytes(1000))
    yield bomb("PPM whose head never ends", b"P6 " + b"9" * 1_000_000)
    yield bomb("plain PPM of a million numbers", b"P3 7000 7000 255\n" + b"1 " * 1_000_000)
    for width, height in ((2**31 - 1, 2**31 - 1), (40_000, -40_000), (2**31 - 1, -(2**31))):
        yield bomb(
            f"BMP of {width} x {height}", whole["BMP"][:18] + struct.pack("<ii", width, height) + whole["BMP"][26:]
        )
    for size in (65_535, 16_384):
        stream = io.BytesIO()
        Image.new("1", (size, size)).save(stream, "TIFF", compression="group4")
        yield bomb(f"TIFF of {size} x {size} in {len(stream.getvalue())} bytes", stream.getvalue())
    loop = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 0) + struct.pack("<I", 8)
    yield bomb("TIFF whose directory follows itself", loop)
    yield bomb("TIFF of 65,535 tags", struct.pack("<2sHI", b"II", 42, 8) + b"\xff\xff" + bytes(65_535 * 12))
    yield bomb("BigTIFF that points beyond its end", struct.pack("<2sHHHQ", b"II", 43, 8, 0, 2**63))


def _many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan stands there again and again."""
    data = io.BytesIO()
    Image.new("L", (side, side), 99).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def _polyglots(whole: dict[str, bytes]) -> Iterator[Hostile]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("../../etc/cron.d/x", "boo")
    script = b"<script>alert(document.cookie)</script>"
    for name, data, is_image in (
        ("HTML in a GIF", whole["GIF"][:-1] + script + b";", True),
        ("HTML before a JPEG", script + whole["JPEG"], False),
        ("HTML behind a JPEG", whole["JPEG"] + script, True),
        ("ZIP behind a PNG", whole["PNG"] + archive.getvalue(), True),
        ("ZIP", archive.getvalue(), False),
        ("PDF and a JPEG", b"%PDF-1.4\n1 0 obj\nstream\n" + whole["JPEG"] + b"\nendstream", False),
        ("JPEG with PHP", whole["JPEG"][:2] + b"\xff\xfe\x00\x20<?php system($_GET['x']); ?>.." + whole["JPEG"][2:], True),
        ("PNG in a JPEG's clothes", whole["JPEG"][:3] + whole["PNG"], False),
        ("BMP that is a script", b"BM=1;alert(1);//" + bytes(200), False),
        ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n", False),
        ("SVG with a script", b"<svg xmlns='http://www.w3.org/2000/svg'>" + script + b"</svg>", False),
        ("SVG that opens a file", b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>", False),
        ("MVG that reads a file", b"push graphic-context\nimage over 0,0 0,0 'label:@/etc/passwd'\n", False),
        ("ICO of ten thousand", struct.pack("<HHH", 0, 1, 10_000) + bytes(160_000), False),
    ):  # fmt: skip
        yield Hostile("polyglot", name, data, may_score=is_image)


def _wrong_types(chance: random.Random) -> Iterator[Hostile]:
    for name, data in (
        ("nothing", b""), ("a zero", b"\0"), ("text", b"hello"), ("ELF", b"\x7fELF" + bytes(500)),
        ("MP4", bytes(4) + b"ftypisom"),
        ("HEIC in name only", bytes(4) + b"ftypheic" + bytes(400)), ("AVIF in name only", bytes(4) + b"ftypavif" + bytes(400)),
        ("JPEG XL", b"\xff\x0a" + bytes(50)), ("Photoshop", b"8BPS" + bytes(50)), ("OpenEXR", b"v/1\x01" + bytes(50)),
        ("pickle", b"cos\nsystem\n(S'touch /tmp/owned'\ntR."), ("npy", b"\x93NUMPY" + bytes(90)),
        ("noise", chance.randbytes(100_000)), ("gzip", zlib.compress(bytes(1 << 20))),
        ("NaN as float TIFF", _float_tiff()),
    ):  # fmt: skip
        yield Hostile("wrong type", name, data, may_score=name.startswith("NaN"))
    for kind in ("application/json", "text/html", "application/x-pickle", "multipart/mixed; boundary=x", "\xff/\xfe"):
        yield Hostile("wrong type", f"Content-Type {kind!r}", b"{}", {"Content-Type": kind})


def _float_tiff() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(stream, "TIFF")
    return stream.getvalue()


def _forms(jpeg: bytes) -> Iterator[Hostile]:
    """Bodies of forms that are no good."""

    def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
        return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end

    def file(name: bytes, data: bytes = jpeg) -> bytes:
        return b'Content-Disposition: form-data; name="i"; filename="' + name + b'"\r\n\r\n' + data

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for name, body, scores in (
        ("60 files", form(*[file(b"a.jpg", b"x")] * 60), False),
        ("1,000 fields", form(*[b'Content-Disposition: form-data; name="a"\r\n\r\nb'] * 1_000), False),
        ("a field of 1 MB", form(b'Content-Disposition: form-data; name="a"\r\n\r\n' + b"b" * 1_000_000), False),
        ("a name that is a path", form(file(b"../../../etc/passwd")), True),
        ("a name with zeros and escapes", form(file(b"a\0\x1b[31m.jpg")), True),
        ("a name of 8,000 letters", form(file(b"a" * 8_000)), True),
        ("no end", form(file(b"a.jpg"), end=b""), False),
        ("a part without a name", form(b"Content-Disposition: form-data\r\n\r\nx"), False),
        ("a part without a head", form(b"\r\nx"), False),
        ("a part with 100 kB of heads", form(b"X: " + b"y" * 100_000 + b"\r\n\r\nx"), False),
        ("nothing between the borders", b"--x--\r\n", False),
    ):
        yield Hostile("form", name, body, kind, may_score=scores)
    yield Hostile(
        "form",
        "a border of 100 letters, none in the body",
        b"x" * 1000,
        {"Content-Type": kind["Content-Type"] + "y" * 99},
    )
    yield Hostile("form", "40 MB in one file", form(file(b"a.bmp", b"BM" + bytes(40_000_000))), kind)


def _wires(jpeg: bytes) -> Iterator[Hostile]:
    """What no client of HTTP would send."""
    post = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(jpeg)
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    for name, parts in (
        ("100 kB in one header", [get + b"X: " + b"y" * 100_000 + b"\r\n\r\n"]),
        ("5,000 headers", [get + b"X-y: z\r\n" * 5_000 + b"\r\n"]),
        ("an address of 60 kB", [b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        ("two lengths", [post + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc"]),
        ("a length below 0", [post + b"Content-Length: -5\r\n\r\nabc"]),
        ("a length of 10 GB", [post + b"Content-Length: 10000000000\r\n\r\n" + bytes(1000)]),
        ("a length and chunks", [post + b"Transfer-Encoding: chunked\r\n" + length + b"5\r\nabc"]),
        ("a chunk of size zz", [post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc"]),
        ("no HTTP", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"]),
        ("HTTP/9", [b"GET / HTTP/9.9\r\n\r\n"]),
        ("a header with a zero", [get + b"X: a\0b\r\n\r\n"]),
        ("two requests smuggled in one", [post + b"Content-Length: 3\r\nContent-Length : 99\r\n\r\nabc"]),
        ("no host", [b"POST /v1/score HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"]),
        ("another host", [b"POST /v1/score HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\nx"]),
        ("another site's page", [post + b"Origin: http://evil.example\r\n" + length + jpeg]),
        ("a path upwards", [b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        ("a path upwards, encoded", [b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
        ("an upgrade", [get + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"]),
        ("a method of its own", [b"BREW /v1/score HTTP/1.1\r\nHost: localhost\r\n\r\n"]),
    ):  # fmt: skip
        yield Hostile("wire", name, wire=parts, may_score=name == "an upgrade")  # which is passed over
    for i in range(6):
        yield Hostile("slow body", f"a byte a second, {i}", wire=[post + length, *[b"x"] * 8], pause=1.0)
    yield Hostile("slow body", "a body that never comes", wire=[post + length], pause=1.0)
    yield Hostile("slow headers", "a header a second", wire=[get, *[b"X: y\r\n"] * 14], pause=1.0, may_close=True)
    yield Hostile("slow headers", "half a request", wire=[b"POST /v1/sc"], pause=1.0, may_close=True)
    yield Hostile("gone", "a client that leaves amid its body", wire=[post + length + jpeg[:100]], may_close=True)
