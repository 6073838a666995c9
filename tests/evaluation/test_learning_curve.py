"""Learning curves and cross-data-set tests on planted features, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation import learning_curve as module
from contrique_jax.evaluation.crossing import cross_data_set
from contrique_jax.evaluation.learning_curve import learning_curve
from contrique_jax.evaluation.splits import make_splits

linear_model = pytest.importorskip("sklearn.linear_model")
Ridge, RidgeCV = linear_model.Ridge, linear_model.RidgeCV

ALPHAS = np.geomspace(1e-3, 1e3, 13)


def planted(n, d=20, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    scores = x @ np.random.default_rng(99).normal(size=d) / np.sqrt(d)
    return x, scores + noise * rng.normal(size=n)


def test_more_labels_predict_better_and_all_is_scikit_learns():
    x, y = planted(120)
    splits = make_splits([str(i) for i in range(120)], 3, 0)
    found = learning_curve(x, y, splits, repeats=2, alphas=ALPHAS)
    assert found.sizes == [10, 20, 50, 96] and [len(v) for v in found.sroccs] == [6] * 3 + [3]
    assert found.medians[0] < found.medians[2] < found.medians[-1]
    for split, value in zip(splits, found.sroccs[-1], strict=True):
        rows = np.concatenate([split.train, split.validation])
        reference = RidgeCV(ALPHAS).fit(x[rows].astype(float), y[rows])  # its own leave-one-out
        expected = stats.spearmanr(reference.predict(x[split.test].astype(float)), y[split.test]).statistic
        assert value == pytest.approx(expected, abs=1e-9)


def test_smaller_sets_are_inside_larger_ones_and_never_tested(monkeypatch):
    x, y = planted(100)
    groups = [str(i // 2) for i in range(100)]
    seen = []
    whole = module.held_out_paths
    monkeypatch.setattr(module, "held_out_paths", lambda x, y, fits, *a: seen.append(fits) or whole(x, y, fits, *a))
    splits = make_splits(groups, 2, 0)
    found = learning_curve(x, y, splits, groups, sizes=[40, 10], repeats=2, alphas=ALPHAS)
    assert found.sizes == [10, 40, 80]
    for i in range(4):
        assert set(seen[0][i]) < set(seen[1][i]) and len(seen[0][i]) == 10 and len(seen[1][i]) == 40
        assert not set(seen[1][i]) & set(splits[i // 2].test)
    assert set(seen[0][0]) != set(seen[0][1])


def test_few_large_groups_can_still_be_left_out():
    x, y = planted(60)
    groups = ["big"] * 40 + [str(i // 5) for i in range(20)]
    splits = make_splits([str(i // 10) for i in range(60)], 1, 0)
    assert np.isfinite(learning_curve(x, y, splits, groups, sizes=[10], repeats=5, alphas=ALPHAS).sroccs[0]).any()


def test_portions_change_nothing(monkeypatch):
    x, y = planted(80)
    splits = make_splits([str(i) for i in range(80)], 3, 0)
    whole = learning_curve(x, y, splits, sizes=[20], alphas=ALPHAS)
    monkeypatch.setattr(module, "PORTION", 1)
    np.testing.assert_allclose(learning_curve(x, y, splits, sizes=[20], alphas=ALPHAS).sroccs[0], whole.sroccs[0])


def test_sizes_that_cannot_be_are_one_sentence():
    x, y = planted(60)
    splits = make_splits([str(i) for i in range(60)], 2, 0)
    for more in ({"sizes": [5]}, {"sizes": [49]}, {"repeats": 0}):
        with pytest.raises(UserError, match="from 10 to 48"):
            learning_curve(x, y, splits, **more)
    with pytest.raises(UserError, match="2 groups"):
        learning_curve(x, y, splits, ["one"] * 60, sizes=[10])


def test_another_data_set_is_scikit_learns():
    (x, y), (other, other_y) = planted(150), planted(90, noise=0.8, seed=5)
    found = cross_data_set(x, y, other, other_y, alphas=ALPHAS)
    reference = RidgeCV(ALPHAS).fit(x.astype(float), y)
    assert found.alpha == reference.alpha_
    np.testing.assert_allclose(found.predictions, reference.predict(other.astype(float)), rtol=1e-6, atol=1e-9)
    assert found.correlations.srocc == pytest.approx(stats.spearmanr(found.predictions, other_y).statistic)
    given = cross_data_set(x, y, other, -other_y, alpha=2.0, opposite=True)
    expected = -Ridge(alpha=2.0).fit(x.astype(float), y).predict(other.astype(float))
    np.testing.assert_allclose(given.predictions, expected, rtol=1e-6, atol=1e-9)
    assert given.alpha == 2.0 and given.correlations.srocc > 0.5


def test_data_sets_that_do_not_belong_together_are_one_sentence():
    (x, y), (other, other_y) = planted(30), planted(20)
    with pytest.raises(UserError, match="one model"):
        cross_data_set(x, y, other[:, :5], other_y)
    with pytest.raises(UserError, match="every score is the same"):
        cross_data_set(x, y, other, np.ones(20))
    other_y[3] = np.nan
    with pytest.raises(UserError, match="NaN"):
        cross_data_set(x, y, other, other_y)
