"""Logistic curves: planted parameters come back, no curve turns, and no failure is silent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.evaluation import logistic
from contrique_jax.evaluation.logistic import Curve, fit_curve


@pytest.mark.parametrize("planted", [Curve(60, 35, 6, 0, 20), Curve(-3, 45, 2, 0, 4), Curve(1e-3, 40, 15, 0, 1e3)])
@pytest.mark.parametrize("n", [12, 300])
def test_four_planted_parameters_come_back(planted, n):
    x = np.random.default_rng(0).normal(40, 12, n)
    found = fit_curve(x, planted(x))
    # (amplitude, width) and (-amplitude, -width) are one curve: widths are positive here
    np.testing.assert_allclose(dataclasses.astuple(found)[:5], dataclasses.astuple(planted)[:5], rtol=1e-5, atol=1e-9)
    assert found.note is None


@pytest.mark.parametrize("planted", [Curve(60, 35, 6, 0.4, 20), Curve(-60, 35, 6, -0.4, 20), Curve(30, 42, 3, 2.0, 0)])
def test_five_planted_parameters_come_back(planted):
    x = np.random.default_rng(0).normal(40, 12, 300)
    found = fit_curve(x, planted(x), 5)
    # an offset of 0 comes back as 1e-8, of curves as high as 100
    np.testing.assert_allclose(dataclasses.astuple(found)[:5], dataclasses.astuple(planted)[:5], rtol=1e-4, atol=1e-7)
    noisy = fit_curve(x, planted(x) + np.random.default_rng(1).normal(size=300), 5)
    assert np.sqrt(np.mean((noisy(x) - planted(x)) ** 2)) < 0.25


@pytest.mark.parametrize("parameters", [4, 5])
@pytest.mark.parametrize("seed", range(6))
def test_no_curve_turns(parameters, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=60)
    y = np.sin(2 * x) + 0.3 * rng.normal(size=60) + seed * 0.2 * x  # free five parameters would follow the wave
    steps = np.diff(fit_curve(x, y, parameters)(np.linspace(x.min() - 1, x.max() + 1, 500)))
    assert (steps >= -1e-9).all() or (steps <= 1e-9).all()


def test_five_parameters_fit_no_worse_than_a_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = 3 * x + 0.1 * rng.normal(size=50)
    slope, intercept = np.polyfit(x, y, 1)
    found = fit_curve(x, y, 5)
    assert np.sum((found(x) - y) ** 2) <= np.sum((slope * x + intercept - y) ** 2) * (1 + 1e-6)


def test_a_failure_to_converge_is_said(monkeypatch):
    whole = logistic.optimize.minimize
    monkeypatch.setattr(logistic.optimize, "minimize", lambda *a, **k: whole(*a, **{**k, "options": {"maxfun": 1}}))
    x = np.random.default_rng(0).normal(size=50)
    y = np.tanh(x) + 0.1 * np.random.default_rng(1).normal(size=50)
    found = fit_curve(x, y)
    assert "did not converge" in found.note and "straight line" in found.note
    np.testing.assert_allclose(found(x), np.polyval(np.polyfit(x, y, 1), x), atol=1e-9)


def test_too_few_and_constant_are_said():
    assert "too few" in fit_curve(np.arange(5.0), np.arange(5.0), 5).note
    assert "constant" in fit_curve(np.ones(9), np.arange(9.0)).note
    flat = fit_curve(np.arange(9.0), np.ones(9))
    np.testing.assert_allclose(flat(np.arange(9.0)), 1)
    with pytest.raises(UserError, match="4 or 5"):
        fit_curve(np.arange(9.0), np.arange(9.0), 3)
