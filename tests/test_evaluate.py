"""The command `evaluate` on photographs with a planted quality."""

from __future__ import annotations

import functools
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from contrique_jax import evaluate
from contrique_jax.errors import run_verb
from contrique_jax.evaluation import comparison
from contrique_jax.evaluation.comparison import ModelResult
from contrique_jax.evaluation.intervals import bootstrap_medians
from contrique_jax.evaluation.learning_curve import LearningCurve
from contrique_jax.evaluation.tables import curve_line
from contrique_jax.inference.extractor import Extractor
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, load_probe
from contrique_jax.training.load import load_network
from tests.planted import read_csv, tiny_model, write_csv, write_images


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """A thousand take most of a test's time; `test_intervals.py` tests them."""
    monkeypatch.setattr(comparison, "bootstrap_medians", functools.partial(bootstrap_medians, resamples=100))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with model/, images/, another set other/ and a cache that later tests find filled."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder / "model")
    write_images(folder / "images")
    write_images(folder / "other", count=24, size=48)
    return folder


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


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
    controls = found["controls"]
    assert set(controls) == {"random weights", "hand-made statistics", "mean of the scores"}
    assert controls["random weights"]["srocc"] == found["srocc"]  # the tiny model is the same random network
    assert controls["hand-made statistics"]["srocc"] > 0.9  # blur is what they were made for
    mean = controls["mean of the scores"]
    assert mean["srocc"] is None and mean["alpha"] is None and 0.5 < mean["rmse"] < 1.5
    for number in ("srocc", "plcc", "rmse"):
        interval = found["intervals"][number]
        assert interval["value"] == pytest.approx(found[number], abs=1e-9)
        assert interval["low"] <= interval["value"] <= interval["high"]
    assert len(first["predictions"]) == 10 and set(found["coverage_90_of_subsets"]) == {"a", "b"}
    assert [one["second"] for one in found["differences"]] == ["random weights", "hand-made statistics"]
    assert found["differences"][0]["mean"] == 0 and found["differences"][0]["splits"] == 6
    assert 0.5 < found["coverage_90"] <= 1 and "90 % intervals hold" in said
    assert found["images"] == 48 and found["groups"] == 24 and found["higher_is_better"] is True
    assert (
        "blurred: 48 images, 24 groups, 6 random splits" in said
        and "random weights" in said
        and "higher is better" in said
    )

    extractor = Extractor(*load_network(str(place / "model")))
    fitted = load_probe(probe)
    fitted.check_model(extractor.model_hash, extractor.width)
    assert (fitted.feature_name, fitted.data_set, fitted.alpha) == (NO_REFERENCE, "blurred", found["alpha"])
    assert fitted.deviation == pytest.approx(found["deviation"]) and 0 < fitted.deviation < 1
    assert (fitted.score_low, fitted.score_high) == tuple(found["score_range"]) and fitted.shorter_side is None
    assert len(set(fitted.deviations(extractor.features([np.zeros((64, 64, 3), np.uint8)] * 2 + [NOISE])))) == 2

    monkeypatch.setattr(Extractor, "_load", lambda *_: pytest.fail("the features were kept"))
    run(place, "--out", tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["splits"] == found["splits"]
    run(place, "--out", tmp_path / "other.json", "--seed", 1, "--no-control")
    other = json.loads((tmp_path / "other.json").read_text())
    assert other["splits"] != found["splits"] and list(other["controls"]) == ["mean of the scores"]
    assert other["splits_hash"] != found["splits_hash"] == again["splits_hash"]
    assert other["config_hash"] != found["config_hash"]


def test_another_model_is_compared_over_the_same_splits(place, tmp_path, capsys):
    tiny_model(tmp_path / "second", seed=5)
    shutil.copytree(place / "model", tmp_path / "moved")
    found = {}
    for name, model, more in (("a", place / "model", ()), ("b", tmp_path / "moved", ("--logistic", 5))):
        line = ["--model", model, "--scores", place / "images" / "scores.csv", "--splits", 6, "--no-control"]
        line += ["--against", tmp_path / "second", "--features-cache", place / "cache", *more]
        assert run_verb(evaluate.main, [*map(str, line), "--out", str(tmp_path / f"{name}.json")]) == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    other = found["a"]["controls"][str(tmp_path / "second")]
    assert other["model_hash"] != found["a"]["model_hash"] and other["srocc"] != found["a"]["srocc"]
    (compared,) = found["a"]["differences"]
    assert compared["second"] == str(tmp_path / "second") and compared["splits"] == 6
    ours, theirs = ([one["srocc"] for one in model["splits"]] for model in (found["a"], other))
    assert compared["mean"] == pytest.approx(np.mean(np.subtract(ours, theirs)))
    # the logistic moves PLCC alone, and is part of the configuration
    assert found["b"]["srocc"] == found["a"]["srocc"] and found["b"]["plcc"] != found["a"]["plcc"]
    assert (
        found["b"]["config_hash"] != found["a"]["config_hash"] and found["b"]["model_hash"] == found["a"]["model_hash"]
    )
    assert f"{place / 'model'} less {tmp_path / 'second'}: SROCC" in capsys.readouterr().out


def test_the_control_of_a_trained_network_is_not_that_network(place, tmp_path):
    tiny_model(tmp_path / "trained", seed=5)
    found = {}
    for name, model, more in (("trained", tmp_path / "trained", ()), ("control", place / "model", ("--no-control",))):
        line = ["--model", model, "--scores", place / "images" / "scores.csv", "--splits", 6, *more]
        line += ["--features-cache", place / "cache", "--out", tmp_path / f"{name}.json"]
        assert run_verb(evaluate.main, [*map(str, line)]) == 0
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())
    control = found["trained"]["controls"]["random weights"]
    assert control["model_hash"] == found["control"]["model_hash"] != found["trained"]["model_hash"]
    assert control["splits"] == found["control"]["splits"] != found["trained"]["splits"]
    assert found["trained"]["differences"][0]["mean"] != 0


def test_the_configuration_s_hash_is_of_what_was_evaluated_not_of_where_it_lies(place, tmp_path):
    shutil.copytree(place / "model", tmp_path / "model")
    shutil.copytree(place / "images", tmp_path / "images")
    run(place, "--no-control", "--out", tmp_path / "a.json")
    run(tmp_path, "--no-control", "--out", tmp_path / "b.json")
    a, b = (json.loads((tmp_path / f"{name}.json").read_text())["config_hash"] for name in "ab")
    assert a == b
    shutil.rmtree(tmp_path / "model")
    tiny_model(tmp_path / "model", seed=5)
    run(tmp_path, "--no-control", "--out", tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["config_hash"] != a


def test_no_splits_are_written_where_the_model_is_missing(place, tmp_path, capsys):
    line = [
        "--model",
        tmp_path / "none",
        "--scores",
        place / "images" / "scores.csv",
        "--splits-file",
        tmp_path / "s.json",
    ]
    assert run_verb(evaluate.main, list(map(str, line))) == 2
    assert not list(tmp_path.iterdir()) and capsys.readouterr().err.count("\n") == 1


def test_a_changed_file_is_computed_again(place, monkeypatch):
    seen = []
    original = Extractor._load
    monkeypatch.setattr(Extractor, "_load", lambda self, given: seen.append(given[0]) or original(self, given))
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


def test_splits_are_written_read_back_and_refused_for_another_set(place, tmp_path, capsys):
    splits, found = tmp_path / "splits.json", []
    for name in ("a.json", "b.json"):
        run(place, "--no-control", "--splits-file", splits, "--out", tmp_path / name, "--seed", 3)
        found.append(json.loads((tmp_path / name).read_text()))
    assert found[0]["splits"] == found[1]["splits"] and found[0]["splits_hash"] == found[1]["splits_hash"]
    assert found[1]["split_source"] == "6 splits of splits.json"
    stored = json.loads(splits.read_text())
    assert len(stored["splits"]) == 6 and set(stored["splits"][0]["train"]) < {f"g{i}" for i in range(24)}
    flags = ["--model", str(place / "model"), "--scores", str(place / "other" / "scores.csv")]
    assert run_verb(evaluate.main, [*flags, "--splits-file", str(splits)]) == 2
    assert "is not in this data set" in capsys.readouterr().err


def test_images_without_groups_go_into_the_file_by_their_place(place, tmp_path):
    rows = [row[:2] for row in read_csv(place / "images" / "scores.csv")]
    write_csv(place / "images" / "alone.csv", rows)
    run(place, "--no-control", "--splits-file", tmp_path / "s.json", scores="alone.csv")
    assert "image0_0.png" in {
        name for side in json.loads((tmp_path / "s.json").read_text())["splits"][0].values() for name in side
    }


def test_leave_one_out_learns_from_validation_too(place, tmp_path):
    run(place, "--no-control", "--choose", "leave-one-out", "--out", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["alpha_chosen_by"] == "leave-one-out" and found["srocc"] > 0.8


def test_the_other_set_is_judged_by_the_fit_on_this_one(place, tmp_path, capsys):
    rows = read_csv(place / "other" / "scores.csv")
    turned = [["path", "dmos"], *([row[0], str(5 - float(row[1]))] for row in rows[1:])]
    write_csv(place / "other" / "damage.csv", turned)
    others = [place / "other" / name for name in ("scores.csv", "damage.csv")]
    run(place, "--cross", *others, "--out", tmp_path / "r.json", "--probe", tmp_path / "p.npz")
    found = json.loads((tmp_path / "r.json").read_text())["cross"]
    assert [one["images"] for one in found] == [24] * 6
    assert [one["model"] for one in found[:3]] == [str(place / "model"), "random weights", "hand-made statistics"]
    extractor, probe = Extractor(*load_network(str(place / "model"))), load_probe(tmp_path / "p.npz")
    predicted = probe.predict(
        extractor.features([np.asarray(Image.open(place / "other" / row[0])) for row in rows[1:]])
    )
    expected = stats.spearmanr(predicted, [float(row[1]) for row in rows[1:]]).statistic
    assert found[0]["srocc"] == pytest.approx(expected) == pytest.approx(found[3]["srocc"])  # damage is turned round
    assert found[2]["srocc"] > 0.6 and "fitted on all of images" in capsys.readouterr().out


def test_named_sets_come_with_their_range_and_official_split(place, tmp_path, capsys):
    flags = ["--model", str(place / "model"), "--dataset", "biq2021", "--images", str(tmp_path), "--no-control"]
    (tmp_path / "Images").mkdir()
    rows = read_csv(place / "images" / "scores.csv")[1:]
    for i, row in enumerate(rows):
        pixels = (place / "images" / row[0]).read_bytes()
        row[0] = f"ss0{1 + i % 3} ({i}).png"
        (tmp_path / "Images" / row[0]).write_bytes(pixels)
    for name, part in (("Train", rows[:36]), ("Test", rows[36:])):
        table = [["Image Name", "MOS", "", ""], *([row[0], str(float(row[1]) / 5), "", ""] for row in part)]
        write_csv(tmp_path / f"{name} (Images and MOS).csv", table)
    more = ["--out", str(tmp_path / "r.json"), "--probe", str(tmp_path / "p.npz"), "--learning-curve"]
    assert run_verb(evaluate.main, [*flags, *more]) == 0, capsys.readouterr().err
    found, probe = json.loads((tmp_path / "r.json").read_text()), load_probe(tmp_path / "p.npz")
    assert found["split_source"] == "the official split" and found["alpha_chosen_by"] == "leave-one-out"
    assert [(s["train"], s["validation"], s["test"]) for s in found["splits"]] == [(36, 0, 12)]
    assert (probe.score_low, probe.score_high) == (0, 1) and found["data_set"] == "BIQ2021"
    assert [point["images"] for point in found["learning_curve"]] == [10, 20, 36]
    assert found["learning_curve"][-1]["srocc"] == pytest.approx(found["srocc"], abs=0.1)
    for wrong, says in [
        (["--splits-file", str(tmp_path / "s.json")], "official split of its own"),
        (["--score-column", "mos"], "--score-column: it is for a csv"),
        (["--full-reference"], "no pristine images"),
    ]:
        assert run_verb(evaluate.main, [*flags, *wrong]) == 2
        assert says in capsys.readouterr().err


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
        (("--splits", "0"), "scores.csv", "--splits 0: it must be between 1"),
        (("--out", tmp_path / "no" / "r.json"), "scores.csv", "does not exist"),
        (("--model", tmp_path / "nothing"), "scores.csv", "nothing is no folder"),
        (("--probe", tmp_path / "p.txt"), "scores.csv", "should end in .npz"),
        (("--report", tmp_path / "p.txt"), "scores.csv", "should end in .html"),
        (("--cross", tmp_path / "no.csv"), "scores.csv", "no.csv"),
        (("--cross", "nonsense=there"), "scores.csv", "no data set 'nonsense'"),
        (("--cross", f"clive={tmp_path}"), "scores.csv", "--cross: "),
    ]:
        run(place, *more, scores=scores, code=2)
        error = capsys.readouterr().err
        assert says in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mos": ""}, "line 3: mos is ''; give a number"),
        ({"mos": "nan"}, "line 3: mos is 'nan'"),
        ({"mos": "good"}, "line 3: mos is 'good'"),
        ({"mos": None}, "every mos is 4"),
        ({"path": "image0_0.png"}, "lines 2 and 3: image0_0.png is listed twice"),
        ({"path": "absent.png"}, "'absent.png' is no file"),
        ({"group": ""}, "line 3: the column 'group' is empty"),
        ({"group": None}, "1 groups cannot be split"),
    ],
)
def test_tables_that_cannot_be_used_are_one_sentence(place, change, says, capsys):
    head, *rows = read_csv(place / "images" / "scores.csv")
    for column, value in change.items():
        for row in rows if value is None else rows[1:2]:  # None: one value for all
            row[head.index(column)] = "4" if value is None else value
    write_csv(place / "images" / "wrong.csv", [head, *rows])
    run(place, scores="wrong.csv", code=2)
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1


def test_the_curve_s_line_says_how_many_labels_are_nearly_enough():
    def line(*medians):
        curve = LearningCurve([10, 20, 40], [np.array([value]) for value in medians])
        return curve_line(ModelResult("net", "", None, None, curve))

    assert line(0.3, 0.77, 0.8).endswith("10: 0.300, 20: 0.770, 40: 0.800; 20 reach 95% of the last")
    assert line(0.79, 0.7, 0.8).endswith("40 reach 95% of the last")  # from there on, not by luck once
    assert line(0.1, 0.2, -0.1).endswith("40: -0.100") and line(0.1, 0.2, np.nan).endswith("40: nan")
