"""Probes and scikit-learn's Ridge, both ways."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from contrique_jax import score
from contrique_jax.convert.sklearn_probe import probe_from_sklearn, probe_to_sklearn
from contrique_jax.errors import run_verb
from contrique_jax.inference.extractor import Extractor
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe, load_probe
from contrique_jax.training.load import load_network
from tests.convert.subverbs import run
from tests.planted import tiny_model

pytest.importorskip("sklearn")
from sklearn.linear_model import ElasticNet, LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler
from sklearn.svm import SVR

RANGE = ["--low", "1", "--high", "5", "--higher-is-better", "yes"]
RNG = np.random.default_rng(1)
WIDTH = 4096


@pytest.fixture
def probe(tmp_path) -> Probe:
    made = Probe(RNG.normal(size=WIDTH), 37.2, 0.1, FULL_REFERENCE, "abc123", "MINE", 0.0, 9.5, False, 0.3)
    made.save(tmp_path / "mine.npz")
    return made


def equal(a: Probe, b: Probe) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True))


@pytest.mark.parametrize("name", ["mine.json", "mine.skops", "mine.save"])
@pytest.mark.parametrize("deviation", [0.3, None])
def test_there_and_back_is_equal_and_predicts_the_same(tmp_path, probe, name, deviation):
    if name.endswith(".skops"):
        skops = pytest.importorskip("skops.io")
    probe = dataclasses.replace(probe, deviation=deviation, shorter_side=None if deviation is None else 512)
    probe.save(tmp_path / "mine.npz")
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / name, *["--pickle"] * name.endswith(".save"))
    if name.endswith(".json"):
        names = {"PATH": tmp_path / name}
        exec("\n".join(json.loads((tmp_path / name).read_text())["how_to_build"]), names)
        ridge = names["ridge"]
    elif name.endswith(".skops"):
        ridge = skops.load(tmp_path / name)
    else:
        ridge = pickle.loads((tmp_path / name).read_bytes())
    assert isinstance(ridge, Ridge) and ridge.alpha == 0.1
    features = RNG.normal(size=(20, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(ridge.predict(features), probe.predict(features), rtol=1e-6)
    run(probe_from_sklearn, tmp_path / name, tmp_path / "back.npz")
    assert equal(load_probe(tmp_path / "back.npz"), probe)


def test_a_ridge_of_scikit_learn_predicts_the_same_here(tmp_path, capsys):
    x = RNG.normal(size=(40, 64))
    ridge = Ridge(alpha=0.25).fit(x, x @ RNG.normal(size=64) + 50)
    (tmp_path / "CLIVE.save").write_bytes(pickle.dumps(ridge, 2))
    run(probe_from_sklearn, tmp_path / "CLIVE.save", tmp_path / "p.npz", *RANGE)
    probe = load_probe(tmp_path / "p.npz")
    np.testing.assert_allclose(probe.predict(x), ridge.predict(x), rtol=1e-12)
    assert dataclasses.astuple(probe)[2:9] == (0.25, NO_REFERENCE, "", "CLIVE", 1.0, 5.0, True)
    assert probe.deviations(x) is None and probe.standing is None
    assert "--model M ties it" in capsys.readouterr().out
    flags = ["--data-set", "LIVE", "--feature-name", FULL_REFERENCE, *RANGE[:-1], "no"]
    run(probe_from_sklearn, tmp_path / "CLIVE.save", tmp_path / "p.npz", *flags)
    probe = load_probe(tmp_path / "p.npz")
    assert (probe.data_set, probe.feature_name, probe.higher_is_better) == ("LIVE", FULL_REFERENCE, False)


def test_what_the_file_cannot_tell_is_asked_for(tmp_path, capsys):
    (tmp_path / "r.save").write_bytes(pickle.dumps(Ridge().fit(np.eye(3), [1, 2, 3])))
    for flags, says in [
        ([], "give --low and --high and --higher-is-better yes|no"),
        (RANGE[:4], "give --higher-is-better yes|no."),
        (["--low", 5, "--high", 1, *RANGE[4:]], "the lower one first"),
        (["--low", "nan", *RANGE[2:]], "the lower one first"),
    ]:
        run(probe_from_sklearn, tmp_path / "r.save", tmp_path / "p.npz", *flags, code=2)
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert not (tmp_path / "p.npz").exists()


def test_a_pickle_is_written_on_request_only(tmp_path, probe, capsys):
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / "mine.save", code=2)
    assert "add --pickle" in capsys.readouterr().err
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / "mine.json", "--pickle", code=2)
    assert ".save" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_json_needs_no_scikit_learn(tmp_path, probe, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.split(".")[0] in ("sklearn", "skops")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "skops", None)
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / "mine.json")
    for name, flags in (("mine.save", ["--pickle"]), ("mine.skops", [])):
        run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / name, *flags, code=2)
        assert "contrique-jax[sklearn]" in capsys.readouterr().err and not (tmp_path / name).exists()
    run(probe_from_sklearn, tmp_path / "mine.json", tmp_path / "back.npz")
    assert equal(load_probe(tmp_path / "back.npz"), probe)


@pytest.mark.parametrize("name", ["x.json", "x.skops", "x.save"])
def test_damaged_files(tmp_path, probe, name, capsys):
    if name == "x.skops":
        pytest.importorskip("skops.io")
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / name, *["--pickle"] * name.endswith(".save"))
    whole = (tmp_path / name).read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"{}", b"[1, 2]", b"null"):
        (tmp_path / name).write_bytes(data)
        capsys.readouterr()
        run(probe_from_sklearn, tmp_path / name, tmp_path / "p.npz", *RANGE, code=2)
        error = capsys.readouterr().err
        assert name in error and error.count("\n") == 1
    (tmp_path / name).unlink()
    run(probe_from_sklearn, tmp_path / name, tmp_path / "p.npz", *RANGE, code=2)
    assert not (tmp_path / "p.npz").exists()


def test_numbers_that_are_none(tmp_path, capsys):
    ridge = Ridge().fit(np.eye(3), [1, 2, 3])
    ridge.coef_[1] = np.nan
    (tmp_path / "r.save").write_bytes(pickle.dumps(ridge))
    run(probe_from_sklearn, tmp_path / "r.save", tmp_path / "p.npz", *RANGE, code=2)
    assert "NaN" in capsys.readouterr().err


def test_a_deviation_that_is_no_number_is_refused(tmp_path, probe, capsys):
    run(probe_to_sklearn, tmp_path / "mine.npz", tmp_path / "mine.json")
    text = (tmp_path / "mine.json").read_text()
    (tmp_path / "mine.json").write_text(text.replace('"deviation": 0.3', '"deviation": NaN'))
    run(probe_from_sklearn, tmp_path / "mine.json", tmp_path / "back.npz", code=2)
    assert "NaN is no number" in capsys.readouterr().err and not (tmp_path / "back.npz").exists()


def test_a_ridge_on_other_features_is_not_tied_to_a_model(tmp_path, capsys):
    (tmp_path / "r.save").write_bytes(pickle.dumps(Ridge().fit(np.eye(10), np.arange(10.0))))
    run(probe_from_sklearn, tmp_path / "r.save", tmp_path / "p.npz", *RANGE, "--model", "random:resnet18", code=2)
    said = capsys.readouterr().err
    assert "10 features" in said and "1024" in said and said.count("\n") == 1
    assert not (tmp_path / "p.npz").exists()


def test_score_takes_a_converted_probe_and_says_that_no_deviation_is_known(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")
    model = tiny_model(tmp_path / "model")
    extractor = Extractor(*load_network(str(model)))
    image = RNG.integers(0, 256, (64, 70, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    x = RNG.normal(size=(30, extractor.width))
    ridge = Ridge(alpha=0.1).fit(x, x @ RNG.normal(size=extractor.width) + 3)
    (tmp_path / "r.save").write_bytes(pickle.dumps(ridge, 2))
    expected = ridge.predict(extractor.features([image]))[0]
    for tied in ([], ["--model", model]):
        run(probe_from_sklearn, tmp_path / "r.save", tmp_path / "p.npz", *RANGE, *tied)
        line = ["--model", str(model), "--probe", str(tmp_path / "p.npz"), str(tmp_path / "a.png")]
        capsys.readouterr()
        assert run_verb(score.main, line) == 0
        out, said = capsys.readouterr()
        columns, row = out.splitlines()
        assert "deviation: not known" in said and columns == "path,score,deviation"
        assert ("model not known" in said) == (not tied)
        _, number, deviation = row.split(",")
        assert float(number) == pytest.approx(expected, rel=1e-5) and deviation == ""
        assert run_verb(score.main, [*line, "--out", str(tmp_path / "s.jsonl")]) == 0
        first, second = map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())
        assert first["header"]["deviation"] is None and second["deviation"] is None
    dataclasses.replace(load_probe(tmp_path / "p.npz"), model_hash="0123456789ab").save(tmp_path / "p.npz")
    assert run_verb(score.main, line) == 2 and "it was fitted on the features" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reiqa.save", "reiqa.skops"])
def test_an_elastic_net_behind_a_scaler_predicts_the_same_here(tmp_path, name, capsys):
    """What Re-IQA's features ask for, whose scales differ."""
    x = RNG.normal(size=(40, 24)).astype(np.float32) * np.geomspace(1e-3, 10, 24, dtype=np.float32)
    model = make_pipeline(StandardScaler(), ElasticNet(alpha=0.01)).fit(x, x @ np.geomspace(10, 1e-3, 24) + 50)
    if name.endswith(".skops"):
        pytest.importorskip("skops.io").dump(model, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(model))
    run(probe_from_sklearn, tmp_path / name, tmp_path / "p.npz", *RANGE)
    probe = load_probe(tmp_path / "p.npz")
    np.testing.assert_allclose(probe.predict(x), model.predict(x), rtol=1e-6)
    assert probe.alpha == 0 and "a probe on 24 features" in capsys.readouterr().out


def test_other_models_in_a_skops_file_are_refused(tmp_path, capsys):
    skops = pytest.importorskip("skops.io")
    x = RNG.normal(size=(9, 3))
    for model, says in (
        (LinearRegression().fit(x, x[:, 0]), "it is LinearRegression"),
        (make_pipeline(RobustScaler(), Ridge()).fit(x, x[:, 0]), "it is RobustScaler and Ridge"),
        (SVR().fit(x, x[:, 0]), "an SVR whose kernel is 'rbf'"),
    ):
        skops.dump(model, tmp_path / "r.skops")
        run(probe_from_sklearn, tmp_path / "r.skops", tmp_path / "p.npz", *RANGE, code=2)
        said = capsys.readouterr().err
        assert says in said and "give a Ridge, an ElasticNet or a linear SVR" in said and said.count("\n") == 1
