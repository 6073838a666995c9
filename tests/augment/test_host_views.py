"""Canvases and views of single photographs, against the steps written out."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contrique_jax.augment.host_views import authentic_view, to_canvas


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# canvas


def test_canvas_is_the_image_itself_where_it_fits():
    image = photograph(384, 512)
    assert to_canvas(image) is image


def test_canvas_turns_portrait_to_landscape_and_back():
    image = photograph(512, 384)
    np.testing.assert_array_equal(to_canvas(image), np.rot90(image))
    landscape = photograph(384, 512)
    np.testing.assert_array_equal(to_canvas(landscape, 512, 384), np.rot90(landscape))
    square = photograph(384, 384)
    np.testing.assert_array_equal(to_canvas(square, 384, 384), square)


@pytest.mark.parametrize(
    "height,width", [(321, 481), (300, 1200), (900, 901), (383, 512), (1, 1), (3, 2000), (1500, 2000)]
)
def test_canvas_covers_and_keeps_the_centre(height, width):
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 // height, columns * 255 // width, np.full_like(rows, 90)], -1).astype(np.uint8)
    result = to_canvas(image)
    assert result.shape == (384, 512, 3)
    assert np.abs(result[..., 2].astype(int) - 90).max() <= 1
    scale = min(height / 384, width / 512)
    expected = [255 * (0.5 + (r - 191.5) * scale / height) for r in (0, 191, 383)]
    if height > 50:
        np.testing.assert_allclose(result[[0, 191, 383], 256, 0], expected, atol=3)


def test_canvas_is_antialiased():
    image = np.tile(np.array([[[0] * 3, [255] * 3]], np.uint8), (1536, 1024, 1))
    assert np.ptp(to_canvas(image)[:, 4:-4].astype(int)) <= 6  # at the border a filter has no other side


# views


def whole_then_crop(image: np.ndarray, div: int, y: float, x: float, size: int) -> np.ndarray:
    """The original's steps: resize all of it, then crop; or torchvision's CenterCrop, written with Pillow's crop."""
    h, w = max(image.shape[0] // div, 1), max(image.shape[1] // div, 1)
    small = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
    if min(h, w) >= size:
        top, left = int(y * (h - size + 1)), int(x * (w - size + 1))
        return np.asarray(small.crop((left, top, left + size, top + size)))
    canvas = Image.new("RGB", (max(w, size), max(h, size)))
    canvas.paste(small, (max(size - w, 0) // 2, max(size - h, 0) // 2))
    top, left = round((canvas.height - size) / 2.0), round((canvas.width - size) / 2.0)
    return np.asarray(canvas.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("height", [512, 513, 515, 640, 701, 767])
@pytest.mark.parametrize("width", [512, 513, 514, 833, 1024, 1025])
def test_half_scale_crop_equals_the_crop_of_the_whole(height, width):
    image = photograph(height, width)
    for y, x in [(0.0, 0.0), (0.999999, 0.999999), (0.37, 0.61), (0.5, 0.0)]:
        np.testing.assert_array_equal(
            authentic_view(image, 2, y, x, 256), whole_then_crop(image, 2, y, x, 256), err_msg=f"{y}, {x}"
        )


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 3), (255, 256), (256, 257), (300, 1000), (1000, 99), (511, 512), (259, 260), (64, 261)]
)
@pytest.mark.parametrize("div", [1, 2])
def test_views_of_small_photographs_are_cropped_and_padded_as_torchvision_does(shape, div):
    image = photograph(*shape)
    for size in (256, 255):
        result = authentic_view(image, div, 0.3, 0.8, size)
        assert result.shape == (size, size, 3)
        np.testing.assert_array_equal(result, whole_then_crop(image, div, 0.3, 0.8, size))


def test_full_scale_view_is_a_crop_and_every_place_is_reached():
    image = photograph(20, 22)
    places = set()
    for y in np.linspace(0, 1, 60, endpoint=False):
        view = authentic_view(image, 1, y, np.nextafter(1.0, 0.0), 16)
        np.testing.assert_array_equal(view, image[int(y * 5) : int(y * 5) + 16, 6:])
        places.add(int(y * 5))
    assert places == {0, 1, 2, 3, 4}
