"""The command `score`: every format, order, broken files, references."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from contrique_jax import score
from contrique_jax.data.sizes import to_shorter_side
from contrique_jax.errors import UserError, run_verb
from contrique_jax.inference import scores
from contrique_jax.inference.extractor import Extractor
from contrique_jax.probe import FULL_REFERENCE, load_probe
from contrique_jax.probe.posterior import Calibration, fit_posterior
from contrique_jax.training.load import load_network
from tests.planted import probe_of, read_csv, tiny_model


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model/, images/ (five good ones and a broken one), probe.npz and a full-reference fr.npz."""
    folder = tmp_path_factory.mktemp("score")
    extractor = Extractor(*load_network(str(tiny_model(folder / "model"))))
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (64, 64 - i, 3), dtype=np.uint8)).save(
            folder / "images" / f"{i}, photo.png"
        )
    (folder / "images" / "2b.png").write_bytes(b"nonsense")
    probe = probe_of(extractor, rng)
    probe.save(folder / "probe.npz")
    dataclasses.replace(probe, feature_name=FULL_REFERENCE, higher_is_better=False).save(folder / "fr.npz")
    return folder


def run(place, *arguments, probe="probe.npz", code=0):
    line = ["--model", str(place / "model"), "--probe", str(place / probe), *map(str, arguments)]
    assert run_verb(score.main, line) == code


def expected(place):
    extractor = Extractor(*load_network(str(place / "model")))
    good = sorted((place / "images").glob("*photo.png"))
    return good, extractor.features([np.asarray(Image.open(path)) for path in good])


def test_csv_holds_every_file_in_order(place, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    run(place, place / "images", "--out", out)
    columns, *rows = read_csv(out)
    about = json.loads((tmp_path / "scores.csv.json").read_text())
    assert about["about"].startswith("higher is better; scores of MINE range from 1 to 5") and about["range"] == [1, 5]
    assert columns == ["path", "score", "deviation"]
    good, features = expected(place)
    probe = load_probe(place / "probe.npz")
    names = sorted(os.listdir(place / "images"))
    assert [row[0] for row in rows] == [str(place / "images" / name) for name in names]
    scored = [row for row in rows if row[1]]
    np.testing.assert_allclose([float(row[1]) for row in scored], probe.predict(features), atol=1e-4)
    assert [row[0] for row in scored] == [str(path) for path in good] and scored[0][2] == "0.25"
    assert [row for row in rows if not row[1]] == [[str(place / "images" / "2b.png"), "", ""]]
    error = capsys.readouterr().err
    assert (
        "2b.png" in error
        and "1 of 6 images" in error
        and set(tmp_path.iterdir()) == {out, tmp_path / "scores.csv.json"}
    )


def test_exit_code_1_says_that_an_image_asked_for_by_name_is_missing(place, tmp_path, capsys):
    broken, good = place / "images" / "2b.png", sorted((place / "images").glob("*photo.png"))[0]
    run(place, place / "images", "--out", tmp_path / "s.csv", code=0)
    run(place, broken, good, "--out", tmp_path / "s.csv", code=1)
    assert len(read_csv(tmp_path / "s.csv")) == 3 and "1 of 2 images could not be read" in capsys.readouterr().err


def test_json_lines_say_the_same(place, tmp_path):
    run(place, place / "images", "--out", tmp_path / "s.csv")
    run(place, place / "images", "--out", tmp_path / "s.jsonl")
    first, *lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert first["header"]["direction"] == "higher is better" and first["header"]["range"] == [1, 5]
    for line, row in zip(lines, read_csv(tmp_path / "s.csv")[1:], strict=True):
        assert line["path"] == row[0] and (line["score"] is None) == (row[1] == "")
        assert line["score"] is None or line["score"] == pytest.approx(float(row[1]), rel=1e-5)
    errors = {line["path"]: line["error"] for line in lines if "error" in line}
    assert list(errors) == [str(place / "images" / "2b.png")] and "not an image" in errors[lines[3]["path"]]


def test_without_out_the_csv_goes_to_stdout_and_flags_may_come_last(place, capsys):
    line = [str(place / "images" / "0*.png"), "--model", str(place / "model"), "--probe", str(place / "probe.npz")]
    assert run_verb(score.main, line) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 2 and lines[0] == "path,score,deviation" and lines[1].startswith('"')
    assert said.err.startswith("higher is better; scores of MINE")


def test_each_image_has_a_deviation_of_its_own(place, tmp_path):
    good, features = expected(place)
    plain = load_probe(place / "probe.npz")
    fitted = np.random.default_rng(1).normal(features.mean(0), features.std(0) + 1e-3, (40, features.shape[1]))
    sure = dataclasses.replace(plain, posterior=fit_posterior(fitted, 0.1, Calibration(0.04, 0.5)), deviation=None)
    sure.save(tmp_path / "sure.npz")
    run(place, place / "images", "--out", tmp_path / "s.csv", probe=tmp_path / "sure.npz")
    run(place, place / "images", "--out", tmp_path / "s.jsonl", probe=tmp_path / "sure.npz")
    _, *rows = read_csv(tmp_path / "s.csv")
    wanted = sure.deviations(features)
    assert "each image's own score" in (tmp_path / "s.csv.json").read_text() and len(set(wanted.round(6))) == len(good)
    np.testing.assert_allclose([float(row[2]) for row in rows if row[1]], wanted, rtol=1e-3)
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()[1:]]
    np.testing.assert_allclose([line["deviation"] for line in lines if line["score"] is not None], wanted, rtol=1e-4)
    assert [line["deviation"] for line in lines if line["score"] is None] == [None]


def test_a_probe_of_small_images_makes_images_small(place, tmp_path):
    small = dataclasses.replace(load_probe(place / "probe.npz"), shorter_side=32)
    small.save(tmp_path / "small.npz")
    run(place, place / "images" / "3*.png", "--out", tmp_path / "s.csv", probe=tmp_path / "small.npz")
    extractor = Extractor(*load_network(str(place / "model")))
    image = to_shorter_side(np.asarray(Image.open(place / "images" / "3, photo.png")), 32)
    wanted = small.predict(extractor.features([image]))[0]
    assert float(read_csv(tmp_path / "s.csv")[1][1]) == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(UserError, match="shorter side of 32"):
        scores.check_fit(extractor, small, False)


def test_full_reference_of_an_image_with_itself_is_the_intercept(place, capsys):
    image = place / "images" / "0, photo.png"
    run(place, image, place / "images" / "1, photo.png", "--reference", image, probe="fr.npz")
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert said.err.startswith("lower is better") and lines[1].endswith(",2.5,0.25")
    _, features = expected(place)
    difference = np.abs(features[0] - features[1])[None]
    assert float(lines[2].rsplit(",", 2)[1]) == pytest.approx(
        load_probe(place / "fr.npz").predict(difference)[0], rel=1e-4
    )


def test_mistakes_are_one_sentence_and_leave_nothing(place, tmp_path, capsys):
    images, out = place / "images", tmp_path / "s.csv"
    (tmp_path / "cut.npz").write_bytes((place / "probe.npz").read_bytes()[:300])
    other = dataclasses.replace(load_probe(place / "probe.npz"), model_hash="0123456789ab")
    other.save(tmp_path / "other.npz")
    for arguments, probe, says in [
        ([images], "fr.npz", "give --reference"),
        ([images, "--reference", images / "0, photo.png"], "probe.npz", "leave --reference out"),
        ([images, "--reference", images], "fr.npz", "6 images"),
        ([images, "--reference", images / "2b.png"], "fr.npz", "--reference: "),
        ([images], tmp_path / "cut.npz", "cut off"),
        ([images], tmp_path / "other.npz", "0123456789ab"),
        ([images], tmp_path / "absent.npz", "no such probe"),
        ([images / "absent"], "probe.npz", "absent"),
        ([images / "2b.png"], "probe.npz", "the only image could not be read"),
    ]:
        run(place, *arguments, "--out", out, probe=probe, code=2)
        assert says in capsys.readouterr().err
        assert not out.exists() and not list(tmp_path.glob(".*part"))


def test_the_summary_names_the_best_and_the_worst(place):
    probe, tally = load_probe(place / "probe.npz"), scores.Tally()
    for i, value in enumerate(np.random.default_rng(0).permutation(10)):
        tally.add(scores.Score(scores.Path(f"{i}.png"), float(value)))
    lines = tally.summary(probe).splitlines()
    assert [float(line.split()[1]) for line in lines[1:]] == [9, 8, 7, 0, 1, 2]
    lower = tally.summary(dataclasses.replace(probe, higher_is_better=False)).splitlines()
    assert [float(line.split()[1]) for line in lower[1:]] == [0, 1, 2, 9, 8, 7]


@pytest.mark.slow
def test_as_a_process_with_a_name_that_is_not_utf8_and_a_closed_pipe(place, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(odd, "wb") as stream:
        stream.write((place / "images" / "0, photo.png").read_bytes())
    command = [sys.executable, "-m", "contrique_jax.score", "--model", place / "model", "--probe", place / "probe.npz"]
    done = subprocess.run([*command, odd], capture_output=True, check=True)
    assert b"caf\xe9.png," in done.stdout and b"Traceback" not in done.stderr
    process = subprocess.Popen([*command, odd], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.wait()
