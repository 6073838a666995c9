"""Hand-made statistics against SciPy's distributions, and the mean."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage, stats

from contrique_jax.evaluation.brisque import (
    NaturalStatistics,
    fit_asymmetric,
    natural_statistics,
    normalised_luminance,
)
from contrique_jax.evaluation.comparison import mean_alone, standardised
from contrique_jax.evaluation.splits import make_splits


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 4.0])
def test_the_shape_of_a_generalised_gaussian_is_found(shape):
    values = 3 * stats.gennorm.rvs(shape, size=200_000, random_state=0)
    found, variance, same = fit_asymmetric(values, symmetric=True)
    assert found == pytest.approx(shape, rel=0.02) and variance == same
    assert variance == pytest.approx(9 * stats.gennorm(shape).var(), rel=0.02)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0])
def test_the_two_sides_of_an_asymmetric_one_are_found(shape):
    rng = np.random.default_rng(0)
    sizes = np.abs(stats.gennorm.rvs(shape, size=400_000, random_state=rng))
    # the density is continuous at 0: a side has as much of the mass as it is wide
    left = rng.random(len(sizes)) < 1 / 3
    found, left_variance, right_variance = fit_asymmetric(np.where(left, -sizes, 2 * sizes))
    assert found == pytest.approx(shape, rel=0.03)
    assert np.sqrt(right_variance / left_variance) == pytest.approx(2, rel=0.02)


def test_the_luminance_is_normalised_under_a_window_of_seven():
    grey = np.random.default_rng(0).uniform(0, 255, (30, 40))
    offsets = np.arange(-3, 4)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    mean = ndimage.correlate(grey, window, mode="nearest")
    deviation = np.sqrt(ndimage.correlate(grey**2, window, mode="nearest") - mean**2)
    np.testing.assert_allclose(normalised_luminance(grey), (grey - mean) / (deviation + 1), atol=1e-6)


def test_photographs_are_natural_and_distorted_ones_less_so(shared):
    photograph = Image.open(sorted((shared / "data" / "pristine").rglob("*.jpg"))[0]).convert("RGB")
    noise = np.random.default_rng(0).normal(0, 40, (photograph.height, photograph.width, 3))
    noisy = np.clip(np.asarray(photograph) + noise, 0, 255).astype(np.uint8)
    plain = natural_statistics(np.asarray(photograph))
    noised, blurred = (
        natural_statistics(np.asarray(x)) for x in (noisy, photograph.filter(ImageFilter.GaussianBlur(3)))
    )
    assert plain.shape == (36,)
    assert noised[1] > plain[1] > blurred[1]  # variance of the coefficients at full size
    assert noised[0] > plain[0]  # noise makes them Gaussian
    for first in (2, 6):  # shape, mean, left and right of horizontal and vertical products: blurred neighbours agree
        assert blurred[first + 3] > 3 * blurred[first + 2] and blurred[first + 1] > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (64, 64)])
def test_flat_and_tiny_images_have_finite_statistics(size):
    assert np.isfinite(natural_statistics(np.full((*size, 3), 90, np.uint8))).all()
    assert np.isfinite(natural_statistics(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8))).all()


def test_files_come_in_order_with_the_broken_ones_named(tmp_path):
    images = [np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8) for i in range(12)]
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    (tmp_path / "05.png").write_bytes(b"nonsense")
    items = list(NaturalStatistics(max_megapixels=16).stream(sorted(tmp_path.iterdir())))
    assert [item.path.name for item in items if item.broken] == ["05.png"]
    for i in (0, 11):
        np.testing.assert_allclose(items[i].features, natural_statistics(images[i]), rtol=1e-6)


def test_standardised_features_have_unit_variance_and_constants_are_nothing():
    values = np.random.default_rng(0).normal(3, 100, (50, 3)) * [1, 1e-6, 0]
    found = standardised(values)
    np.testing.assert_allclose(found.std(0), [1, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    np.testing.assert_array_equal(standardised(values[:5], values), found[:5])


@pytest.mark.parametrize("choose", ["validation", "leave-one-out"])
def test_the_mean_has_the_error_of_the_mean(choose):
    scores = np.random.default_rng(0).normal(5, 2, 200)
    splits = make_splits([str(i) for i in range(200)], 4, 0)
    found = mean_alone(scores, splits, ["a", "b"] * 100, choose)
    for result, split in zip(found.results, splits, strict=True):
        fitted = split.train if choose == "validation" else np.concatenate([split.train, split.validation])
        assert result.pooled.rmse == pytest.approx(np.sqrt(np.mean((scores[split.test] - scores[fitted].mean()) ** 2)))
        assert np.isnan(result.pooled.srocc) and list(result.subsets) == ["a", "b"] and result.fitted == len(fitted)
    assert found.deviation == pytest.approx(2, rel=0.2) and found.coverages.mean() == pytest.approx(0.9, abs=0.06)
