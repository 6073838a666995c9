"""The command `evaluate` on photographs with a planted quality."""

from __future__ import annotations

import json

import numpy as np
import pytest

from contrique_jax import evaluate
from contrique_jax.errors import run_verb
from contrique_jax.features import Extractor
from contrique_jax.networks import load_network
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, load_probe
from tests.planted import read_csv, tiny_model, write_csv, write_images


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with model/, images/ and a cache that later tests find filled."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder / "model")
    write_images(folder / "images")
    return folder


def run(place, *more, scores="scores.csv", code=0):
    arguments = ["--model", str(place / "model"), "--scores", str(place / "images" / scores), "--splits", "6"]
    assert run_verb(evaluate.main, [*arguments, "--features-cache", str(place / "cache"), *map(str, more)]) == code


def test_planted_quality_is_found_saved_and_the_same_the_second_time(place, tmp_path, capsys, monkeypatch):
    out, probe = tmp_path / "r.json", tmp_path / "p.npz"
    run(place, "--out", out, "--probe", probe, "--dataset", "blurred")
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (
        found["srocc"] > 0.8
        and found["plcc"] > 0.8
        and found["srocc"] == np.median([s["srocc"] for s in found["splits"]])
    )
    assert len(found["splits"]) == 6 and set(found["subsets"]) == {"a", "b"} == set(found["splits"][0]["subsets"])
    first = found["splits"][0]
    assert (first["train"], first["validation"], first["test"]) == (34, 4, 10)
    assert found["control"]["srocc"] == found["srocc"]  # the tiny model is the same random network
    assert found["images"] == 48 and found["groups"] == 24 and found["higher_is_better"] is True
    assert "blurred: 48 images, 24 groups, 6 splits" in said and "random weights" in said and "higher is better" in said

    extractor = Extractor(*load_network(str(place / "model")))
    fitted = load_probe(probe)
    fitted.check_model(extractor.model_hash, extractor.width)
    assert (fitted.feature_name, fitted.data_set, fitted.alpha) == (NO_REFERENCE, "blurred", found["alpha"])
    assert fitted.deviation == pytest.approx(found["deviation"]) and 0 < fitted.deviation < 1

    monkeypatch.setattr(Extractor, "_load", lambda *_: pytest.fail("the features were kept"))
    run(place, "--out", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["splits"] == found["splits"]
    run(place, "--out", tmp_path / "other.json", "--seed", 1, "--no-control")
    other = json.loads((tmp_path / "other.json").read_text())
    assert other["splits"] != found["splits"] and other["control"] is None


def test_a_changed_file_is_computed_again(place, monkeypatch):
    seen = []
    original = Extractor._load
    monkeypatch.setattr(Extractor, "_load", lambda self, path: seen.append(path) or original(self, path))
    run(place, "--no-control")
    seen.clear()
    image = place / "images" / "image3_1.png"
    image.write_bytes(image.read_bytes() + b"\0")
    run(place, "--no-control")
    assert seen == [image]


def test_an_interrupted_run_keeps_what_it_has_done(place, tmp_path, monkeypatch):
    seen = []
    original = Extractor.stream

    def interrupted(self, paths):
        for i, item in enumerate(original(self, paths)):
            if i == 10:
                raise KeyboardInterrupt
            yield item

    more = ("--no-control", "--features-cache", tmp_path / "cache")
    monkeypatch.setattr(Extractor, "stream", interrupted)
    run(place, *more, code=130)
    monkeypatch.setattr(Extractor, "stream", lambda self, paths: seen.extend(paths) or original(self, paths))
    run(place, *more)
    assert len(seen) == 38


def test_a_damaged_cache_is_no_harm(place, tmp_path):
    run(place, "--no-control", "--out", tmp_path / "a.json")
    for kept in (place / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:1000])
    run(place, "--no-control", "--out", tmp_path / "b.json")
    a, b = (json.loads((tmp_path / name).read_text())["srocc"] for name in ("a.json", "b.json"))
    assert a == pytest.approx(b, abs=1e-9)


def test_full_reference_reads_the_difference(place, tmp_path, capsys):
    out, probe = tmp_path / "r.json", tmp_path / "p.npz"
    run(place, "--reference-column", "reference", "--no-control", "--out", out, "--probe", probe)
    found = json.loads(out.read_text())
    assert found["mode"] == "full-reference" and found["srocc"] > 0.8 and found["groups"] == 24
    assert load_probe(probe).feature_name == FULL_REFERENCE


def test_broken_images_are_left_out_and_named(place, tmp_path, capsys):
    rows = read_csv(place / "images" / "scores.csv")
    (place / "images" / "broken.png").write_bytes(b"\x89PNG nonsense")
    write_csv(place / "images" / "more.csv", [*rows, ["broken.png", "3", "a", "g99", "sharp0.png"]])
    run(place, "--no-control", "--out", tmp_path / "r.json", scores="more.csv")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["images"] == 48 and found["images_left_out"] == 1
    assert "broken.png" in capsys.readouterr().err


def test_mistakes_are_one_sentence_and_leave_nothing(place, tmp_path, capsys):
    rows = read_csv(place / "images" / "scores.csv")
    write_csv(place / "images" / "few.csv", rows[:9])
    for more, scores, says in [
        ((), "few.csv", "4 groups cannot be split"),
        (("--score-column", "x"), "scores.csv", "no column 'x'"),
        (("--splits", "0"), "scores.csv", "--splits must be"),
        (("--out", tmp_path / "no" / "r.json"), "scores.csv", "does not exist"),
        (("--model", tmp_path / "nothing"), "scores.csv", "nothing is no folder"),
        (("--probe", tmp_path / "p.txt"), "scores.csv", "should end in .npz"),
    ]:
        run(place, *more, scores=scores, code=2)
        error = capsys.readouterr().err
        assert says in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
