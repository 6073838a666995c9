"""Decoding of ordinary, odd and broken files."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, features

from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.decode import decode
from contrique_jax.errors import BrokenImage


def photograph(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 8, 1), max(width // 8, 1), channels), dtype=np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(c).resize((width, height))) for c in np.moveaxis(coarse, 2, 0)], -1)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_give_back_the_pixels(kind):
    image = photograph(37, 53)
    np.testing.assert_array_equal(decode(encode(image, kind), name="x"), image)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "GIF"])
def test_other_formats_equal_plain_pillow(kind):
    data = encode(photograph(64, 96), kind)
    plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    result = decode(data, name="x")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, plain)


def assert_near_opencv(data: bytes) -> None:
    """Equal but for what two builds of libjpeg may round apart."""
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    ours = decode(data, name="x")
    assert ours.shape == theirs.shape
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 3 and apart.mean() < 0.1


def test_real_photographs_equal_opencv(shared):
    paths = sorted((shared / "data" / "ugc").rglob("*.jpg"))[::80]
    assert len(paths) >= 10
    for path in paths:
        assert_near_opencv(path.read_bytes())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_layout_of_jpeg_equals_opencv(subsampling, progressive):
    assert_near_opencv(encode(photograph(65, 97), "JPEG", subsampling=subsampling, progressive=progressive))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "PPM"])
def test_grey_has_three_equal_channels(kind):
    result = decode(encode(photograph(20, 30, 1)[..., 0], kind), name="x")
    assert result.shape == (20, 30, 3)
    assert (result == result[..., :1]).all()


def test_bilevel():
    result = decode(encode(Image.fromarray(np.eye(9, dtype=bool)), "PNG"), name="x")
    np.testing.assert_array_equal(result[..., 1], np.eye(9) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    values = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    result = decode(encode(Image.fromarray(values), kind), name="x")[..., 0]
    np.testing.assert_array_equal(result, np.floor(values / 257 + 0.5))
    assert result.min() == 0 and result.max() == 255


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiff_of_a_usual_range(top):
    values = np.linspace(0, top, 40 * 50).reshape(40, 50).astype(np.float32)
    result = decode(encode(Image.fromarray(values), "TIFF"), name="x")[..., 0]
    np.testing.assert_allclose(result, values / top * 255, atol=0.51)


def test_float_tiff_of_an_odd_range_is_stretched_and_nan_is_lowest():
    values = np.linspace(-3, 5, 40 * 50).reshape(40, 50).astype(np.float32)
    values[3, 4] = np.nan
    values[3, 5] = np.inf
    result = decode(encode(Image.fromarray(values), "TIFF"), name="x")[..., 0]
    assert result[0, 0] == 0 and result[-1, -1] == 255 and result[3, 4] == 0 and result[3, 5] == 0


def test_constant_and_all_nan_float_tiff():
    for value in (np.nan, -7.0):
        data = encode(Image.fromarray(np.full((4, 5), value, np.float32)), "TIFF")
        np.testing.assert_array_equal(decode(data, name="x"), 0)


def test_palette():
    image = Image.fromarray(photograph(30, 40)).quantize(17)
    np.testing.assert_array_equal(decode(encode(image, "PNG"), name="x"), np.asarray(image.convert("RGB")))


def test_palette_with_a_transparent_entry_is_over_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 2), 1)
    result = decode(encode(image, "PNG", transparency=0), name="x")
    assert result[0, 0].tolist() == [255, 255, 255]
    assert result[2, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_over_white(mode):
    channels = len(mode)
    pixels = photograph(24, 32, channels)
    result = decode(encode(Image.fromarray(pixels, mode), "PNG"), name="x").astype(float)
    alpha = pixels[..., -1:] / 255
    np.testing.assert_allclose(
        result, np.broadcast_to(pixels[..., :-1] * alpha + 255 * (1 - alpha), (24, 32, 3)), atol=1
    )


def test_rgb_with_a_transparent_colour():
    image = photograph(8, 8)
    image[2, 3] = (1, 2, 3)
    result = decode(encode(image, "PNG", transparency=(1, 2, 3)), name="x")
    assert result[2, 3].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(result[0], image[0])


def test_cmyk_jpeg_equals_opencv_with_and_without_adobes_marker():
    # flat inks: cyan, magenta, yellow, black, paper
    inks = np.zeros((16, 80, 4), np.uint8)
    for i in range(4):
        inks[:, 16 * i : 16 * i + 16, i] = 255
    data = encode(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    colours = decode(data, name="x")[8, 8::16].astype(int)
    expected = np.array([[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]])
    assert np.abs(colours - expected).max() <= 3
    marker = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[marker + 2 : marker + 4])[0]
    for version in (data, data[:marker] + data[marker + 2 + length :]):
        theirs = cv2.imdecode(np.frombuffer(version, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(decode(version, name="x").astype(int) - theirs).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone_as_opencv_or_pillow_does(kind, orientation):
    image = photograph(48, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(image, kind, exif=exif)
    result = decode(data, name="x")
    assert result.shape == ((48, 80, 3) if orientation < 5 else (80, 48, 3))
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    if kind in ("JPEG", "PNG"):
        assert np.abs(result.astype(int) - theirs).mean() < 1


def test_damaged_exif_and_an_unknown_orientation_leave_the_pixels():
    image = photograph(16, 24)
    exif = Image.Exif()
    exif[0x0112] = 77
    for block in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", exif):
        assert decode(encode(image, "JPEG", exif=block), name="x").shape == (16, 24, 3)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    result = decode(data, name="x")
    assert result.shape == (10, 20, 3)
    assert result[5, 5, 0] >= 250 and result[5, 5, 1:].max() <= 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_cut_off_is_broken(kind, share):
    data = encode(photograph(200, 300), kind)
    with pytest.raises(BrokenImage, match=r"^holiday/x\.img: \w") as caught:
        decode(data[: int(len(data) * share)], name="holiday/x.img")
    assert caught.value.name == "holiday/x.img"


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a text that someone named .jpg\n" * 9, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_broken(data):
    with pytest.raises(BrokenImage, match=r"x\.jpg"):
        decode(data, name="x.jpg")


def test_plain_reasons():
    with pytest.raises(BrokenImage, match="empty"):
        decode(b"", name="x")
    with pytest.raises(BrokenImage, match="not an image"):
        decode(b"hello", name="x")
    with pytest.raises(BrokenImage, match="10 x 20 pixels is more than the limit of 199"):
        decode(encode(photograph(20, 10), "PNG"), name="x", max_pixels=199)


def test_a_format_that_runs_other_programs_is_not_read():
    with pytest.raises(BrokenImage, match="not an image"):
        decode(encode(Image.new("RGB", (8, 8)), "EPS"), name="x.jpg")


def test_flipped_bytes_are_broken_or_read_but_never_a_traceback():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "PPM"):
        data = np.frombuffer(encode(photograph(40, 40), kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            places = rng.integers(0, min(len(data), 400), 4)
            damaged[places] = rng.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(BrokenImage):
                    assert decode(damaged.tobytes(), name="x", max_pixels=10_000_000).shape[2] == 3


def test_one_pixel():
    for kind in ("JPEG", "PNG"):
        result = decode(encode(np.full((1, 1, 3), 128, np.uint8), kind), name="x")
        assert result.shape == (1, 1, 3)
        assert np.abs(result.astype(int) - 128).max() <= 1


def test_a_hundred_megapixels_are_read_without_a_warning():
    data = encode(Image.new("L", (12_000, 9_000), 77), "PNG", compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = decode(data, name="x")
        assert result.shape == (9_000, 12_000, 3) and (result[::100, ::100] == 77).all()
        assert (to_canvas(result) == 77).all()


def test_the_limit_on_pixels_comes_before_decoding():
    header = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        header
        + struct.pack(">I", zlib.crc32(header[12:]))
        + b"\x00\x00\x00\x00IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BrokenImage, match="60000 x 60000"):
            decode(data, name="x")


def png_16(values: np.ndarray, bits: int | None = None) -> bytes:
    """Grey of sixteen bits, with the chunk sBIT if `bits` are given."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 0, 0, 0, 0))
    bits_chunk = chunk(b"sBIT", bytes([bits])) if bits else b""
    return b"\x89PNG\r\n\x1a\n" + header + bits_chunk + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


TWELVE = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (png_16(TWELVE), TWELVE / 4095),  # by its maximum
        (encode(Image.fromarray(TWELVE), "TIFF"), TWELVE / 4095),
        (png_16(TWELVE // 4, 10), (TWELVE // 4) / 1023),  # as sBIT says, unscaled
        (png_16(TWELVE // 8, 12), (TWELVE // 8) / 4095),  # a dark one
        (png_16((TWELVE << 4) | (TWELVE >> 8), 12), TWELVE / 4095),  # scaled to sixteen, as the standard asks
        (png_16(TWELVE, 16), TWELVE / 65535),  # a dark one of sixteen bits
        (png_16(TWELVE // 16), (TWELVE // 16) / 255),
    ],
)
def test_fewer_bits_in_a_file_of_sixteen(data, whole):
    np.testing.assert_allclose(decode(data, name="x")[..., 1] / 255, whole, atol=0.51 / 255)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
def test_float_tiff_of_three_channels(kind, options):
    image, stream = photograph(20, 30), io.BytesIO()
    planes = np.moveaxis(image, 2, 0) if options.get("planarconfig") else image
    tifffile.imwrite(stream, (planes / 255).astype(kind), photometric="rgb", **options)
    np.testing.assert_array_equal(decode(stream.getvalue(), name="x.tif"), image)
    tags = [(274, "H", 1, 6, False), (34675, "B", len(wide_gamut()), wide_gamut(), False)]
    turned = io.BytesIO()
    tifffile.imwrite(turned, (planes / 255).astype(kind), photometric="rgb", extratags=tags, **options)
    found = decode(turned.getvalue(), name="x.tif")
    assert found.shape == (30, 20, 3) and np.abs(found.astype(int) - np.rot90(image, -1)).max() > 5
    with pytest.raises(BrokenImage, match="limit of 599"):
        decode(stream.getvalue(), name="x.tif", max_pixels=599)
    with pytest.raises(BrokenImage, match="damaged"):
        decode(stream.getvalue()[:200], name="x.tif")


def wide_gamut() -> bytes:
    """A profile of Display P3's primaries and a gamma of 2.2."""

    def numbers(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white, gamma = (0.9642, 1, 0.8249), b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + b"\0" * 79,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + numbers(*white)
    primaries = {b"r": (0.5151, 0.2412, -0.0011), b"g": (0.2920, 0.6922, 0.0419), b"b": (0.1571, 0.0666, 0.7841)}
    for name, primary in primaries.items():
        tags[name + b"XYZ"], tags[name + b"TRC"] = b"XYZ \0\0\0\0" + numbers(*primary), gamma
    table, body, begin = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", begin + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", begin + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + numbers(*white)
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_a_wide_gamut_photograph_is_its_srgb_twin(kind):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif") and kind == "AVIF":
        pytest.skip("this Pillow lacks AVIF")
    twin = np.asarray(Image.fromarray(np.clip(photograph(6, 9), 60, 200)).resize((180, 120)))
    profile = wide_gamut()
    srgb, wide = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile))
    photo = ImageCms.profileToProfile(Image.fromarray(twin), srgb, wide)
    assert np.abs(np.asarray(photo).astype(int) - twin).max() > 10
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    options["HEIF"] = {"quality": 100, "chroma": 444}
    data = encode(photo, kind, icc_profile=profile, **options.get(kind, {}))
    assert np.abs(decode(data, name="x").astype(int) - twin).mean() < 1.5
    if kind == "PNG":
        photo.putalpha(255)
        assert np.abs(decode(encode(photo, kind, icc_profile=profile), name="x").astype(int) - twin).mean() < 1.5


def test_profiles_that_say_nothing_new_are_left_alone():
    image = photograph(16, 16)
    for profile in (ImageCms.createProfile("sRGB"), ImageCms.createProfile("XYZ")):
        data = encode(image, "PNG", icc_profile=ImageCms.ImageCmsProfile(profile).tobytes())
        np.testing.assert_array_equal(decode(data, name="x"), image)
    for damaged in (b"no profile", wide_gamut()[:300]):
        np.testing.assert_array_equal(decode(encode(image, "PNG", icc_profile=damaged), name="x"), image)


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.DNG", encode(Image.new("RGB", (8, 8)), "TIFF"), "a camera's raw file; convert it"),
        ("a.tif", encode(Image.new("RGB", (8, 8)), "TIFF", tiffinfo={0xC612: b"\1\4\0\0"}), "a camera's raw file"),
        ("a.jpg", b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        ("a.jpg", b"\xff\x0a" + b"\0" * 20, "but JPEG XL; convert it"),
        ("a.avif", b"\0\0\0\x1cftypavif" + b"\0" * 20, "AVIF"),
    ],
)
def test_photographs_in_other_formats_are_named_with_advice(name, data, says):
    with pytest.raises(BrokenImage, match=says):
        decode(data, name=name)


def test_heic_without_its_package_names_it(monkeypatch):
    monkeypatch.setattr("contrique_jax.data.decode._register", lambda kind: None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr("contrique_jax.data.unread_formats.find_spec", lambda name: None)
    with pytest.raises(BrokenImage, match=r'pip install "contrique-jax\[heif\]"'):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", name="IMG_0002.HEIC")


def test_heic_is_read_upright():
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif, image = Image.Exif(), Image.fromarray(photograph(64, 96))
    exif[0x0112] = 6
    assert decode(encode(image, "HEIF", exif=exif.tobytes()), name="x").shape == (96, 64, 3)
    with pytest.raises(BrokenImage, match="damaged"):
        decode(encode(image, "HEIF")[:700], name="x")
