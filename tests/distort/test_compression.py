"""Type 10 against Pillow's libjpeg."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio


def pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "name, height, width, least",
    # one coefficient that rounds the other way costs a small image more
    [("astronaut", 384, 512, 45), ("coffee", 384, 512, 45), ("coffee", 75, 93, 40), ("astronaut", 200, 104, 40)],
)
def test_is_pillows(run, photo, name, height, width, least):
    """Whole blocks of 16, an odd size, and one that ends in half a block of chroma."""
    source = photo(name, height, width)
    for level, quality in enumerate((43, 36, 24, 7, 4), 1):
        want = pillow(source, quality)
        got = np.floor(255 * run(10, level, source / 255.0) + 0.5).astype(np.uint8)
        assert peak_signal_noise_ratio(want, got) >= least
        assert (np.abs(want.astype(int) - got) > 1).mean() <= 0.12


def test_flat_grey_is_kept(run):
    grey = np.full((48, 64, 3), 128 / 255)
    np.testing.assert_allclose(run(10, 5, grey), grey, atol=1e-6)
