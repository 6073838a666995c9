"""Ridge against scikit-learn, and the probe file."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from contrique_jax.errors import UserError
from contrique_jax.probe import NO_REFERENCE, Probe, fit_ridge, float64, load_probe, ridge_path

ALPHAS = np.geomspace(1e-3, 1e3, 7)


def problem(n, d, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * rng.uniform(0.01, 3, d) + rng.normal(size=d) * 5
    return x, x @ rng.normal(size=d) / np.sqrt(d) + 50 + rng.normal(size=n)


@pytest.fixture
def probe():
    return Probe(np.linspace(-1, 1, 6), 3.5, 0.1, NO_REFERENCE, "abc123", "MINE", 1.0, 5.0, True, 0.25)


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
        coefficients, _ = jax.jit(ridge_path)(x, y, ALPHAS, weights)
    for i, alpha in enumerate(ALPHAS):
        reference = Ridge(alpha=alpha, solver="svd").fit(x, y, weights)
        np.testing.assert_allclose(coefficients[i], reference.coef_, rtol=1e-6, atol=1e-8)
    kept = (weights > 0).astype(float)
    with float64():
        masked, _ = jax.jit(ridge_path)(x, y, ALPHAS, kept)
    np.testing.assert_allclose(masked, fit_ridge(x[kept > 0], y[kept > 0], ALPHAS)[0], rtol=1e-6, atol=1e-8)


def test_it_maps_over_a_batch_of_problems():
    problems = [problem(30, 20, seed) for seed in range(3)]
    x, y = np.stack([p[0] for p in problems]), np.stack([p[1] for p in problems])
    with float64():
        coefficients, _ = jax.vmap(ridge_path, (0, 0, None))(x, y, ALPHAS)
    for i, (xi, yi) in enumerate(problems):
        np.testing.assert_allclose(coefficients[i], fit_ridge(xi, yi, ALPHAS)[0], rtol=1e-9, atol=1e-11)


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
    with pytest.raises(UserError, match="above 0"):
        fit_ridge(x, y, np.array([0.0, 1.0]))
    x[3, 2] = np.nan
    with pytest.raises(UserError, match="NaN"):
        fit_ridge(x, y, ALPHAS)


def test_a_probe_comes_back_as_it_was(probe, tmp_path):
    probe.save(tmp_path / "probe.npz")
    loaded = load_probe(tmp_path / "probe.npz")
    for field in dataclasses.fields(Probe):
        mine, theirs = getattr(probe, field.name), getattr(loaded, field.name)
        assert type(mine) is type(theirs) and np.array_equal(mine, theirs)
    features = np.random.default_rng(0).normal(size=(5, 6))
    np.testing.assert_allclose(loaded.predict(features), features @ probe.coefficients + 3.5)
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


def test_a_probe_for_other_features_is_refused(probe):
    with pytest.raises(UserError, match="reads features"):
        probe.predict(np.zeros((2, 5)))
    with pytest.raises(UserError, match="6 features and this model gives 8"):
        probe.check_model("abc123", 8)
    with pytest.raises(UserError, match="abc123"):
        probe.check_model("ffffff", 6)
    with pytest.raises(UserError, match="NaN"):
        probe.predict(np.full((1, 6), np.nan))
    probe.check_model("abc123", 6)


def test_a_damaged_probe_is_one_sentence(probe, tmp_path):
    path = tmp_path / "probe.npz"
    probe.save(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            load_probe(path)
    with pytest.raises(UserError, match="no such probe"):
        load_probe(tmp_path / "absent.npz")
    np.savez(path, something=np.zeros(3))
    with pytest.raises(UserError, match="not a probe"):
        load_probe(path)
    np.save(open(path, "wb"), np.zeros(3))  # noqa: SIM115
    with pytest.raises(UserError):
        load_probe(path)
    np.savez(path, coefficients=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        load_probe(path)


@pytest.mark.parametrize(
    "change", [{"coefficients": np.array([1, np.nan])}, {"intercept": np.inf}, {"deviation": np.nan}]
)
def test_a_probe_with_nan_is_refused(probe, change, tmp_path):
    dataclasses.replace(probe, **change).save(tmp_path / "probe.npz")
    with pytest.raises(UserError, match="NaN"):
        load_probe(tmp_path / "probe.npz")
