"""Scoring that is interrupted goes on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contrique_jax import features, score
from contrique_jax.errors import run_verb
from contrique_jax.inference import kept
from contrique_jax.inference.extractor import Extractor
from contrique_jax.training.load import load_network
from tests.planted import probe_of, read_csv, tiny_model


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model/, images/ of one size, and probe.npz."""
    folder = tmp_path_factory.mktemp("kept")
    extractor = Extractor(*load_network(str(tiny_model(folder / "model"))))
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
    probe_of(extractor, rng).save(folder / "probe.npz")
    return folder


def interrupted_after(monkeypatch, count):
    """Ctrl-C when so many are kept; files that were looked at are counted."""
    add, seen = kept.Parts.add, []

    def once_too_often(self, key, record):
        if len(seen) == count:
            raise KeyboardInterrupt
        seen.append(key)
        add(self, key, record)

    monkeypatch.setattr(kept.Parts, "add", once_too_often)
    return seen


def test_an_interrupted_score_goes_on_and_ends_as_if_nothing_had_been(place, tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "s.csv", tmp_path / "whole.csv"
    line = ["--model", place / "model", "--probe", place / "probe.npz", place / "images", "--out"]
    assert run_verb(score.main, [*map(str, line), str(whole)]) == 0
    with monkeypatch.context() as patch:
        interrupted_after(patch, 3)
        assert run_verb(score.main, [*map(str, line), str(out)]) == 130
    assert not out.exists() and "3 results so far are kept" in capsys.readouterr().err
    other = [*map(str, line), str(out), "--max-megapixels", "3"]
    assert run_verb(score.main, other) == 2
    assert "was begun with --max-megapixels 16" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        seen = interrupted_after(patch, 99)
        assert run_verb(score.main, [*map(str, line), str(out)]) == 0
    assert len(seen) == 2 and out.read_text() == whole.read_text() and not list(tmp_path.glob("*.partial"))
    assert len(read_csv(out)) == 6


def test_interrupted_features_go_on(place, tmp_path, monkeypatch):
    out = tmp_path / "f.npz"
    line = ["--model", str(place / "model"), "--images", str(place / "images"), "--out", str(out)]
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        assert run_verb(features.main, line) == 130
    seen = interrupted_after(monkeypatch, 99)
    assert run_verb(features.main, line) == 0 and len(seen) == 3
    extractor = Extractor(*load_network(str(place / "model")))
    _, wanted, _ = extractor.from_files(sorted((place / "images").iterdir()))
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["features"], wanted, atol=2e-6)
