"""Type 22 against scikit-image's and SciPy's searches for thresholds."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import scipy.optimize
import skimage.filters

from contrique_jax.distort import bank, thresholds

COUNTS = bank.BANK[21].levels
multi_otsu = jax.jit(thresholds.multi_otsu)


def histogram(image: np.ndarray) -> np.ndarray:
    return np.bincount(image.ravel(), minlength=256).astype(np.int32)


def between_classes(counts: np.ndarray, found: np.ndarray) -> float:
    """Between-class variance of thresholds (the last bins of their classes), in float64."""
    bins, mean, total = np.arange(256), np.average(np.arange(256), weights=counts), 0.0
    for low, high in itertools.pairwise([-1, *found, 255]):
        weights, members = counts[low + 1 : high + 1].astype(float), bins[low + 1 : high + 1]
        if weights.sum() > 0:
            total += weights.sum() * (np.average(members, weights=weights) - mean) ** 2
    return total / counts.sum()


@pytest.mark.parametrize("name", ["astronaut", "coffee", "camera"])
def test_few_thresholds_are_scikit_images(photo, name):
    counts = histogram(photo(name, 96, 128))
    for count in (1, 2, 3):
        want = skimage.filters.threshold_multiotsu(hist=(counts, np.arange(256)), classes=count + 1)
        got = np.asarray(multi_otsu(counts, count))[:count]
        assert np.abs(got - want).max() <= 1


@pytest.mark.parametrize("name", ["astronaut", "rocket"])
def test_many_thresholds_are_no_worse_than_a_search(photo, name):
    """MATLAB's search: Nelder-Mead from evenly spaced thresholds."""
    counts = histogram(photo(name, 96, 128))
    for count in map(int, COUNTS):
        start = np.linspace(0, 255, count + 2)[1:-1]
        loss = lambda t: -between_classes(counts, np.clip(np.sort(np.rint(t)), 0, 254).astype(int))  # noqa: E731
        searched = -scipy.optimize.minimize(loss, start, method="Nelder-Mead", options={"maxfev": 300}).fun
        got = np.asarray(multi_otsu(counts, count))
        assert (np.diff(got[:count]) > 0).all() and (got[count:] == 255).all()
        assert between_classes(counts, got[:count]) >= searched * (1 - 1e-6)


def test_exact_against_all_thresholds():
    """Three thresholds over a histogram of few bins, tried one by one."""
    draw = np.random.default_rng(5)
    counts = np.zeros(256, np.int32)
    counts[draw.choice(256, 18, replace=False)] = draw.integers(1, 1000, 18)
    best = max(between_classes(counts, found) for found in itertools.combinations(np.flatnonzero(counts), 3))
    got = np.asarray(multi_otsu(counts, 3))[:3]
    assert between_classes(counts, got) == pytest.approx(best, rel=1e-6)
    assert counts[got].min() > 0  # the lowest of equal thresholds is the last bin in use


@pytest.mark.parametrize("level, count", list(enumerate(map(int, COUNTS), 1)))
def test_each_sample_becomes_the_threshold_above_it(run, image, level, count):
    low, span = image.min(), np.ptp(image)
    bins = np.floor(255 * (image - low) / span + 0.5).astype(int)
    found = np.asarray(multi_otsu(histogram(bins), count))[:count]
    limits = found / 255 * span + low
    values = np.array([0, *limits[1:], 1])
    got = run(22, level, image)
    np.testing.assert_allclose(got, values[np.searchsorted(limits, image - 2e-6)], atol=1e-6)
    assert len(np.unique(got)) == count + 1


def test_few_values_are_kept(run):
    """An image of no more values than classes that spans 0..1 is its own quantisation; a flat one stays as it is."""
    draw = np.random.default_rng(2)
    for values in ([0, 255], [0, 77, 255], [0, 9, 10, 130, 200, 254, 255]):
        image = np.array(values)[draw.integers(0, len(values), (49, 61, 3))]
        for level in (1, 5):
            np.testing.assert_allclose(255 * run(22, level, image / 255), image, atol=1e-3)
    np.testing.assert_array_equal(run(22, 5, np.full((49, 61, 3), 0.25)), np.float32(0.25))


def test_a_short_range_is_used_whole(run, photo):
    """Thresholds move with the range of the samples."""
    image = photo("coffee", 75, 93) / 255.0
    image = (image - image.min()) / np.ptp(image)
    full, half = run(22, 5, image), run(22, 5, 0.25 + image / 2)
    inner = (full > 0) & (full < 1)
    assert (inner == ((half > 0) & (half < 1))).mean() > 0.99
    both = inner & (half > 0) & (half < 1)
    assert np.mean(np.abs(half[both] - (0.25 + full[both] / 2)) < 0.01) > 0.99


def test_histograms_of_large_images_fit():
    """2^24 samples in one bin at each end."""
    counts = np.zeros(256, np.int32)
    counts[[0, 255]] = 2**23
    assert np.asarray(multi_otsu(counts, 1))[0] == 0
    counts[[0, 255]] = 2**24 - 2**4, 2**4
    assert np.asarray(multi_otsu(counts, 1))[0] == 0
