"""The page holds everything itself, is well-formed, and says what was measured."""

from __future__ import annotations

import functools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from contrique_jax import evaluate
from contrique_jax.errors import run_verb
from contrique_jax.evaluation import comparison
from contrique_jax.evaluation.intervals import bootstrap_medians
from contrique_jax.evaluation.report import principal_plane
from tests.planted import tiny_model, write_images

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags close in order; keeps addresses and text."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.words, self.tags = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the page, the numbers) of a small data set with markup in its name, and the same command a second time."""
    folder = tmp_path_factory.mktemp("report")
    tiny_model(folder / "model")
    write_images(folder / "images")
    pages = []
    for name in ("a.html", "b.html"):
        line = ["--model", folder / "model", "--scores", folder / "images" / "scores.csv", "--splits", "3"]
        line += ["--dataset", "<b>mine</b> & theirs", "--report", folder / name, "--out", folder / "r.json"]
        line += ["--features-cache", folder / "cache", "--cross", folder / "images" / "scores.csv"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(comparison, "bootstrap_medians", functools.partial(bootstrap_medians, resamples=100))
            assert run_verb(evaluate.main, [str(word) for word in line]) == 0
        pages.append((folder / name).read_text(encoding="utf-8"))
    return pages, json.loads((folder / "r.json").read_text())


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_nothing_else(made):
    page = made[0][0]
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.addresses and all(address.startswith("data:image/jpeg;base64,") for address in reader.addresses)
    assert not re.search(r"https?:|url\(|@import|<script|<link", page)
    assert reader.tags.count("svg") == 4 and reader.tags.count("img") == 10 and len(page) < 400_000
    assert "<b>mine" not in page and "&lt;b&gt;mine&lt;/b&gt; &amp; theirs" in page
    assert "prefers-color-scheme: dark" in page and "nan" not in " ".join(reader.words).lower().split()


@pytest.mark.slow
def test_it_says_what_was_measured(made):
    (page, _), found = made
    assert f"SROCC {found['srocc']:.3f}" in page
    for shown in (found["splits_hash"], found["config_hash"], found["model_hash"], "hand-made statistics",
                  "random weights", "mean of the scores", f"{found['cross'][0]['srocc']:.3f}",
                  f"{found['spread']['plcc']['median']:.3f} ± {found['spread']['plcc']['std']:.3f}"):  # fmt: skip
        assert shown in page
    for number in ("srocc", "plcc", "rmse"):
        interval = found["intervals"][number]
        assert interval["value"] == pytest.approx(found[number], abs=1e-9)  # of what is reported
        assert f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]" in page


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_page(made):
    first, second = (page.replace("b.html", "a.html") for page in made[0])
    assert first == second


def test_the_plane_is_that_of_the_singular_values():
    rng = np.random.default_rng(0)
    for shape in ((40, 8), (8, 40)):
        x = rng.normal(size=shape) * np.linspace(3, 1, shape[1])
        places, shares = principal_plane(x)
        centred = x - x.mean(0)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(np.abs(places), np.abs(left[:, :2] * values[:2]), atol=1e-9)
        assert shares == pytest.approx(tuple(values[:2] ** 2 / np.sum(values**2)))
    assert principal_plane(np.array([[1.0], [2.0], [4.0]]))[0].shape == (3, 2)
