"""The protocol on planted features, against the same protocol written with scikit-learn and SciPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import BY_OPINIONS, BY_RESIDUALS
from contrique_jax.evaluation.protocol import compare_evaluations, evaluate_features
from contrique_jax.evaluation.splits import Split, make_splits
from contrique_jax.evaluation.tables import notes

Ridge = pytest.importorskip("sklearn.linear_model").Ridge
model_selection = pytest.importorskip("sklearn.model_selection")

ALPHAS = np.geomspace(1e-3, 1e3, 13)


def planted(n=120, d=30, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)).astype(np.float32)
    scores = features @ rng.normal(size=d)
    return features, scores / scores.std() + noise * rng.normal(size=n), [f"g{i // 3}" for i in range(n)]


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


@pytest.mark.parametrize("d", [30, 200])
@pytest.mark.parametrize("grouped", [True, False])
def test_leave_one_out_is_the_protocol_written_with_scikit_learn(d, grouped):
    features, scores, groups = planted(n=60, d=d, noise=1.0)
    splits, alphas = make_splits(groups, 3, 0), ALPHAS[::3]
    found = evaluate_features(
        features, scores, splits, alphas=alphas, choose_alpha_by="leave-one-out", groups=groups if grouped else None
    )
    wide, names = features.astype(float), np.array(groups if grouped else range(60))
    errors, test = np.zeros(len(alphas)), np.empty((3, len(alphas)))
    for i, split in enumerate(splits):
        rows = np.concatenate([split.train, split.validation])
        for j, alpha in enumerate(alphas):
            fold = model_selection.LeaveOneGroupOut().split(rows, groups=names[rows])
            left = model_selection.cross_val_predict(Ridge(alpha=alpha), wide[rows], scores[rows], cv=fold)
            errors[j] += np.mean((left - scores[rows]) ** 2)
            predicted = Ridge(alpha=alpha).fit(wide[rows], scores[rows]).predict(wide[split.test])
            test[i, j] = stats.spearmanr(predicted, scores[split.test]).statistic
    best = int(np.argmin(errors))
    assert found.alpha == alphas[best] and found.chosen_by == "leave-one-out"
    np.testing.assert_allclose(found.values("srocc"), test[:, best], atol=1e-9)
    assert found.deviation == pytest.approx(np.sqrt(errors[best] / 3), rel=1e-6)


@pytest.mark.parametrize("choose", ["validation", "leave-one-out"])
def test_intervals_hold_as_many_scores_as_they_say(choose):
    features, scores, _ = planted(n=600, d=150, noise=0.5)
    splits = make_splits([str(i) for i in range(600)], 10, 0)
    found = evaluate_features(features, scores, splits, alphas=ALPHAS, choose_alpha_by=choose)
    assert found.coverages.mean() == pytest.approx(0.9, abs=0.03)
    first = found.results[0]
    inside = np.abs(scores[first.split.test] - first.predictions) <= stats.norm.ppf(0.95) * first.deviations
    assert first.coverage == inside.mean() and first.fitted == (420 if choose == "validation" else 480)


def test_opinions_and_five_parameters_reach_the_correlations():
    features, scores, groups = planted()
    splits = make_splits(groups, 2, 0)
    plain = evaluate_features(features, scores, splits, alphas=ALPHAS)
    told = evaluate_features(
        features, scores, splits, alphas=ALPHAS, opinion_deviations=np.full(120, 10.0), logistic_parameters=5
    )
    assert plain.results[0].pooled.outlier_rule == BY_RESIDUALS and told.results[0].pooled.outlier_rule == BY_OPINIONS
    assert (told.values("outlier_ratio") == 0).all() and (plain.values("outlier_ratio") > 0).any()


def test_two_models_are_compared_over_the_same_splits():
    features, scores, groups = planted(n=300, noise=0.5)
    splits = make_splits(groups, 10, 0)
    whole, part = (evaluate_features(x, scores, splits, alphas=ALPHAS) for x in (features, features[:, :12]))
    found = compare_evaluations(whole, part)
    assert found.wins == 10 and found.p < 0.01 and found.low > 0
    assert compare_evaluations(whole, whole).p == 1
    other = evaluate_features(features, scores, make_splits(groups, 10, 1), alphas=ALPHAS)
    with pytest.raises(UserError, match="same splits"):
        compare_evaluations(whole, other)


def test_bad_scores_and_splits_are_one_sentence():
    features, scores, groups = planted()
    splits = make_splits(groups, 3, 0)
    broken = scores.copy()
    broken[7] = np.nan
    none = np.array([], int)
    for given, says in [
        ((features, broken, splits), "1 scores are NaN"),
        ((features, np.ones(120), splits), "every score is the same"),
        ((features[1:], scores, splits), "do not fit"),
        ((features, scores, []), "there is no split"),
        ((features, scores, [Split(np.arange(90), none, np.arange(90, 120))]), "leave-one-out"),
        ((features, scores, [Split(np.arange(90), np.arange(89, 99), np.arange(100, 120))]), "twice"),
        ((features, scores, [Split(np.arange(90), np.arange(90, 99), np.arange(100, 121))]), "not among"),
    ]:
        with pytest.raises(UserError, match=says):
            evaluate_features(*given)
    official = Split(np.arange(90), none, np.arange(90, 120))
    assert (
        evaluate_features(features, scores, [official], choose_alpha_by="leave-one-out").results[0].pooled.srocc > 0.8
    )


def test_a_note_of_many_subsets_is_said_once():
    few, other = SimpleNamespace(notes=("2 images are too few",)), SimpleNamespace(notes=())
    results = [SimpleNamespace(pooled=other, subsets={f"kind {i}": few for i in range(7)})] * 3
    results += [SimpleNamespace(pooled=few, subsets={})]
    assert notes(SimpleNamespace(results=results, note=None)) == [
        "note: kind 0, kind 1, kind 2, kind 3, kind 4 and 3 more: 2 images are too few (in up to 3 of 4 splits)"
    ]
