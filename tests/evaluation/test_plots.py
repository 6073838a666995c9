"""Plots are well-formed and put numbers where they belong."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from contrique_jax.evaluation import plots
from contrique_jax.evaluation.learning_curve import LearningCurve
from contrique_jax.evaluation.plots import Frame, feature_map, learning_curves, residual_boxes, scatter, ticks


def parsed(plot):
    return ElementTree.fromstring(f"<div>{plot}</div>")


def dots(plot, kind):
    path = next(e for e in parsed(plot).iter("path") if e.get("class") == f"dots {kind}")
    return np.array([[float(v) for v in re.findall(r"[\d.]+", part)[:2]] for part in path.get("d").split("M")[1:]])


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.02, 0.97), (-3e5, 7e4), (1, 1.0003), (99, 101)])
def test_ticks_are_round_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 6 and low <= found[0] and found[-1] <= high
    assert all(len(f"{tick:g}") <= 8 for tick in found)


def test_a_frame_maps_its_range_to_its_edges():
    frame = Frame((1, 100), (0, 10), log_x=True)
    np.testing.assert_allclose(frame.x(np.array([1, 10, 100])), [52, 230, 408])
    np.testing.assert_allclose(frame.y(np.array([0, 10])), [256, 10])


def test_every_point_is_drawn_once_and_higher_is_higher(monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=60)
    kinds = ["a<b", "c"] * 30
    plot = scatter(scores + 5, scores, kinds, lambda x: x - 5, "mos & more")
    first, second = dots(plot, "c0"), dots(plot, "c1")
    assert len(first) == len(second) == 30
    assert (np.argsort(first[:, 1]) == np.argsort(-scores[::2])).all()
    assert "a&lt;b" in plot and "mos &amp; more" in plot
    monkeypatch.setattr(plots, "MOST_POINTS", 20)
    assert len(dots(scatter(scores, scores, None, lambda x: x, "mos"), "c0")) == 20


def test_a_box_for_each_subset_and_one_for_all():
    rng = np.random.default_rng(0)
    plot = residual_boxes(rng.normal(size=90), [f"distortion number {i % 30:02}" for i in range(90)], "mos")
    words = [e.text for e in parsed(plot).iter("text")]
    assert "all (90)" in words and sum("(3)" in word for word in words) == 30
    assert len(list(parsed(plot).iter("rect"))) == 31
    assert len(list(parsed(residual_boxes(np.zeros(5), None, "mos")).iter("rect"))) == 1


def test_curves_leave_out_what_is_not_defined():
    curve = LearningCurve([10, 20, 50], [np.array([np.nan, np.nan]), np.array([0.2, 0.4]), np.array([0.5])])
    plot = learning_curves({"one": curve, "two": curve})
    line = next(e for e in parsed(plot).iter("path") if e.get("class") == "line c0")
    assert line.get("d").count("L") == 1 and "nan" not in plot
    assert "nan" not in learning_curves({"none": LearningCurve([10], [np.array([np.nan])])})


def test_the_map_colours_as_many_images_with_each_step():
    rng = np.random.default_rng(0)
    plot = feature_map(rng.normal(size=(80, 2)), np.arange(80.0), "mos")
    assert [len(dots(plot, f"s{i}")) for i in range(8)] == [10] * 8
    parsed(feature_map(rng.normal(size=(30, 2)), np.repeat([1.0, 2.0], 15), "mos"))
