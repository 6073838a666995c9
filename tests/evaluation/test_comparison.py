"""Contenders on one data set: images of one group count once, whatever is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.evaluation.comparison import (
    Contender,
    ExtractedFeatures,
    ModelResult,
    compare_models,
    evaluate_all,
    median_intervals,
)
from contrique_jax.evaluation.correlation import correlate
from contrique_jax.evaluation.crossing import cross
from contrique_jax.evaluation.protocol import Evaluation, SplitResult, evaluate_features
from contrique_jax.evaluation.splits import Split, make_splits
from contrique_jax.probe.posterior import Calibration

COUNT = 40
CONTENDER = Contender("network", lambda side: pytest.fail("the features are there"))


def scored(scores, copies=1):
    """Each image `copies` times, the copies of one a group."""
    names = [f"g{i:02}" for i in range(len(scores)) for _ in range(copies)]
    paths = [Path(f"{name}_{i % copies}.png") for i, name in enumerate(names)]
    return ScoredImages("set", Path(), paths, np.repeat(scores, copies), names, None, None, "mos", True)


def model_result(images, predictions, tests, copies=1):
    """One whose predictions of the images `tests` are those given."""
    results = []
    for test in tests:
        rows = (np.asarray(test)[:, None] * copies + np.arange(copies)).ravel()
        values = np.repeat(predictions[test], copies)
        pooled = correlate(values, images.scores[rows])
        split = Split(np.arange(0), np.arange(0), rows)
        results.append(SplitResult(split, pooled, {}, values, np.ones(len(rows)), 0.9, {}, 100))
    return ModelResult("network", "", None, Evaluation(1.0, 0.5, 1.0, Calibration(1.0, 0.0), "validation", results))


def ends(interval):
    assert interval.low < interval.value < interval.high
    return [interval.value, interval.low, interval.high]


@pytest.fixture
def planted():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=COUNT)
    return scores, *(scores + noise * rng.normal(size=COUNT) for noise in (0.5, 1.5))


def test_copies_of_an_image_do_not_narrow_the_medians_intervals(planted):
    scores, predictions, _ = planted
    tests = [np.random.default_rng(i).permutation(COUNT)[:30] for i in range(3)]
    alone, copied = (
        median_intervals(model_result(images, predictions, tests, copies), images)
        for copies, images in ((1, scored(scores)), (4, scored(scores, 4)))
    )
    assert ends(copied["srocc"]) == pytest.approx(ends(alone["srocc"]))
    for number in ("plcc", "rmse"):  # of a curve that is fitted anew; without the groups they are half as wide
        assert np.ptp(ends(copied[number])) == pytest.approx(np.ptp(ends(alone[number])), rel=0.25)


def test_copies_of_an_image_do_not_narrow_a_difference_over_one_split(planted):
    scores, *predictions = planted
    tests = [np.random.default_rng(1).permutation(COUNT)[:30]]
    alone, copied = (
        compare_models(*(model_result(images, values, tests, copies) for values in predictions), images)
        for copies, images in ((1, scored(scores)), (4, scored(scores, 4)))
    )
    assert alone.splits == copied.splits == 1 and alone.low < alone.mean < alone.high
    assert [copied.mean, copied.low, copied.high] == pytest.approx([alone.mean, alone.low, alone.high])


def test_copies_of_an_image_do_not_narrow_the_interval_on_another_set(planted):
    scores, _, _ = planted
    rng = np.random.default_rng(1)
    features, others = rng.normal(size=(2, COUNT, 5)) + scores[:, None]
    own = ExtractedFeatures(scored(scores), list(range(COUNT)), "", features)
    fitted = model_result(own.images, scores, [np.arange(COUNT)])
    alone, copied = (
        cross(CONTENDER, fitted, own, ExtractedFeatures(images, [], "", np.repeat(others, copies, axis=0)))
        for copies, images in ((1, scored(scores)), (4, scored(scores, 4)))
    )
    assert ends(copied.interval) == pytest.approx(ends(alone.interval))


def test_copies_of_an_image_do_not_choose_the_alpha(planted):
    scores, _, _ = planted
    images = scored(scores, 4)
    features = np.repeat(np.random.default_rng(1).normal(size=(COUNT, 60)) + 0.3 * scores[:, None], 4, axis=0)
    splits = make_splits(images.groups, 3, 0)
    (network, _) = evaluate_all([CONTENDER], [ExtractedFeatures(images, [], "", features)], splits, "leave-one-out")
    with_groups, without = (
        evaluate_features(features, images.scores, splits, choose_alpha_by="leave-one-out", groups=groups).alpha
        for groups in (images.groups, None)
    )
    assert network.evaluation.alpha == with_groups > 10 * without
