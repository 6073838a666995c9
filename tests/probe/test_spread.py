"""Deviations learnt from residuals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from contrique_jax.errors import UserError
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.falls import fit_with_falls
from contrique_jax.probe.spread import INSIDE, _logarithms, fit_spread, fit_spread_beside, monomials

ALPHAS = np.array([1.0])


def images(seed: int, count: int = 1500):
    """Features, scores and kinds: three in four are easy, the others are of another kind and eight times as hard."""
    random = np.random.default_rng(seed)
    hard = random.random(count) < 0.25
    x = random.normal(size=(count, 10))
    x[:, 9] += 5 * hard
    return x, x[:, 0] + np.where(hard, 0.8, 0.1) * random.normal(size=count), np.where(hard, "hard", "easy")


@pytest.fixture(scope="module")
def fitted():
    x, y, kinds = images(0)
    fit = fit_with_falls(x, y, ALPHAS)
    return fit, fit_spread(x, y, fit.held_out, fit.coefficients, fit.intercept, alpha=1.0, kinds=kinds)


def test_the_interval_of_new_images_of_each_kind_holds_nine_in_ten(fitted):
    fit, spread = fitted
    x, y, kinds = images(1)
    error = np.abs(y - x @ fit.coefficients - fit.intercept)
    deviations = spread.deviations(x)
    covered = error <= INSIDE * deviations
    assert 0.87 < covered.mean() < 0.97  # where few images say so, deviations are not let near 0
    for kind in ("easy", "hard"):
        assert covered[kinds == kind].mean() == pytest.approx(0.9, abs=0.08)
    assert spearmanr(error, deviations)[0] > 0.3
    constant = np.quantile(error, 0.9)
    assert np.mean(error[kinds == "hard"] <= constant) < 0.7  # what one width for all would do


def test_without_kinds_the_prediction_alone_tells_images_apart():
    """Residuals that grow with the score."""
    random = np.random.default_rng(3)
    x = random.normal(size=(1500, 4))
    y = x[:, 0] + np.exp(x[:, 0]) * 0.2 * random.normal(size=1500)
    fit = fit_with_falls(x, y, ALPHAS)
    spread = fit_spread(x, y, fit.held_out, fit.coefficients, fit.intercept, alpha=1.0)
    assert len(spread.offsets) == 1
    low, high = spread.deviations(np.array([[-1.0, 0, 0, 0], [1.5, 0, 0, 0]]))
    assert high > 3 * low


def test_the_quadratic_is_where_the_likelihood_of_the_residuals_is_greatest():
    """Of residuals whose variance is the exponential of a quadratic, the quadratic is found."""
    random = np.random.default_rng(4)
    z = monomials(random.normal(size=(20000, 2)))
    true = np.array([-2.0, 0.5, -0.3, 0.2, 0.1, 0.0])
    squares = np.exp(z @ true) * random.normal(size=20000) ** 2
    np.testing.assert_allclose(_logarithms(z, squares, np.ones(20000)), true, atol=0.06)


def test_summaries_that_something_else_gives_take_the_place_of_those_of_the_features():
    """Here what says which images are hard is in no feature."""
    random = np.random.default_rng(6)
    x, hard = random.normal(size=(3000, 4)), random.random(3000) < 0.3
    y = x[:, 0] + np.where(hard, 1.0, 0.2) * random.normal(size=3000)
    old, new = slice(0, 1500), slice(1500, 3000)
    beside = np.column_stack([x[:, 0], hard])
    spread = fit_spread_beside(beside[old], y[old], width=4)
    deviations, off = spread.deviations(x[new], beside[new]), np.abs(y - x[:, 0])[new]
    for which, scale in ((hard[new], 1.0), (~hard[new], 0.2)):
        assert np.median(deviations[which]) == pytest.approx(scale, rel=0.25)
        assert np.mean(off[which] <= INSIDE * deviations[which]) == pytest.approx(0.9, abs=0.05)
    assert spread.directions.shape == (0, 4)


def test_kinds_of_other_tails_are_all_covered(fitted):
    """Nine in ten of each, though one kind is as often off by far as hardly at all."""
    random = np.random.default_rng(7)
    x, which = random.normal(size=(6000, 4)), np.arange(6000) % 3
    x[:, 3] += 4 * which
    rare = random.random(6000) < 0.15
    scale = np.choose(which, [0.1, np.where(rare, 1.5, 0.05), 0.4])
    y = x[:, 0] + scale * random.normal(size=6000)
    kinds, old, new = which.astype(str), slice(0, 3000), slice(3000, 6000)
    spread = fit_spread(x[old], y[old], x[old, 0], np.eye(4)[0], 0.0, alpha=1.0, kinds=kinds[old])
    inside = np.abs(y - x[:, 0])[new] <= INSIDE * spread.deviations(x[new])
    for kind in "012":
        assert inside[kinds[new] == kind].mean() == pytest.approx(0.9, abs=0.04), kind


def test_far_away_it_stays_finite_and_above_nothing(fitted):
    far = fitted[1].deviations(np.array([[1e6] * 10, [-1e6] * 10, [0.0] * 10]))
    assert np.isfinite(far).all() and (far > 0).all()


def test_it_travels_with_the_probe(fitted, tmp_path):
    fit, spread = fitted
    x = images(2, 50)[0]
    probe = Probe(fit.coefficients, fit.intercept, 1.0, NO_REFERENCE, "abc", "MINE", 0.0, 1.0, True, 0.2, spread=spread)
    probe.save(tmp_path / "probe.npz")
    loaded = load_probe(tmp_path / "probe.npz")
    np.testing.assert_array_equal(loaded.deviations(x), spread.deviations(x))
    assert "spread" not in probe.plain() and loaded.posterior is None
    damaged = dataclasses.replace(spread, widths=-spread.widths)
    dataclasses.replace(probe, spread=damaged).save(tmp_path / "damaged.npz")
    with pytest.raises(UserError, match="damaged"):
        load_probe(tmp_path / "damaged.npz")
    dataclasses.replace(probe, spread=dataclasses.replace(spread, quadratic=np.ones(2))).save(tmp_path / "damaged.npz")
    with pytest.raises(UserError, match="damaged"):
        load_probe(tmp_path / "damaged.npz")


def test_it_is_the_same_each_time(fitted):
    x, y, kinds = images(0)
    again = fit_spread(x, y, fitted[0].held_out, fitted[0].coefficients, fitted[0].intercept, alpha=1.0, kinds=kinds)
    for name, value in vars(fitted[1]).items():
        np.testing.assert_array_equal(value, getattr(again, name))


def test_bad_rows_are_one_sentence():
    x, y, kinds = images(0, 60)
    with pytest.raises(UserError, match="held-out"):
        fit_spread(x, y, y[1:], np.zeros(10), 0.0, alpha=1.0)
    for beside in (np.full((60, 2), np.nan), np.zeros((59, 2))):
        with pytest.raises(UserError, match="all summaries"):
            fit_spread_beside(beside, y, width=10)
    with pytest.raises(UserError, match="a kind"):
        fit_spread(x, y, y, np.zeros(10), 0.0, alpha=1.0, kinds=kinds[1:])
