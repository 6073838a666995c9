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
from contrique_jax.probe.hidden import FARTHEST, LAYER_SHARE, Hidden
from contrique_jax.probe.spread import fit_spread_beside

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
    units, shifts = gelu(inside), np.array([1.0, -2.0])
    np.testing.assert_allclose(
        fitted.predict(x), units @ fitted.outputs + fitted.intercept + fitted.shifts[0], rtol=1e-4
    )
    kinds = np.random.default_rng(2).normal(size=(2, 64)) / 64
    apart = np.random.default_rng(3).normal(size=(2, 64))
    two = dataclasses.replace(fitted, kinds=kinds, kind_offsets=np.array([0.3, 0.1]), apart=apart, shifts=shifts)
    odds = np.exp(units @ kinds.T + [0.3, 0.1])
    share = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(two.likeness(x), share, rtol=1e-4)
    of_kinds = np.sum(share * (units @ apart.T + shifts), axis=1)
    np.testing.assert_allclose(two.predict(x), units @ fitted.outputs + fitted.intercept + of_kinds, rtol=1e-4)
    more = two.with_shifts(shifts).predict(x) - two.predict(x)
    np.testing.assert_allclose(LAYER_SHARE * more, (1 - LAYER_SHARE) * share @ shifts, rtol=1e-3, atol=1e-5)


def test_what_tells_kinds_apart_is_not_taken_for_quality(images):
    """Two kinds that one feature tells apart, of which one is judged far higher; within each, that feature means nothing."""
    (x, y), (new, wanted) = images, drawn(400, 1)
    ours, theirs = np.arange(len(y)) % 2, np.arange(400) % 2
    x, new = (rows + np.outer(kind * 3, ALONG[4]) for rows, kind in ((x, ours), (new, theirs)))
    jitter = np.random.default_rng(5).normal(size=400)  # as large as the difference of the kinds, within each
    moved = new + np.outer(jitter, ALONG[4])
    blind = fit_hidden(x, y + 4 * ours, width=64, epochs=EPOCHS)
    told = fit_hidden(x, y + 4 * ours, kinds=["ab"[kind] for kind in ours], width=64, epochs=EPOCHS)
    within = [
        np.mean([correlate(layer.predict(moved)[theirs == kind], wanted[theirs == kind]).srocc for kind in (0, 1)])
        for layer in (blind, told)
    ]
    assert (told.likeness(new).argmax(axis=1) == theirs).mean() > 0.95
    assert 3 < told.shifts[1] - told.shifts[0] < 5
    assert correlate(told.predict(new), wanted + 4 * theirs).srocc > 0.9
    assert within[1] > within[0] + 0.05, within


def test_what_people_look_for_in_one_kind_alone_counts_there(images):
    """Two kinds that one feature tells apart; in the second, another quality is what counts."""
    (x, y), (new, wanted) = images, drawn(400, 1)
    ours, theirs = np.arange(len(y)) % 2, np.arange(400) % 2
    x, new = (rows + np.outer(kind, ALONG[4]) for rows, kind in ((x, ours), (new, theirs)))
    other, wanted_other = (rows @ np.linalg.pinv(ALONG)[:, 2] for rows in (x, new))
    y, wanted = np.where(ours, other, y), np.where(theirs, wanted_other, wanted)
    layer = fit_hidden(x, y, kinds=["ab"[kind] for kind in ours], width=64, epochs=EPOCHS)
    taken_for = [
        dataclasses.replace(layer, kind_offsets=np.array([99.0, -99.0]) * sign).predict(new) for sign in (1, -1)
    ]
    for kind, least in ((0, 0.03), (1, 0.005)):
        right, wrong = (correlate(taken_for[k][theirs == kind], wanted[theirs == kind]).srocc for k in (kind, 1 - kind))
        assert right > 0.75 and right > wrong + least, (kind, right, wrong)


def test_opinions_of_less_weight_move_it_less(images):
    """Half of the opinions say the opposite."""
    (x, y), (new, wanted) = images, drawn(400, 1)
    against = np.arange(len(y)) % 2 == 0
    told = np.where(against, 2 * y.mean() - y, y)
    first, second = (
        fit_hidden(x, told, width=64, epochs=EPOCHS, weights=np.where(against == flip, 1.0, 0.1))
        for flip in (False, True)
    )
    assert correlate(first.predict(new), wanted).srocc > 0.8
    assert correlate(second.predict(new), wanted).srocc < -0.8


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
        (features, scores[1:], None, "do not fit"),
        (features, scores, Copies(few[:, 1:], np.arange(3), np.arange(3), np.ones(3)), f"{WIDTH} numbers"),
        (features, scores, Copies(few, np.arange(3), np.arange(3), -np.ones(3)), "0 or more"),
    ):
        with pytest.raises(UserError, match=says):
            fit_hidden(x, y, copies)
    for weights in (np.ones(3), np.zeros(len(scores)), np.full(len(scores), np.nan)):
        with pytest.raises(UserError, match="a weight above 0"):
            fit_hidden(features, scores, weights=weights)


def test_a_probe_with_it_scores_by_both_and_keeps_it(images, fitted, tmp_path):
    probe, (features, _) = probe_of(fitted), images
    np.testing.assert_allclose(probe.linear(features), features.sum(axis=1) + 1)
    np.testing.assert_allclose(probe.predict(features), (features.sum(axis=1) + 1 + 3 * fitted.predict(features)) / 4)
    probe.save(tmp_path / "p.npz")
    np.testing.assert_array_equal(load_probe(tmp_path / "p.npz").predict(features), probe.predict(features))
    with pytest.raises(UserError, match="NaN"):
        probe.predict(np.full((1, WIDTH), np.nan))


def test_its_kinds_and_score_tell_which_images_are_hard(images, fitted, tmp_path):
    """A spread of what the layer says of each image, which the probe tells it."""
    (x, y), random = images, np.random.default_rng(8)
    kinds = np.array([0.0, 4.0])[:, None] * np.ones((2, 64)) / 64
    two = dataclasses.replace(
        fitted, kinds=kinds.astype(np.float32), kind_offsets=np.zeros(2), apart=np.zeros((2, 64)), shifts=np.zeros(2)
    )
    probe = probe_of(two)
    likeness = two.likeness(x)[:, 0]
    noisy = probe.predict(x) + np.where(likeness > np.median(likeness), 1.0, 0.1) * random.standard_normal(len(y))
    spread = fit_spread_beside(probe.beside(x), noisy, width=WIDTH)
    dataclasses.replace(probe, spread=spread).save(tmp_path / "p.npz")
    deviations = load_probe(tmp_path / "p.npz").deviations(x)
    assert np.median(deviations[likeness > np.quantile(likeness, 0.7)]) > 3 * np.median(
        deviations[likeness < np.quantile(likeness, 0.3)]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.ones((64, WIDTH + 1), np.float16)},
        {"weights": np.full((64, WIDTH), np.inf, np.float16)},
        {"offsets": np.zeros(3, np.float32)},
        {"outputs": np.full(64, np.nan, np.float32)},
        {"shifts": np.zeros(2, np.float32)},
        {"kinds": np.zeros((0, 64)), "apart": np.zeros((0, 64)), "kind_offsets": np.zeros(0), "shifts": np.zeros(0)},
        {"apart": np.zeros((1, 65), np.float32)},
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
