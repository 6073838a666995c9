"""Ridges that see degraded copies beside opinions."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.probe.falls import Falls, fit_with_falls

Ridge = pytest.importorskip("sklearn.linear_model").Ridge
ALPHAS = np.array([0.3, 3.0, 30.0])


@pytest.fixture
def opinions():
    """40 images of 12 features on different scales, and their scores."""
    random = np.random.default_rng(0)
    x = random.normal(3, 1, (40, 12)) * np.geomspace(0.01, 100, 12)
    return x, x / x.std(axis=0) @ random.normal(size=12) + random.normal(size=40)


@pytest.fixture
def falls():
    random = np.random.default_rng(1)
    return Falls(random.normal(0.5, 1, (30, 12)) * np.geomspace(0.01, 100, 12), random.uniform(0, 3, 30))


def test_without_copies_it_is_ridge_on_standardised_features(opinions):
    x, y = opinions
    found = fit_with_falls(x, y, ALPHAS[1:2])
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(x @ found.coefficients + found.intercept, Ridge(alpha=3).fit(z, y).predict(z), rtol=1e-9)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_it_solves_the_least_squares_that_it_names(opinions, falls, higher_is_better):
    """As rows of one system: opinions with an intercept, weighted differences without, the penalty."""
    x, y = opinions
    found = fit_with_falls(x, y, ALPHAS[1:2], falls, weight=0.4, higher_is_better=higher_is_better)
    deviation = x.std(axis=0)
    z, d = (x - x.mean(axis=0)) / deviation, falls.differences / deviation
    left = np.block(
        [[z, np.ones((40, 1))], [np.sqrt(0.4) * d, np.zeros((30, 1))], [np.sqrt(3) * np.eye(12), np.zeros((12, 1))]]
    )
    change = -falls.falls if higher_is_better else falls.falls
    solution = np.linalg.lstsq(left, np.concatenate([y, np.sqrt(0.4) * change, np.zeros(12)]), rcond=None)[0]
    np.testing.assert_allclose(found.coefficients * deviation, solution[:12], rtol=1e-8)
    np.testing.assert_allclose(x @ found.coefficients + found.intercept, z @ solution[:12] + solution[12], rtol=1e-8)


def test_what_is_held_out_is_what_a_fit_without_the_group_predicts(opinions, falls):
    x, y = opinions
    groups = [str(i // 4) for i in range(40)]
    found = fit_with_falls(x, y, ALPHAS[1:2], falls, weight=0.4, groups=groups)
    deviation = x.std(axis=0)
    d = falls.differences / deviation
    for group in ("0", "7"):
        out = np.array(groups) == group
        z = x / deviation
        centred, mean = z[~out] - z[~out].mean(axis=0), y[~out].mean()
        gram = centred.T @ centred + 0.4 * d.T @ d + 3 * np.eye(12)
        w = np.linalg.solve(gram, centred.T @ (y[~out] - mean) - 0.4 * d.T @ falls.falls)
        direct = (z[out] - z[~out].mean(axis=0)) @ w + mean
        np.testing.assert_allclose(found.held_out[out], direct, rtol=1e-8)


def test_with_kinds_every_kind_has_an_intercept_of_its_own(opinions, falls):
    """The least squares with a column for each kind, and what is held out is what such a fit without the group predicts."""
    x, y = opinions
    kinds, groups = ["web"] * 13 + ["own"] * 27, [str(i // 4) for i in range(40)]
    y = y + 5 * (np.array(kinds) == "web")
    found = fit_with_falls(x, y, ALPHAS[1:2], falls, weight=0.4, groups=groups, kinds=kinds)
    deviation = x.std(axis=0)
    z, d = x / deviation, falls.differences / deviation
    columns = np.array([[kind == "own", kind == "web"] for kind in kinds], float)

    def direct(rows):
        """What a fit on these rows predicts of all."""
        left = np.block(
            [
                [z[rows], columns[rows]],
                [np.sqrt(0.4) * d, np.zeros((30, 2))],
                [np.sqrt(3) * np.eye(12), np.zeros((12, 2))],
            ]
        )
        solution = np.linalg.lstsq(
            left, np.concatenate([y[rows], -np.sqrt(0.4) * falls.falls, np.zeros(12)]), rcond=None
        )[0]
        return np.hstack([z, columns]) @ solution

    whole = columns @ found.shifts
    np.testing.assert_allclose(x @ found.coefficients + found.intercept + whole, direct(np.arange(40)), rtol=1e-8)
    for group in ("0", "3", "7"):  # the second is of both kinds
        out = np.array(groups) == group
        np.testing.assert_allclose((found.held_out + whole)[out], direct(np.flatnonzero(~out))[out], rtol=1e-8)
    assert found.shifts[1] - found.shifts[0] > 3


@pytest.mark.parametrize("alone", [1, 4])
def test_what_is_all_of_its_kind_is_foretold_by_no_other(opinions, alone):
    """An image, or a group: numbers near its own scores all the same."""
    x, y = opinions
    kinds, groups = ["lone"] * alone + ["others"] * (40 - alone), ["one"] * alone + [str(i) for i in range(40 - alone)]
    found = fit_with_falls(x, y, ALPHAS[1:2], kinds=kinds, groups=groups)
    foretold = found.held_out + found.shifts[(np.arange(40) >= alone).astype(int)]
    assert np.abs(foretold - y).max() < 5 * y.std()


def test_the_penalty_is_the_one_that_predicts_groups_left_out_best(opinions):
    x, y = opinions
    errors = [np.mean((fit_with_falls(x, y, np.array([alpha])).held_out - y) ** 2) for alpha in ALPHAS]
    assert fit_with_falls(x, y, ALPHAS).alpha == ALPHAS[np.argmin(errors)]


def test_copies_teach_a_direction_that_opinions_do_not_show():
    """A feature that never varies among the images that have opinions, but for noise, and rises as copies get worse."""
    random = np.random.default_rng(2)
    x = random.normal(size=(200, 3))
    y = x[:, 0]
    step = np.zeros((60, 3))
    step[:, 2] = random.integers(1, 6, 60)
    blind = fit_with_falls(x, y, ALPHAS[:1])
    taught = fit_with_falls(x, y, ALPHAS[:1], Falls(step, 0.1 * step[:, 2]), weight=1)
    assert abs(blind.coefficients[2]) < 0.01 and taught.coefficients[2] < -0.06
    assert taught.coefficients[0] == pytest.approx(1, abs=0.02)


def test_bad_rows_are_one_sentence(opinions, falls):
    x, y = opinions
    with pytest.raises(UserError, match="0 or more"):
        fit_with_falls(x, y, ALPHAS, falls._replace(falls=-falls.falls))
    with pytest.raises(UserError, match="11 features"):
        fit_with_falls(x, y, ALPHAS, falls._replace(differences=falls.differences[:, 1:]))
    with pytest.raises(UserError, match="NaN"):
        fit_with_falls(x, y, ALPHAS, falls._replace(falls=np.full(30, np.nan)))
    with pytest.raises(UserError, match="39 kinds for 40 images"):
        fit_with_falls(x, y, ALPHAS, kinds=["one"] * 39)
    with pytest.raises(UserError, match="2 at least"):
        fit_with_falls(x, y, ALPHAS, groups=["one"] * 40)
