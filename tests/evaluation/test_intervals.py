"""Bootstrap intervals against SciPy's, and the corrected t-test against its formula and its promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.evaluation.intervals import (
    bootstrap_difference,
    bootstrap_intervals,
    bootstrap_medians,
    compare_over_splits,
)


def planted(n=80, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x, x + noise * rng.normal(size=n)


def test_it_is_scipys_bca():
    x, y = planted()
    found = bootstrap_intervals(x, y, ("srocc",), resamples=1500, level=0.9, seed=3)["srocc"]
    reference = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, n_resamples=1500,
        method="BCa", confidence_level=0.9, random_state=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic) and found.note is None
    # both draw the same images, so even the signs of the bias and of the acceleration show
    assert [found.low, found.high] == pytest.approx([reference.low, reference.high], rel=0, abs=1e-12)
    again = bootstrap_intervals(x, y, ("srocc",), resamples=1500, level=0.9, seed=3)["srocc"]
    assert again == found  # the seed decides


def test_intervals_of_the_fitted_numbers_hold_them():
    x, y = planted(25)
    found = bootstrap_intervals(x, y, ("plcc", "rmse", "krocc"), resamples=100)
    assert list(found) == ["plcc", "rmse", "krocc"]
    assert all(interval.low < interval.value < interval.high for interval in found.values())


def test_groups_resampled_whole_widen_the_interval():
    x, y = planted(40)
    x, y = np.repeat(x, 6), np.repeat(y, 6)
    alone = bootstrap_intervals(x, y, resamples=400)["srocc"]
    whole = bootstrap_intervals(x, y, resamples=400, groups=[str(i // 6) for i in range(240)])["srocc"]
    assert whole.high - whole.low > 1.8 * (alone.high - alone.low)


def test_one_side_of_all_images_is_the_plain_bootstrap():
    x, y = planted(60)
    alone = bootstrap_intervals(x, y, resamples=300)["srocc"]
    found = bootstrap_medians([x], [np.arange(60)], y, resamples=300)["srocc"]
    assert [found.value, found.low, found.high] == pytest.approx([alone.value, alone.low, alone.high])


def test_one_side_of_some_images_is_the_bootstrap_of_their_groups():
    x, y = planted(60)
    rows, groups = np.random.default_rng(2).permutation(60)[:40], [f"g{i % 12:02}" for i in range(60)]
    alone = bootstrap_intervals(x[rows], y[rows], resamples=300, groups=[groups[i] for i in rows])["srocc"]
    found = bootstrap_medians([x[rows]], [rows], y, resamples=300, groups=groups)["srocc"]
    assert [found.value, found.low, found.high] == pytest.approx([alone.value, alone.low, alone.high])


def test_medians_over_sides_do_not_mind_that_each_fit_has_its_own_mean():
    """Predictions of one side against the other's would turn the order; no side is compared with another here."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=120)
    tests = [rng.permutation(120)[:40] for _ in range(8)]
    predictions = [0.01 * (scores[t] + 0.5 * rng.normal(size=40)) - scores[t].mean() for t in tests]
    found = bootstrap_medians(predictions, tests, scores, resamples=300)
    sroccs = [stats.spearmanr(p, scores[t]).statistic for p, t in zip(predictions, tests, strict=True)]
    plccs = [correlate(p, scores[t]).plcc for p, t in zip(predictions, tests, strict=True)]
    assert found["srocc"].value == pytest.approx(np.median(sroccs)) and found["plcc"].value == pytest.approx(
        np.median(plccs)
    )
    for name in ("srocc", "plcc", "rmse"):
        assert found[name].low < found[name].value < found[name].high
    assert 0.02 < found["srocc"].high - found["srocc"].low < 0.2


@pytest.mark.slow
def test_the_interval_of_a_median_holds_the_true_one_as_often_as_it_says():
    """Images drawn anew 40 times; the number of the whole population is known."""
    rng = np.random.default_rng(1)
    truth, held = stats.spearmanr(*planted(200_000)).statistic, 0
    for seed in range(40):
        x, y = planted(100, seed=seed + 10)
        tests = [rng.permutation(100)[:60] for _ in range(4)]
        found = bootstrap_medians([x[t] for t in tests], tests, y, resamples=100, level=0.9)["srocc"]
        held += found.low <= truth <= found.high
    assert 31 <= held <= 40


def test_a_better_model_is_seen_on_the_same_images_and_a_like_one_is_not():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=150)
    good, bad, like = (scores + s * rng.normal(size=150) for s in (0.4, 1.2, 0.4))
    assert bootstrap_difference(good, bad, scores, resamples=300).low > 0
    same = bootstrap_difference(good, like, scores, resamples=300)
    assert same.low < 0 < same.high


def test_what_is_not_defined_is_nan_and_said():
    found = bootstrap_intervals(np.ones(20), np.arange(20.0), resamples=100)["srocc"]
    assert np.isnan([found.value, found.low, found.high]).all() and "not defined" in found.note
    two = bootstrap_intervals(np.arange(20.0), np.arange(20.0), groups=["a"] * 9 + ["b"] * 11)["srocc"]
    assert two.value == pytest.approx(1) and np.isnan(two.low) and "2 images or groups are too few" in two.note
    perfect = bootstrap_intervals(np.arange(20.0), np.arange(20.0), resamples=100)["srocc"]
    assert [perfect.low, perfect.high] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("more", "says"),
    [({"metrics": ("auc",)}, "auc is not known"), ({"groups": ["a"]}, "one group"),
     ({"level": 95}, "between 0 and 1"), ({"resamples": 3}, "at least 100")],
)  # fmt: skip
def test_bad_input_is_one_sentence(more, says):
    with pytest.raises(UserError, match=says):
        bootstrap_intervals(np.arange(20.0), np.arange(20.0), **more)


def test_the_corrected_t_test_is_its_formula():
    first, second = np.random.default_rng(0).normal(size=(2, 10))
    found = compare_over_splits(first, second, 2 / 7)
    difference = first - second
    t = difference.mean() / np.sqrt((1 / 10 + 2 / 7) * difference.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 9)) and found.wins == (difference > 0).sum()
    assert found.p > stats.ttest_rel(first, second).pvalue  # the correction makes it more careful
    assert (found.low < 0 < found.high) == (found.p > 0.05)


def test_it_rarely_sees_differences_that_are_not_there():
    """Two equally bad predictors over overlapping random splits: a plain t-test finds a difference far too often."""
    rng = np.random.default_rng(0)
    corrected = plain = 0
    for _ in range(200):
        scores = rng.normal(size=100)
        models = scores + rng.normal(size=(2, 100))
        tests = [rng.permutation(100)[:20] for _ in range(10)]
        a, b = (np.array([np.corrcoef(m[rows], scores[rows])[0, 1] for rows in tests]) for m in models)
        corrected += compare_over_splits(a, b, 20 / 80).p < 0.05
        plain += stats.ttest_rel(a, b).pvalue < 0.05
    assert corrected < 0.1 * 200 < plain


def test_odd_cases_of_the_comparison():
    same = compare_over_splits(np.ones(5), np.ones(5), 0.3)
    assert (same.mean, same.p) == (0, 1) and "same in every split" in same.note
    shifted = compare_over_splits(np.arange(5.0) + 1, np.arange(5.0), 0.3)
    assert shifted.mean == 1 and np.isnan(shifted.p) and shifted.wins == 5
    lost = compare_over_splits(np.array([1, 2, np.nan, 4.0]), np.array([1, 1, 1, 1.0]), 0.3)
    assert lost.splits == 3 and "1 of 4" in lost.note
    assert "too few" in compare_over_splits(np.ones(1), np.ones(1), 0.3).note
    with pytest.raises(UserError, match="same splits"):
        compare_over_splits(np.ones(3), np.ones(4), 0.3)
    with pytest.raises(UserError, match="above 0"):
        compare_over_splits(np.ones(3), np.ones(3), 0)
