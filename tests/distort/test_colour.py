"""Types 04, 07 and 08 and the colour spaces against scikit-image."""

from __future__ import annotations

import dm_pix
import numpy as np
import pytest
import scipy.ndimage
import skimage.color

from contrique_jax.distort import colourspaces

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """The specification's tolerances for what goes through Lab."""
    error = np.abs(got - want)
    assert error.max() < 1e-3
    assert error.mean() < 1e-5


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    """A grid of the RGB cube, its corners and greys included."""
    return np.stack(np.meshgrid(*[np.linspace(0, 1, 18)] * 3), -1).reshape(54, -1, 3)


def test_lab_both_ways(colours):
    lab = skimage.color.rgb2lab(colours)
    np.testing.assert_allclose(colourspaces.lab_from_rgb(colours.astype(np.float32)), lab, atol=2e-3)
    np.testing.assert_allclose(colourspaces.rgb_from_lab(lab.astype(np.float32)), colours, atol=1e-5)


def test_colours_that_no_light_has(colours):
    lab = skimage.color.rgb2lab(colours) * [1, 9, 9]
    ours = np.asarray(colourspaces.rgb_from_lab(lab.astype(np.float32)))
    np.testing.assert_allclose(ours, skimage.color.lab2rgb(lab), atol=1e-3)
    free = np.asarray(colourspaces.rgb_from_lab(lab.astype(np.float32), clamp_fz=False))
    out_of_range = (lab[..., 0] + 16) / 116 - lab[..., 2] / 200 < -1e-4
    assert np.abs(free - ours)[out_of_range].max() > 0.1
    np.testing.assert_array_equal(free[~out_of_range], ours[~out_of_range])


def test_ycbcr_both_ways(colours):
    ycbcr = colourspaces.ycbcr_from_rgb(colours.astype(np.float32))
    np.testing.assert_allclose(ycbcr, skimage.color.rgb2ycbcr(colours) / 255, atol=1e-6)
    np.testing.assert_allclose(colourspaces.rgb_from_ycbcr(ycbcr), colours, atol=1e-6)


def test_transfer_is_continuous_and_its_own_inverse():
    values = np.linspace(0, 1, 4097, dtype=np.float32)
    light = np.asarray(colourspaces.linear_from_srgb(values))
    assert (np.diff(light) > 0).all()
    np.testing.assert_allclose(colourspaces.srgb_from_linear(light), values, atol=1e-6)


@pytest.mark.parametrize("level, amount", list(enumerate((1, 3, 6, 8, 12), 1)))
def test_diffusion(run, image, level, amount):
    lab = skimage.color.rgb2lab(image)
    sigma = 1.5 * amount + 2
    radius = int(np.ceil(2 * sigma))
    blurred = scipy.ndimage.gaussian_filter(lab[..., 1:], (sigma, sigma, 0), mode="nearest", radius=(radius, radius, 0))
    lab[..., 1:] = amount * blurred
    assert_close(run(4, level, image), skimage.color.lab2rgb(lab))


@pytest.mark.parametrize("level, factor", list(enumerate((0.4, 0.2, 0.1, 0.0), 1)))
def test_hsv_saturation(run, image, level, factor):
    want = skimage.color.hsv2rgb(skimage.color.rgb2hsv(image) * [1, factor, 1])
    np.testing.assert_allclose(run(7, level, image), want, atol=1e-6)


def test_negative_hsv_saturation_goes_beyond_the_value(run, image):
    got = run(7, 5, image)
    want = dm_pix.hsv_to_rgb(dm_pix.rgb_to_hsv(image.astype(np.float32)) * np.array([1, -0.4, 1], np.float32))
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert got.max() > 1.1


@pytest.mark.parametrize("level, factor", list(enumerate((1, 2, 3, 6, 9), 1)))
def test_lab_saturation(run, image, level, factor):
    assert_close(run(8, level, image), skimage.color.lab2rgb(skimage.color.rgb2lab(image) * [1, factor, factor]))
