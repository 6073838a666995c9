"""The command `gallery`."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from contrique_jax import distort, gallery
from contrique_jax.errors import run_verb


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """64 x 96, with the whole range of values: there is nothing to stretch."""
    image = np.ascontiguousarray(skimage.data.astronaut()[:256:4, :384:4])
    image[0, 0], image[0, 1] = 0, 255
    return image


def test_cells_hold_the_images_and_how_far_they_are(image):
    first, second = gallery.cells(image, (7, 18), seed=4)
    assert [(cell.type, cell.level) for cell in first + second] == [
        (t, level) for t in (7, 18) for level in range(1, 6)
    ]
    for cell in first:
        np.testing.assert_array_equal(cell.image, distort.apply(image, 7, cell.level, seed=4))
        assert cell.psnr == pytest.approx(peak_signal_noise_ratio(image, cell.image), abs=1e-3)
        # Wang's window, borders left out
        options = dict(channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        assert cell.ssim == pytest.approx(structural_similarity(image, cell.image, **options), abs=0.02)
    assert second[2].psnr == np.inf and second[2].caption == "L3: 0\nunchanged"
    assert first[0].caption.startswith("L1: 0.4\n") and "dB" in first[0].caption


def test_a_sheet_shows_each_image_in_its_place(image):
    rows = list(gallery.cells(image, (7,)))
    page = np.asarray(gallery.sheet(image, rows, title="photo", scale=1))
    column, row = max(96, gallery.NARROWEST) + gallery.GAP, gallery.TITLE + 64 + gallery.CAPTION + gallery.GAP
    assert page.shape == (gallery.GAP + 2 * row, gallery.GAP + 5 * column, 3)
    top = gallery.GAP + gallery.TITLE
    np.testing.assert_array_equal(page[top : top + 64, gallery.GAP : gallery.GAP + 96], image)
    for place, cell in enumerate(rows[0]):
        left = gallery.GAP + place * column
        np.testing.assert_array_equal(page[top + row : top + row + 64, left : left + 96], cell.image)
        caption = page[top + row + 64 : top + row + 64 + gallery.CAPTION, left : left + column - gallery.GAP]
        assert (caption < 128).any()  # ink
        assert (page[top + row + 64 :, left + column - gallery.GAP : left + column] == 255).all()  # and it fits


def test_large_images_are_reduced_and_keep_their_shape():
    for height, width, want in (
        (384, 512, (384, 512)),
        (100, 80, (100, 80)),
        (1000, 2000, (256, 512)),
        (900, 600, (512, 341)),
    ):
        assert gallery.reduced(np.zeros((height, width, 3), np.uint8)).shape[:2] == want


def test_the_command(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "photo.png")
    for name in ("sheet.png", "sheet.jpg"):
        assert (
            run_verb(gallery.main, [str(tmp_path / "photo.png"), "--out", str(tmp_path / name), "--type", "7,18"]) == 0
        )
    sheets = [np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("sheet.png", "sheet.jpg")]
    assert sheets[0].shape == sheets[1].shape and np.abs(sheets[0] - sheets[1]).mean() < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "sheet.jpg", "sheet.png"]


def test_mistakes_are_one_sentence_and_leave_nothing(image, tmp_path, capsys):
    photo = str(tmp_path / "photo.png")
    Image.fromarray(image).save(photo)
    Image.fromarray(np.zeros((90, 3000, 3), np.uint8)).save(tmp_path / "long.png")
    (tmp_path / "text.png").write_text("nonsense")
    out = str(tmp_path / "sheet.png")
    for arguments, says in [
        ([str(tmp_path / "absent.png"), "--out", out], "absent.png: the image cannot be read"),
        ([str(tmp_path / "text.png"), "--out", out], "text.png: not an image"),
        ([str(tmp_path / "long.png"), "--out", out], "3000 x 90 pixels; a gallery needs"),
        ([photo, "--out", str(tmp_path / "sheet.gif")], "--out"),
        ([photo, "--out", out, "--type", "26"], "--type 26"),
        ([photo, "--out", out, "--type", "1,,2"], "--type ''"),
        ([photo, "--out", out, "--seed", "-1", "--type", "7"], "seed -1"),
        ([photo, "--out", out, "--scale", "9"], "--scale 9"),
    ]:
        assert run_verb(gallery.main, arguments) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert not (tmp_path / "sheet.png").exists() and not list(tmp_path.glob(".*"))
