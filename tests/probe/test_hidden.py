"""A probe's hidden layer: what it learns that a ridge cannot, what copies teach it, and its place in a probe's file."""

from __future__ import annotations

import argparse
import dataclasses
import math

import numpy as np
import pytest

from contrique_jax.convert import sklearn_probe
from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.falls import fit_with_falls
from contrique_jax.probe.fit_hidden import ROWS, Copies, fit_hidden
from contrique_jax.probe.hidden import FARTHEST, Hidden

WIDTH, EPOCHS = 120, 60  # features; for so few images
ALONG = np.random.default_rng(9).standard_normal((5, WIDTH)) / np.sqrt(5)  # features of what a photograph is like


def bent(latent: np.ndarray) -> np.ndarray:
    """A quality whose best is in the middle, as sharpness has too little and too much."""
    return 3 - np.abs(latent[:, 0]) + 0.5 * latent[:, 1]


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and scores; the last of what photographs are like is the same in all."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((count, 5)) * [1, 1, 1, 1, 0]
    return latent @ ALONG + 0.1 * rng.standard_normal((count, WIDTH)), bent(latent)


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return drawn(1200, 0)


@pytest.fixture(scope="module")
def fitted(images) -> Hidden:
    return fit_hidden(*images, width=64, epochs=EPOCHS)


def probe_of(hidden: Hidden | None) -> Probe:
    return Probe(
        coefficients=np.ones(WIDTH), intercept=1.0, alpha=1.0, feature_name=NO_REFERENCE, model_hash="m", data_set="s",
        score_low=0.0, score_high=5.0, higher_is_better=True, hidden=hidden,
    )  # fmt: skip


def test_it_learns_what_a_ridge_cannot(images, fitted):
    new, wanted = drawn(400, 1)
    ridge = fit_with_falls(*images, np.array([1.0]))
    linear = correlate(new @ ridge.coefficients + ridge.intercept, wanted).srocc
    assert correlate(fitted.predict(new), wanted).srocc > 0.9 > 0.75 > linear
    assert np.abs(fitted.predict(new).mean() - wanted.mean()) < 0.2, "in units of the scores"


def test_it_is_the_formula_of_its_docstring(fitted):
    x = np.random.default_rng(1).standard_normal((3, WIDTH)) * [[1], [3], [1e6]]
    z = np.clip((x - fitted.centre) / fitted.deviation, -FARTHEST, FARTHEST)
    inside = z @ fitted.weights.astype(float).T + fitted.offsets
    gelu = np.vectorize(lambda value: value * (1 + math.erf(value / math.sqrt(2))) / 2)
    np.testing.assert_allclose(fitted.predict(x), gelu(inside) @ fitted.outputs + fitted.intercept, rtol=1e-4)


def test_far_away_it_stays_near_the_scores_it_knows(fitted, images):
    scores = images[1]
    found = fitted.predict(np.array([[1e30] * WIDTH, [-1e30] * WIDTH]))
    assert (np.abs(found - scores.mean()) < 40 * scores.std()).all()


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_copies_teach_a_direction_that_opinions_do_not_show(images, higher_is_better):
    """In what is the same in all photographs with opinions; copies that have more of it are worse."""
    photographs, (new, _) = drawn(200, 2)[0], drawn(100, 3)
    both = np.concatenate([photographs, photographs + ALONG[4]])
    copies = Copies(both, np.arange(200), np.arange(200, 400), np.full(200, 0.8))
    taught = fit_hidden(*images, copies, width=64, epochs=EPOCHS, fall_weight=0.1, higher_is_better=higher_is_better)
    change = (taught.predict(new + ALONG[4]) - taught.predict(new)) * (-1 if higher_is_better else 1)
    assert (change > 0).mean() > 0.95 and 0.4 < np.median(change) < 1.2
    untaught = fit_hidden(*images, width=64, epochs=EPOCHS)
    assert np.abs(np.median(untaught.predict(new + ALONG[4]) - untaught.predict(new))) < 0.2


def test_it_is_the_same_each_time(images):
    first, again, other = (fit_hidden(images[0][:300], images[1][:300], width=8, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights != other.weights).any()


def test_bad_rows_are_one_sentence(images):
    (features, scores), few = images, images[0][: ROWS - 1]
    for x, y, copies, says in (
        (few, scores[: ROWS - 1], None, "fit a ridge"),
        (features, np.ones(len(scores)), None, "every score is the same"),
        (features, np.where(np.arange(len(scores)) == 3, np.nan, scores), None, "NaN"),
        (features, scores, Copies(few[:, 1:], np.arange(3), np.arange(3), np.ones(3)), f"{WIDTH} numbers"),
        (features, scores, Copies(few, np.arange(3), np.arange(3), -np.ones(3)), "0 or more"),
    ):
        with pytest.raises(UserError, match=says):
            fit_hidden(x, y, copies)


def test_a_probe_with_it_scores_the_mean_of_both_and_keeps_it(images, fitted, tmp_path):
    probe, (features, _) = probe_of(fitted), images
    np.testing.assert_allclose(probe.linear(features), features.sum(axis=1) + 1)
    np.testing.assert_allclose(probe.predict(features), (features.sum(axis=1) + 1 + fitted.predict(features)) / 2)
    probe.save(tmp_path / "p.npz")
    np.testing.assert_array_equal(load_probe(tmp_path / "p.npz").predict(features), probe.predict(features))
    with pytest.raises(UserError, match="NaN"):
        probe.predict(np.full((1, WIDTH), np.nan))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.ones((64, WIDTH + 1), np.float16)},
        {"weights": np.full((64, WIDTH), np.inf, np.float16)},
        {"offsets": np.zeros(3, np.float32)},
        {"outputs": np.full(64, np.nan, np.float32)},
        {"deviation": np.zeros(WIDTH, np.float32)},
        {"centre": np.array(["a"] * WIDTH)},
    ],
)
def test_a_damaged_layer_is_one_sentence(fitted, change, tmp_path):
    probe_of(dataclasses.replace(fitted, **change)).save(tmp_path / "p.npz")
    with pytest.raises(UserError, match="its hidden is damaged"):
        load_probe(tmp_path / "p.npz")


def test_it_is_no_ridge_of_another_library(fitted, tmp_path):
    probe_of(fitted).save(tmp_path / "p.npz")
    told = argparse.Namespace(probe=str(tmp_path / "p.npz"), out=str(tmp_path / "r.json"), pickle=False)
    with pytest.raises(UserError, match="which no Ridge has"):
        sklearn_probe.probe_to_sklearn(told)
    assert not (tmp_path / "r.json").exists()
