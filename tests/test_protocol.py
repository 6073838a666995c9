"""The protocol on planted features, against the same protocol written with scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge

from contrique_jax import protocol
from contrique_jax.errors import UserError
from contrique_jax.protocol import evaluate_features, make_splits, rank_correlations, ridge_predictions

ALPHAS = np.geomspace(1e-3, 1e3, 13)


def planted(n=120, d=30, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)).astype(np.float32)
    scores = features @ rng.normal(size=d)
    return features, scores / scores.std() + noise * rng.normal(size=n), [f"g{i // 3}" for i in range(n)]


def test_groups_never_straddle_and_the_shares_are_right():
    rng = np.random.default_rng(0)
    groups = [str(group) for group in rng.integers(0, 200, 1000)]
    for split in make_splits(groups, 20, 5):
        sides = [{groups[i] for i in rows} for rows in (split.train, split.validation, split.test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sorted(np.concatenate([split.train, split.validation, split.test])) == list(range(1000))
        shares = [len(rows) / 1000 for rows in (split.train, split.validation, split.test)]
        np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.06)


def test_splits_depend_on_the_seed_and_differ_among_themselves():
    groups = [str(i // 2) for i in range(100)]
    first, again, other = (make_splits(groups, 4, seed) for seed in (0, 0, 1))
    same = lambda a, b: np.array_equal(a.test, b.test) and np.array_equal(a.train, b.train)  # noqa: E731
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True)) and not same(first[0], first[1])
    assert same(make_splits(groups, 1, 0)[0], first[0])


def test_too_few_groups_or_images_are_refused():
    with pytest.raises(UserError, match="4 groups"):
        make_splits(["a", "b", "c", "d"] * 30, 3, 0)
    with pytest.raises(UserError, match="add images"):
        make_splits([str(i) for i in range(12)], 3, 0)
    split = make_splits(["a", "b", "c", "d", "e"] * 4, 1, 0)[0]
    assert [len(rows) for rows in (split.train, split.validation, split.test)] == [12, 4, 4]


@pytest.mark.parametrize("d", [30, 200])
def test_it_is_the_protocol_written_with_scikit_learn(d):
    features, scores, groups = planted(d=d, noise=1.0)
    splits = make_splits(groups, 5, 0)
    found = evaluate_features(features, scores, splits, alphas=ALPHAS)
    validation, test = np.empty((5, len(ALPHAS))), np.empty((5, len(ALPHAS)))
    residuals = np.empty((5, len(ALPHAS)), object)
    for i, split in enumerate(splits):
        for j, alpha in enumerate(ALPHAS):
            ridge = Ridge(alpha=alpha).fit(features[split.train].astype(float), scores[split.train])
            predicted = ridge.predict(features.astype(float))
            validation[i, j] = stats.spearmanr(predicted[split.validation], scores[split.validation]).statistic
            test[i, j] = stats.spearmanr(predicted[split.test], scores[split.test]).statistic
            residuals[i, j] = (predicted - scores)[split.validation]
    medians = np.median(validation, axis=0)
    best = max(range(len(ALPHAS)), key=lambda j: (round(medians[j], 12), j))
    assert found.alpha == ALPHAS[best] and found.validation_srocc == pytest.approx(medians[best])
    np.testing.assert_allclose(found.values("srocc"), test[:, best], atol=1e-9)
    assert found.deviation == pytest.approx(np.sqrt(np.mean(np.concatenate(residuals[:, best]) ** 2)), rel=1e-6)


def test_one_vmapped_solution_equals_split_by_split(monkeypatch):
    features, scores, groups = planted()
    trains = [split.train for split in make_splits(groups[:-1], 4, 0)]  # sides of different lengths
    assert len({len(rows) for rows in trains}) > 1
    together = ridge_predictions(features, scores, trains, ALPHAS)
    monkeypatch.setattr(protocol, "VMAP_BYTES", 0)
    np.testing.assert_allclose(ridge_predictions(features, scores, trains, ALPHAS), together, rtol=1e-9, atol=1e-9)


def test_planted_scores_are_recovered_and_noise_is_not():
    features, scores, groups = planted(n=300)
    splits = make_splits(groups, 10, 0)
    subsets = ["even" if i % 2 else "odd" for i in range(300)]
    found = evaluate_features(features, scores, splits, subsets)
    assert np.median(found.values("srocc")) > 0.9 and np.median(found.values("plcc")) > 0.9
    assert np.median(found.values("srocc", "even")) > 0.85 and set(found.results[0].subsets) == {"even", "odd"}
    assert 0.25 < found.deviation < 0.45  # the planted noise is 0.3
    shuffled = evaluate_features(features, np.random.default_rng(1).permutation(scores), splits)
    assert abs(np.median(shuffled.values("srocc"))) < 0.25


def test_constant_features_are_a_sentence():
    _, scores, groups = planted()
    with pytest.raises(UserError, match="constant"):
        evaluate_features(np.ones((len(scores), 4), np.float32), scores, make_splits(groups, 3, 0))


def test_rank_correlations_are_scipys():
    rng = np.random.default_rng(0)
    predictions, scores = rng.integers(0, 6, (4, 50)).astype(float), rng.integers(0, 9, 50).astype(float)
    predictions[3] = 1
    expected = [stats.spearmanr(row, scores).statistic for row in predictions[:3]]
    found = rank_correlations(predictions, scores)
    np.testing.assert_allclose(found[:3], expected, atol=1e-12)
    assert np.isnan(found[3])
