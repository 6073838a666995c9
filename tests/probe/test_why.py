"""Kinds and levels of distortions from features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from contrique_jax.errors import UserError
from contrique_jax.probe.why import Rows, Why, fit_why

LinearDiscriminantAnalysis = pytest.importorskip("sklearn.discriminant_analysis").LinearDiscriminantAnalysis
KINDS = 4


def rows(seed: int, photographs: int = 60) -> Rows:
    """Each photograph undistorted and under each kind at a level, which moves its content along the kind's direction."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(KINDS + 1, 20))
    content = random.normal(size=(photographs, 1, 20)) * np.linspace(0.2, 2, 20)
    kinds = np.tile(np.arange(KINDS + 1), photographs)
    levels = np.where(kinds > 0, random.integers(1, 6, len(kinds)), 0)
    x = content.repeat(KINDS + 1, axis=1).reshape(-1, 20) + 0.7 * levels[:, None] * directions[kinds]
    names = np.arange(photographs).repeat(KINDS + 1)
    return Rows(x + 0.1 * random.normal(size=x.shape), kinds, levels, [str(name) for name in names])


@pytest.fixture(scope="module")
def contents():
    return np.random.default_rng(5).normal(size=(300, 20)) * np.linspace(0.2, 2, 20)


@pytest.fixture(scope="module")
def why(contents):
    return fit_why(rows(0), contents, model_hash="abc")


def test_kinds_are_those_of_discriminant_analysis(contents):
    """scikit-learn's, shrunk by the same amount, priors equal; where no row is so far out that it is held back."""
    few = rows(0)
    mean, deviation = contents.mean(axis=0), contents.std(axis=0)
    mine = fit_why(few, contents, share=0.0, shrinkage=0.25)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2, priors=np.full(KINDS + 1, 1 / (KINDS + 1)))
    z = np.clip((few.features - mean) / deviation, -8, 8)
    fresh = np.clip((rows(1).features - mean) / deviation, -8, 8)
    # its covariance is the classes' weighted mean, shrunk class by class: the same for classes of one size but for each trace
    expected = theirs.fit(z, few.kinds).predict(fresh)
    assert np.mean(mine.judge(rows(1).features)[0].argmax(axis=1) == expected) > 0.97


def test_levels_are_those_of_a_ridge_that_spares_what_photographs_differ_by(contents):
    """scikit-learn's, on features stretched so that its one penalty is both of ours."""
    ridge = pytest.importorskip("sklearn.linear_model").Ridge
    few, fresh = rows(0), rows(1).features
    mine = fit_why(few, contents, penalty=0.2, natural_penalty=0.6)
    z, new, natural = (
        np.clip((x - contents.mean(axis=0)) / contents.std(axis=0), -8, 8) for x in (few.features, fresh, contents)
    )
    around = np.cov(natural.T)
    stretch = np.linalg.inv(np.linalg.cholesky(0.2 * np.eye(20) + 0.6 * around * 20 / np.trace(around))).T
    for kind in range(1, KINDS + 1):
        own = (few.kinds == kind) | (few.kinds == 0)
        variance = len(z[own]) * np.mean(np.var(z[own], axis=0))
        theirs = ridge(alpha=variance).fit(z[own] @ stretch, few.levels[own])
        expected = np.clip(theirs.predict(new @ stretch), 0, 5)
        np.testing.assert_allclose(mine.judge(fresh)[1][:, kind], expected, atol=1e-3)


def test_new_photographs_are_judged_and_probabilities_mean_what_they_say(why):
    fresh = rows(1, 200)
    probabilities, levels = why.judge(fresh.features)
    strong = fresh.levels >= 3
    right = probabilities.argmax(axis=1) == fresh.kinds
    assert right[strong].mean() > 0.95 and right[fresh.kinds == 0].mean() > 0.8
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.06)
    for kind in range(1, KINDS + 1):
        own = fresh.kinds == kind
        assert spearmanr(levels[own, kind], fresh.levels[own])[0] > 0.8
    assert levels.min() >= 0 and levels.max() <= 5 and not levels[:, 0].any()


def test_it_comes_back_from_its_file(why, tmp_path):
    why.save(tmp_path / "why.npz")
    loaded = Why.load(tmp_path / "why.npz")
    assert loaded.model_hash == "abc"
    for mine, theirs in zip(why.judge(rows(1).features), loaded.judge(rows(1).features), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_it_is_the_same_each_time(why, contents):
    again = fit_why(rows(0), contents, model_hash="abc")
    for name, value in vars(why).items():
        np.testing.assert_array_equal(value, getattr(again, name))


def test_bad_input_is_one_sentence(why, contents, tmp_path):
    with pytest.raises(UserError, match="20"):
        why.judge(np.zeros((2, 19)))
    with pytest.raises(UserError, match="NaN"):
        why.judge(np.full((1, 20), np.nan))
    with pytest.raises(UserError, match="photographs"):
        fit_why(rows(0, 3), contents)
    with pytest.raises(UserError, match="every row"):
        Rows(np.zeros((3, 2)), np.zeros(3), np.zeros(3), ["a", "b"])
    with pytest.raises(UserError, match="every kind"):
        Rows(np.zeros((2, 2)), np.array([0, 2]), np.zeros(2), ["a", "b"])
    path = tmp_path / "why.npz"
    with pytest.raises(UserError, match="no such"):
        Why.load(path)
    why.save(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 397):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            Why.load(path)
    dataclasses.replace(why, kind_offsets=np.zeros(2)).save(path)
    with pytest.raises(UserError, match="damaged"):
        Why.load(path)
