"""Images as Python code has them are read as files of the same content are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.decode import decode
from contrique_jax.data.given_images import as_list, as_rgb
from contrique_jax.errors import UserError

RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
GREY = RGB[..., 0]


def test_one_image_is_a_list_of_one():
    for one in ("a.png", Path("a.png"), Image.fromarray(RGB), RGB, GREY, GREY[..., None]):
        (found,) = as_list(one)
        assert found is one
    assert len(as_list(np.stack([RGB] * 5))) == len(as_list([RGB] * 5)) == len(as_list(("a.png",) * 5)) == 5
    assert [each.shape for each in as_list(np.zeros((7, 4, 6), np.uint8))] == [(4, 6)] * 7
    for wrong in (None, 3, b"bytes"):
        with pytest.raises(UserError, match="no list"):
            as_list(wrong)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"])
def test_a_pillow_image_is_what_its_file_is(mode):
    values = GREY.astype({"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8))
    image = Image.fromarray(values) if mode in ("I;16", "F") else Image.fromarray(RGB).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF")
    np.testing.assert_array_equal(as_rgb(image), decode(stream.getvalue(), name="x"))


def test_arrays():
    assert as_rgb(RGB) is RGB
    for grey in (GREY, GREY[..., None], GREY.astype(np.uint16)):
        np.testing.assert_array_equal(as_rgb(grey), np.stack([GREY] * 3, -1))
    page = np.dstack([RGB, np.full((4, 6), 255, np.uint8)])
    np.testing.assert_array_equal(as_rgb(page), RGB)
    page[0, 0, 3] = 0
    assert as_rgb(page)[0, 0].tolist() == [255, 255, 255]
    for wrong in (RGB / 255, RGB[..., :2], RGB[None], "a.png", None, RGB[:0]):
        with pytest.raises(UserError, match="image 7 is"):
            as_rgb(wrong, "image 7")
