"""SROCC, KROCC, PLCC and RMSE against SciPy and against planted logistic curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import correlate, fit_logistic, krocc, plcc, rank_correlations, rmse, srocc


def planted(n=300, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(40, 12, n)
    return x, 20 + 60 / (1 + np.exp(-(x - 35) / 6)) + noise * rng.normal(size=n)


def test_rank_correlations_are_scipys_with_ties():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 12, 80).astype(float), rng.integers(0, 9, 80).astype(float)
    assert srocc(x, y) == pytest.approx(stats.pearsonr(stats.rankdata(x), stats.rankdata(y)).statistic, abs=1e-12)
    pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(80) for j in range(i)]
    a, b = np.array(pairs).T
    assert krocc(x, y) == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), abs=1e-12)


def test_a_planted_logistic_is_found():
    x, y = planted()
    result = correlate(x, y)
    assert result.plcc == pytest.approx(1, abs=1e-9) and result.srocc == pytest.approx(1, abs=1e-12)
    assert result.rmse < 1e-5 and result.notes == ()
    assert result.plcc > stats.pearsonr(x, y).statistic + 0.01


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [-1e3, 0.0, 1e3])
def test_the_fit_does_not_depend_on_units(scale, shift):
    x, y = planted(noise=4)
    reference = correlate(x, y)
    moved = correlate(x * scale + shift * scale, y)
    assert moved.plcc == pytest.approx(reference.plcc, abs=1e-5)
    assert correlate(x, y * scale).rmse == pytest.approx(reference.rmse * scale, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_a_straight_line(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40)
    y = rng.normal(size=40) * 10 ** rng.uniform(-3, 3) + x
    slope, intercept = np.polyfit(x, y, 1)
    assert correlate(x, y).rmse <= rmse(slope * x + intercept, y) * (1 + 1e-5)


def test_a_falling_relation_counts_negative():
    x, y = planted(noise=1)
    result = correlate(-x, y)
    assert result.plcc == pytest.approx(-correlate(x, y).plcc, abs=1e-5) and result.srocc < -0.9


def test_a_step_and_outliers_do_not_break_the_fit():
    x = np.concatenate([np.linspace(0, 1, 50), [1e4]])
    result = correlate(x, (x > 0.5).astype(float))
    assert np.isfinite([result.plcc, result.rmse]).all() and result.plcc > 0.8


def test_too_few_points_for_four_parameters_fall_back_to_a_line_and_say_so():
    x, y = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 5])
    result = correlate(x, y)
    assert result.plcc == pytest.approx(stats.pearsonr(x, y).statistic) and "straight line" in result.notes[0]


@pytest.mark.parametrize(
    ("x", "y", "why"),
    [([1, 1, 1, 1], [1, 2, 3, 4], "predictions are constant"), ([1, 2, 3, 4], [2, 2, 2, 2], "scores are constant"),
     ([1, 2], [1, 2], "too few"), ([], [], "too few")],
)  # fmt: skip
def test_undefined_is_nan_and_said(x, y, why):
    x, y = np.array(x, float), np.array(y, float)
    result = correlate(x, y)
    assert np.isnan([result.srocc, result.krocc, result.plcc, result.rmse]).all() and why in result.notes[0]
    assert np.isnan([srocc(x, y), krocc(x, y), plcc(x, y)]).all()


def test_bad_input_is_one_sentence():
    with pytest.raises(UserError, match="one length"):
        correlate(np.arange(3.0), np.arange(4.0))
    with pytest.raises(UserError, match="NaN"):
        srocc(np.array([1.0, np.nan, 2.0]), np.arange(3.0))


def test_rmse_is_the_plain_one():
    assert rmse(np.array([1.0, 2]), np.array([4.0, 6])) == pytest.approx(np.sqrt(12.5))
    mapped, note = fit_logistic(np.ones(5), np.arange(5.0))
    assert "constant" in note and np.allclose(mapped, 2)


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("n", [3, 4, 50])
def test_all_are_scipys_whatever_the_ties(levels, n):
    rng = np.random.default_rng(levels + n)
    x, y = rng.integers(0, levels, n).astype(float), rng.integers(0, levels, n).astype(float)
    x[:2], y[-2:] = (0, 1), (0, 1)
    assert srocc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert krocc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    fitted, _ = fit_logistic(x, y)
    assert abs(plcc(x, y)) == pytest.approx(abs(stats.pearsonr(fitted, y).statistic), abs=1e-9)


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    predictions, scores = rng.integers(0, 6, (4, 50)).astype(float), rng.integers(0, 9, 50).astype(float)
    predictions[3] = 1
    expected = [stats.spearmanr(row, scores).statistic for row in predictions[:3]]
    found = rank_correlations(predictions, scores)
    np.testing.assert_allclose(found[:3], expected, atol=1e-12)
    assert np.isnan(found[3])


def test_outliers_are_counted_against_opinions_where_there_are_some():
    x, y = planted(noise=1)
    y[:6] += 40
    plain = correlate(x, y)
    fitted, _ = fit_logistic(x, y)
    assert (
        plain.outlier_ratio == np.mean(np.abs(fitted - y) > 2 * np.std(fitted - y))
        and "residuals" in plain.outlier_rule
    )
    opinions = np.full(300, 5.0)
    opinions[0] = 1e3
    told = correlate(x, y, opinion_deviations=opinions)
    assert told.outlier_ratio == pytest.approx(5 / 300) and "opinions" in told.outlier_rule
    with pytest.raises(UserError, match="below 0"):
        correlate(x, y, opinion_deviations=-opinions)
    with pytest.raises(UserError, match="one length"):
        correlate(x, y, opinion_deviations=opinions[1:])


def test_five_parameters_follow_what_four_cannot():
    x, y = planted()
    y = y + 0.5 * x
    assert correlate(x, y, logistic_parameters=5).rmse < 1e-5 < correlate(x, y).rmse
