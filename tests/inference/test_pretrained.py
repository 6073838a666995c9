"""The embedded model: used if none is named, on a scale of 0 to 100, and described."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageFilter

import contrique_jax
from contrique_jax import cli, score
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.errors import UserError, run_verb
from contrique_jax.inference.pretrained import DEFAULT, Scale, choose_meter, named_models, size
from contrique_jax.networks.model_folder import content_hash, load_model
from contrique_jax.networks.weights_file import EMBEDDED
from contrique_jax.training.load import load_network
from tests.planted import read_csv, tiny_model


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two scenes, each sharp and blurred, of one size."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(2):
        scene = Image.fromarray(np.asarray(pristine_scene(0, i))[:96, :128])
        scene.save(folder / f"{i}_sharp.png")
        scene.filter(ImageFilter.GaussianBlur(3)).save(folder / f"{i}_soft.png")
    return folder


@pytest.fixture(scope="module")
def meter():
    return contrique_jax.load()


def test_the_default_model_is_whole_small_and_says_what_it_is():
    model, variables = load_model(EMBEDDED / DEFAULT)
    chosen = choose_meter(None, None)
    assert chosen.model == DEFAULT and chosen.probe.model_hash == content_hash(model, variables)
    assert chosen.scale == Scale(0, 1) and chosen.probe.higher_is_better
    assert size(DEFAULT) < 16e6 and next(iter(named_models())) == DEFAULT
    description = named_models()[DEFAULT]
    assert "Apache-2.0" in description["licence"]
    assert all(description["provenance"][key] for key in ("start", "data", "steps", "probe", "commit", "measured"))
    assert load_network(DEFAULT)[0] == model == load_network(f"random:{DEFAULT}")[0]


def test_it_names_distortions_beside_a_probe_of_ones_own(images, meter, tmp_path):
    dataclasses.replace(meter.probe, score_high=5.0).save(tmp_path / "mine.npz")
    mine = contrique_jax.load(DEFAULT, probe=tmp_path / "mine.npz")
    soft = str(images / "0_soft.png")
    assert mine.scale is None and mine.why(soft) == meter.why(soft)


def test_models_are_listed(capsys):
    assert run_verb(cli.main, ["models"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{DEFAULT}: efficientnet_lite0, ") and "used if no model is named" in out
    for word in ("start:", "measured:", "licence:", "SROCC", "Apache-2.0"):
        assert word in out


def test_without_a_model_the_embedded_one_scores_from_0_to_100(images, meter, tmp_path):
    assert run_verb(score.main, [str(images), "--out", str(tmp_path / "s.csv")]) == 0
    columns, *rows = read_csv(tmp_path / "s.csv")
    about = json.loads((tmp_path / "s.csv.json").read_text())
    assert about["about"].startswith("higher is better; 0 to 100 is 0 to 1 of BIQ2021")
    assert columns == ["path", "score", "deviation", "raw"]
    shown, raw = (np.array([float(row[i]) for row in rows]) for i in (1, 3))
    np.testing.assert_allclose(shown, np.clip(100 * raw, 0, 100), rtol=1e-4)
    assert ((shown >= 0) & (shown <= 100)).all() and (shown[::2] > shown[1::2]).all(), "sharp is better than soft"
    np.testing.assert_allclose(meter.score([row[0] for row in rows]), shown, rtol=1e-4)
    assert run_verb(score.main, [str(images), "--model", DEFAULT, "--out", str(tmp_path / "named.csv")]) == 0
    assert read_csv(tmp_path / "named.csv") == read_csv(tmp_path / "s.csv")


def test_json_lines_hold_both_scales(images, tmp_path):
    assert run_verb(score.main, [str(images / "0_sharp.png"), "--out", str(tmp_path / "s.jsonl")]) == 0
    first, line = (json.loads(text) for text in (tmp_path / "s.jsonl").read_text().splitlines())
    assert first["header"]["range"] == [0, 100] and first["header"]["raw_range"] == [0, 1]
    assert line["score"] == pytest.approx(100 * line["raw"])


def test_a_scale_turns_damage_round_and_ends_at_0_and_100():
    assert Scale(5, 1).scores(np.array([1, 3, 5, 9])).tolist() == [100, 50, 0, 0]
    assert Scale(5, 1).deviations(0.4) == pytest.approx(10)


def test_a_model_and_a_probe_are_named_together(images, tmp_path):
    tiny = str(tiny_model(tmp_path / "model"))
    own = str(EMBEDDED / DEFAULT / "probe.npz")
    with pytest.raises(UserError, match=r"^model: .* gives features and no scores; add --probe P.npz"):
        choose_meter(tiny, None)
    with pytest.raises(UserError, match=r"^probe: .* name that with --model M too"):
        choose_meter(None, own)
    with pytest.raises(UserError, match="name that with --model"):
        contrique_jax.load(probe=own)
    assert run_verb(score.main, [str(images), "--model", tiny]) == 2
    assert run_verb(score.main, [str(images), "--model", tiny, "--probe", own]) == 2


@pytest.mark.parametrize("side", [(1, 1), (1, 97), (64, 64)])
def test_odd_pictures_have_a_score(meter, side):
    """Of one pixel, of one row, of one colour."""
    found = meter.score([np.full((*side, 3), 128, np.uint8)])
    assert np.isfinite(found).all() and 0 <= found[0] <= 100


def test_no_images_and_too_many_pixels_have_a_sentence(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run_verb(score.main, [str(tmp_path / "empty"), "--out", str(tmp_path / "s.csv")]) == 2
    assert "holds no images" in capsys.readouterr().err
    Image.new("1", (20_001, 10_000)).save(tmp_path / "huge.png")
    assert run_verb(score.main, [str(tmp_path / "huge.png"), "--out", str(tmp_path / "s.csv")]) == 2
    assert "more than the limit" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["empty", "huge.png"]
