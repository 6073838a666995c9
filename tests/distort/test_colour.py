"""Types 04, 07 and 08 and the colour spaces against scikit-image, type 05 against NumPy."""

from __future__ import annotations

import dm_pix
import jax
import numpy as np
import pytest
import scipy.ndimage
import skimage.color

from contrique_jax.distort import colour, colourspaces

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    """The documented tolerances for what goes through Lab."""
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


def stretched(values: np.ndarray) -> np.ndarray:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else values


def reference_shift(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Type 05 in float64, step by step as specified."""
    edges = np.hypot(*np.gradient(image @ [0.298936, 0.587043, 0.114021]))
    edges = stretched(scipy.ndimage.gaussian_filter(edges, 4, mode="nearest", radius=8))
    edges = stretched(np.clip(edges, 0.1, 1))
    rank = int(np.floor(0.99 * edges.size + 0.5))
    high = np.sort(edges.ravel())[rank - 1]
    low = 1 - np.sort(1 - edges.ravel())[rank - 1]
    edges = stretched(np.clip(edges, low, high))
    moved = np.pad(image[..., 1], ((rows, 0), (columns, 0)), mode="edge")[: image.shape[0], : image.shape[1]]
    out = image.copy()
    out[..., 1] = moved * edges + image[..., 1] * (1 - edges)
    return out


@pytest.mark.parametrize("level, amount", list(enumerate((1, 3, 6, 8, 12), 1)))
def test_shift(run, image, level, amount):
    rows, columns = np.asarray(colour.shift_vector(jax.random.key(level), np.float32(amount)))
    got = run(5, level, image, level)
    np.testing.assert_allclose(got, reference_shift(image, rows, columns), atol=1e-4)
    np.testing.assert_array_equal(got[..., ::2], image.astype(np.float32)[..., ::2])


def test_shift_of_a_grey_photograph_and_of_the_smallest(run, photo):
    for image in (photo("camera", 75, 93)[..., None].repeat(3, -1) / 255.0, photo("rocket", 48, 48) / 255.0):
        rows, columns = np.asarray(colour.shift_vector(jax.random.key(7), np.float32(12)))
        np.testing.assert_allclose(run(5, 5, image, 7), reference_shift(image, rows, columns), atol=1e-4)


def test_shifts_point_down_and_right_at_the_given_length():
    keys = jax.random.split(jax.random.key(0), 1000)
    for amount in (1.0, 12.0):
        vectors = np.asarray(jax.vmap(colour.shift_vector, (0, None))(keys, amount))
        assert vectors.min() >= 0 and vectors.max() == amount
        assert np.abs(np.hypot(*vectors.T) - amount).max() < 0.75
    ones = np.asarray(jax.vmap(colour.shift_vector, (0, None))(keys, 1.0))
    assert abs((ones.sum(1) == 1).mean() - 0.58) < 0.05  # the documented share of shifts along one axis


def test_images_without_edges_are_not_blown_up(run):
    """A flat image and an even ramp: the same small share of the moved green everywhere, not stretched rounding errors."""
    edge_weight = jax.jit(colour.edge_weight)
    flat = np.full((100, 100, 3), 0.37, np.float32)
    np.testing.assert_array_equal(edge_weight(flat), np.float32(0.1))
    ramp = np.linspace(0.1, 0.9, 100)[None, :, None].repeat(100, 0).repeat(3, 2).astype(np.float32)
    np.testing.assert_allclose(edge_weight(ramp), 0.1, atol=1e-6)
    spot = np.zeros((100, 100, 3), np.float32)
    spot[50, 50] = 1  # its blur covers 4 %: all below is cut off
    weight = np.asarray(edge_weight(spot))
    assert weight[50, 48] > 0.5 and weight[:35].max() == 0 and np.isfinite(weight).all()


@pytest.mark.parametrize("values", ["random", "ties", "denormal"])
def test_order_statistic_is_sorts(values):
    x = np.random.default_rng(3).gamma(0.3, size=5001).astype(np.float32)
    x = {"random": x, "ties": np.round(x, 1), "denormal": x * np.float32(1e-38)}[values]
    ordered = np.sort(x)
    for rank in (0, 1, 50, 2500, 4950, 5000):
        assert np.asarray(colour.order_statistic(x, rank)).tobytes() == ordered[rank].tobytes()
