"""Deviations against planted noise, exact leverages, and the share of scores they hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.probe.posterior import Calibration, calibrate, coverage, fit_posterior
from contrique_jax.probe.ridge import fit_ridge, held_out_paths


def features(n, d, rank, seed=0):
    """Rows whose variances fall over `rank` directions, and a little of every other."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(9).normal(size=(rank, d))
    return (
        rng.normal(size=(n, rank)) * np.geomspace(10, 0.1, rank) @ axes / np.sqrt(d)
        + 0.02 * rng.normal(size=(n, d))
        + 1
    )


@pytest.mark.parametrize(("noise", "scale"), [(0.5, 0.0), (0.2, 1.0), (0.01, 3.0)])
def test_planted_noise_and_scale_come_back(noise, scale):
    rng = np.random.default_rng(0)
    leverages = rng.gamma(2, 0.3, 20000)
    residuals = rng.normal(size=20000) * np.sqrt(noise + scale * leverages)
    found = calibrate(residuals, leverages)
    assert found.noise == pytest.approx(noise, rel=0.1, abs=0.006) and found.scale == pytest.approx(
        scale, rel=0.06, abs=0.03
    )
    assert coverage(residuals, found.deviations(leverages)) == pytest.approx(0.9, abs=0.01)
    assert coverage(residuals, found.deviations(leverages), 0.5) == pytest.approx(0.5, abs=0.015)


def test_units_do_not_matter_and_few_residuals_keep_the_bayesian_reading():
    rng = np.random.default_rng(0)
    leverages = rng.gamma(2, 0.3, 500)
    residuals = rng.normal(size=500) * np.sqrt(1 + leverages)
    a, b = calibrate(residuals, leverages), calibrate(100 * residuals, leverages)
    np.testing.assert_allclose(b.deviations(leverages), 100 * a.deviations(leverages), rtol=1e-9)
    few = calibrate(residuals[:4], np.full(4, 0.3))
    assert few.scale == pytest.approx(few.noise, rel=0.3)


def test_odd_residuals():
    assert calibrate(np.zeros(5), np.ones(5)) == Calibration(0.0, 0.0)
    assert calibrate(np.array([2.0]), np.array([0.0])).noise == pytest.approx(4)
    with pytest.raises(UserError, match="at least one"):
        calibrate(np.array([]), np.array([]))


@pytest.mark.parametrize(("n", "d"), [(60, 150), (150, 40)])
def test_with_every_direction_it_is_exact(n, d):
    x, new = features(n, d, 20), features(30, d, 20, seed=1)
    posterior = fit_posterior(x, 0.5, Calibration(1.0, 1.0), rank=1000)
    exact = held_out_paths(np.concatenate([x, new]), np.zeros(n + 30), [np.arange(n)], np.array([0.5]))[1][0, 0, n:]
    np.testing.assert_allclose(posterior.leverages(new), exact, rtol=1e-3)


@pytest.mark.parametrize(("n", "d"), [(200, 500), (600, 300)])
def test_a_few_directions_see_what_is_unlike_and_are_right_on_average(n, d):
    x, new = features(n, d, 60), features(200, d, 60, seed=1)
    new[:40] *= 3  # unlike what was fitted
    few, every = (fit_posterior(x, 0.1, Calibration(1.0, 1.0), rank=rank) for rank in (32, 1000))
    assert few.directions.shape == (32, d) and few.directions.dtype == np.float32
    a, b = few.leverages(new), every.leverages(new)
    assert a[:40].min() > 2 * a[40:].max() and b[:40].min() > 2 * b[40:].max()
    assert a[40:].mean() == pytest.approx(b[40:].mean(), rel=0.15)


@pytest.mark.parametrize(("n", "d"), [(150, 300), (400, 100)])
def test_ninety_of_a_hundred_planted_scores_are_inside(n, d):
    """The Bayesian model itself: planted coefficients from the prior, so noise and scale should be one number too."""
    rng = np.random.default_rng(2)
    noise, alpha, inside, ratios = 0.3, 0.5, [], []
    for seed in range(8):
        x, valid, new = (features(count, d, 40, seed=3 * seed + k) for k, count in enumerate((n, 300, 300)))
        w = rng.normal(size=d) * noise / np.sqrt(alpha)
        y, y_valid, y_new = (part @ w + noise * rng.normal(size=len(part)) for part in (x, valid, new))
        coefficients, intercepts = fit_ridge(x, y, np.array([alpha]))
        bare = fit_posterior(x, alpha, Calibration(1.0, 1.0))
        calibration = calibrate(y_valid - valid @ coefficients[0] - intercepts[0], bare.leverages(valid))
        sure = dataclasses.replace(bare, noise=calibration.noise, scale=calibration.scale)
        exact = held_out_paths(np.concatenate([x, new]), np.zeros(n + 300), [np.arange(n)], np.array([alpha]))[1][
            0, 0, n:
        ]
        ratios.append(np.mean(sure.deviations(new)) / np.mean(noise * np.sqrt(1 + exact)))
        inside.append(coverage(y_new - new @ coefficients[0] - intercepts[0], sure.deviations(new)))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.015) and min(inside) > 0.84
    assert np.mean(ratios) == pytest.approx(1, rel=0.05)


def test_bad_input_is_one_sentence():
    x = features(10, 5, 2)
    with pytest.raises(UserError, match="2 groups"):
        fit_posterior(x[:1], 0.5, Calibration(1.0, 1.0))
    x[0, 0] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_posterior(x, 0.5, Calibration(1.0, 1.0))
