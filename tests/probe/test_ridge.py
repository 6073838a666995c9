"""Ridge, what is left out and the leverages, against scikit-learn and against fitting again."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.probe.ridge import fit_ridge, float64, held_out_paths, ridge_path

Ridge = pytest.importorskip("sklearn.linear_model").Ridge
ALPHAS = np.geomspace(1e-3, 1e3, 7)


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.01, 3, d) + rng.normal(size=d) * 5
    return x, x @ rng.normal(size=d) / np.sqrt(d) + 50 + rng.normal(size=n)


def unit_features(n, d):
    """Like the network's: positive, of unit length, of variance that falls fast."""
    rng = np.random.default_rng(0)
    rank = min(n, d)
    x = rng.normal(size=(n, rank)) * np.geomspace(1, 1e-3, rank) @ rng.normal(size=(rank, d))
    x = np.abs(x + 1)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(40, 130), (130, 40), (50, 50), (1, 3)])
def test_ridge_is_scikit_learns(n, d):
    x, y = problem(n, d)
    coefficients, intercepts = fit_ridge(x, y, ALPHAS)
    assert coefficients.dtype == np.float64
    for i, alpha in enumerate(ALPHAS):
        reference = Ridge(alpha=alpha, solver="svd").fit(x, y)
        np.testing.assert_allclose(coefficients[i], reference.coef_, rtol=1e-6, atol=1e-8)
        assert intercepts[i] == pytest.approx(reference.intercept_, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 130), (130, 40)])
def test_weights_are_scikit_learns_and_zero_leaves_a_row_out(n, d):
    x, y = problem(n, d)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 2.0], n)
    with float64():
        coefficients, intercepts = jax.jit(ridge_path)(x, y, ALPHAS, weights)
    for i, alpha in enumerate(ALPHAS):
        reference = Ridge(alpha=alpha, solver="svd").fit(x, y, weights)
        np.testing.assert_allclose(coefficients[i], reference.coef_, rtol=1e-6, atol=1e-8)
        assert intercepts[i] == pytest.approx(reference.intercept_, rel=1e-6)
    for ours, pure in zip(fit_ridge(x, y, ALPHAS, weights), (coefficients, intercepts), strict=True):
        np.testing.assert_allclose(ours, pure, rtol=1e-9, atol=1e-12)
    kept = (weights > 0).astype(float)
    with float64():
        masked = jax.jit(ridge_path)(x, y, ALPHAS, kept)
    for ours, without in zip(masked, fit_ridge(x[kept > 0], y[kept > 0], ALPHAS), strict=True):
        np.testing.assert_allclose(ours, without, rtol=1e-6, atol=1e-8)


def test_it_maps_over_a_batch_of_problems():
    problems = [problem(30, 20, seed) for seed in range(3)]
    x, y = np.stack([p[0] for p in problems]), np.stack([p[1] for p in problems])
    with float64():
        coefficients, intercepts = jax.vmap(ridge_path, (0, 0, None))(x, y, ALPHAS)
    for i, (xi, yi) in enumerate(problems):
        alone, alone_intercepts = fit_ridge(xi, yi, ALPHAS)
        np.testing.assert_allclose(coefficients[i], alone, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(intercepts[i], alone_intercepts, rtol=1e-9)


@pytest.mark.parametrize(("n", "d"), [(100, 500), (500, 100), (150, 150)])
@pytest.mark.parametrize("unit", [True, False])
def test_float32_is_as_near_as_it_says(n, d, unit):
    x = unit_features(n, d) if unit else np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    rng = np.random.default_rng(1)
    y = x @ rng.normal(size=d)
    y = (y / y.std() + 0.5 * rng.normal(size=n)).astype(np.float32)
    alphas = np.geomspace(1e-3, 1e3, 25)
    coefficients, intercepts = jax.jit(ridge_path)(x, y, alphas.astype(np.float32))
    assert coefficients.dtype == np.float32
    exact, exact_intercepts = fit_ridge(x, y, alphas)
    wide = x.astype(np.float64)
    found = wide @ np.asarray(coefficients, np.float64).T + np.asarray(intercepts)
    error = np.abs(found - wide @ exact.T - exact_intercepts).max(axis=0) / y.std()
    largest = np.linalg.norm(wide - wide.mean(axis=0), 2) ** 2
    assert (error < 4e-7 * (1 + largest / alphas))[largest / alphas < 1e6].all()


@pytest.mark.parametrize(("n", "d", "members"), [(30, 70, 7), (70, 30, 1), (40, 40, 7)])
def test_left_out_is_fitting_again(n, d, members):
    x, y = problem(n, d)
    group = np.random.default_rng(3).permutation(np.arange(n) // members)
    trains = [np.arange(n - 6), np.random.default_rng(1).permutation(n)[: n - 9]]  # sides of different lengths
    alphas = ALPHAS[::3]
    predictions, leverages = held_out_paths(x, y, trains, alphas, [str(name) for name in group])
    for fit, rows in enumerate(trains):
        for i in range(n):
            kept = rows[group[rows] != group[i]] if i in rows else rows
            mean, centred = x[kept].mean(axis=0), x[kept] - x[kept].mean(axis=0)
            for k, alpha in enumerate(alphas):
                again = Ridge(alpha=alpha, solver="svd").fit(x[kept], y[kept]).predict(x[i : i + 1])[0]
                assert predictions[fit, k, i] == pytest.approx(again, abs=1e-6 * y.std())
                inverse = np.linalg.solve(centred.T @ centred + alpha * np.eye(d), x[i] - mean)
                assert leverages[fit, k, i] == pytest.approx(1 / len(kept) + (x[i] - mean) @ inverse, rel=1e-6)


def test_left_out_without_groups_is_each_row_alone():
    x, y = problem(20, 30)
    rows = [np.arange(20)]
    for a, b in zip(
        held_out_paths(x, y, rows, ALPHAS),
        held_out_paths(x, y, rows, ALPHAS, list("abcdefghijklmnopqrst")),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_few_rows_of_many_are_fitted_without_all_inner_products():
    x, y = problem(60, 90)
    few = [np.arange(5), np.arange(20, 40)]
    together = held_out_paths(x, y, few, ALPHAS)[0]
    for i, rows in enumerate(few):
        for k, alpha in enumerate(ALPHAS):
            expected = Ridge(alpha=alpha, solver="svd").fit(x[rows], y[rows]).predict(x[50:])
            np.testing.assert_allclose(together[i, k, 50:], expected, rtol=1e-7)


def test_left_out_refuses_a_single_group():
    x, y = problem(10, 4)
    with pytest.raises(UserError, match="2 groups"):
        held_out_paths(x, y, [np.arange(10)], ALPHAS, ["a"] * 10)
    with pytest.raises(UserError, match="2 groups"):
        held_out_paths(x, y, [np.array([3])], ALPHAS)


def test_float64_ends_with_its_context():
    with float64():
        assert jax.numpy.ones(1, float).dtype == np.float64
    assert jax.numpy.ones(1, float).dtype == np.float32


def test_constant_features_and_duplicated_rows_are_no_trouble():
    x, y = problem(20, 30)
    x[:, :5], x[10:] = 7.0, x[:10]
    coefficients, intercepts = fit_ridge(x, y, ALPHAS)
    assert np.isfinite(coefficients).all() and np.isfinite(intercepts).all()
    np.testing.assert_allclose(coefficients[:, :5], 0, atol=1e-9)


def test_ridge_refuses_bad_input():
    x, y = problem(10, 4)
    with pytest.raises(UserError, match="do not fit"):
        fit_ridge(x, y[:-1], ALPHAS)
    with pytest.raises(UserError, match="weights must be 4 numbers"):
        fit_ridge(np.eye(4), np.arange(4.0), np.ones(1), np.zeros(4))
    with pytest.raises(UserError, match="above 0"):
        fit_ridge(x, y, np.array([0.0, 1.0]))
    x[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_ridge(x, y, ALPHAS)
