"""Models side by side in one folder: made, scored with, evaluated, refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import contrique_jax
from contrique_jax.config import ModelConfig
from contrique_jax.convert import ensemble
from contrique_jax.errors import UserError
from contrique_jax.evaluate import main as evaluate
from contrique_jax.features import main as features
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.networks import pair_projector
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes import RECIPES
from contrique_jax.recipes.reiqa.config import ReiqaConfig, ReiqaModel
from contrique_jax.score import main as score
from contrique_jax.training.load import load_any
from tests.convert.subverbs import run
from tests.recipes import toy
from tests.recipes.toy_config import ToyConfig

WIDTH = 8 * 4  # of a ResNet-18 of base width 4


def of_kind(kind: str, seed: int, dtype: str = "float32") -> tuple[ReiqaModel, dict]:
    scaling = "unit" if kind == "quality" else "imagenet"
    model = ReiqaModel("resnet18", 4, 1, 8, dtype, input_scaling=scaling, kind=kind)
    return model, pair_projector.init(model.network, seed)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three models, the ensemble of two of them, and thirty pictures with opinions."""
    folder = tmp_path_factory.mktemp("ensemble")
    for kind, seed in (("content", 1), ("quality", 2)):
        model, variables = of_kind(kind, seed, "bfloat16")  # of the training alone
        save_model(folder / kind, model, variables, provenance={}, recipe="reiqa", licence=f"of {kind}")
    plain = ModelConfig("resnet18", base_width=4, projection_dim=8)
    save_model(folder / "plain", plain, init_model(plain, 3), provenance={})
    run(ensemble, folder / "both", f"content={folder / 'content'}", f"quality={folder / 'quality'}")
    generator, rows = np.random.default_rng(0), ["path,mos"]
    for i in range(30):
        pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(np.clip(128 + (pixels - 128.0) * i / 30, 0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
        rows.append(f"{i:02}.png,{i}")
    (folder / "rated.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_its_features_are_its_members_side_by_side(place):
    """Each member's full and half size together: of files, arrays and in `apply`."""
    pictures = [place / "05.png"]
    both, *alone = (contrique_jax.load(place / name) for name in ("both", "content", "quality"))
    wanted = np.concatenate([one.features(pictures) for one in alone], axis=1)
    assert both.width == 4 * WIDTH and wanted.shape == (1, 4 * WIDTH)
    np.testing.assert_allclose(both.features(pictures), wanted, rtol=1e-4, atol=1e-6)
    image = np.asarray(Image.open(place / "05.png"))[None] / np.float32(255)
    # the half size is made there without rounding to bytes
    assert np.linalg.norm(both.apply(image) - wanted) < 5e-3 * np.linalg.norm(wanted)
    assert not np.allclose(np.linalg.norm(wanted[0, :WIDTH]), 1, atol=0.05), "features are as long as they come"
    assert contrique_jax.load(place / "both" / "quality").width == 2 * WIDTH, "a member is a model of its own"
    assert "content: resnet18 + quality: resnet18" in repr(both)


@pytest.mark.slow
def test_it_is_evaluated_and_scores_with_its_probe(place, capsys):
    flags = [
        "--scores",
        str(place / "rated.csv"),
        "--no-control",
        "--splits",
        "2",
        "--features-cache",
        str(place / "kept"),
    ]
    evaluate(["--model", str(place / "both"), *flags, "--probe", str(place / "p.npz")])
    arguments = ["--model", str(place / "both"), "--probe", str(place / "p.npz"), str(place / "03.png")]
    score([*arguments, "--out", str(place / "s.csv")])
    found = float((place / "s.csv").read_text().splitlines()[1].split(",")[1])
    model = contrique_jax.load(place / "both", place / "p.npz")
    np.testing.assert_allclose(model.score([place / "03.png"]), found, rtol=1e-4)
    with pytest.raises(UserError, match=r"it reads 128 features and this model gives 64"):
        contrique_jax.load(place / "quality", place / "p.npz")
    features(["--model", str(place / "both"), "--images", str(place / "03.png"), "--out", str(place / "f.npz")])
    with np.load(place / "f.npz") as stored:
        assert stored["features"].shape == (1, 4 * WIDTH) and str(stored["model_hash"]) == model.probe.model_hash


def test_it_computes_in_float32_and_its_name_tells_what_pixels_it_takes(place, tmp_path):
    """Of equal weights: another dtype changes nothing, other pixels or another member change the name."""
    model, variables = of_kind("quality", 2, "float32")
    save_model(tmp_path / "half", model, variables, provenance={}, recipe="reiqa")
    same = open_extractor(str(tmp_path / "half"))
    assert same.model_hash == open_extractor(str(place / "quality")).model_hash
    image = np.asarray(Image.open(place / "05.png"))
    np.testing.assert_array_equal(same.features([image]), open_extractor(str(place / "quality")).features([image]))
    save_model(tmp_path / "other", of_kind("content", 2)[0], variables, provenance={}, recipe="reiqa")
    hashes = {open_extractor(str(at)).model_hash for at in (tmp_path / "other", place / "quality", place / "both")}
    assert len(hashes) == 3


def test_models_of_different_recipes_stand_side_by_side(place, tmp_path, capsys):
    run(ensemble, tmp_path / "both", f"first={place / 'plain'}", f"quality={place / 'quality'}")
    description = json.loads((tmp_path / "both" / "model.json").read_text())
    assert (
        description["architecture"] == {"members": ["first", "quality"]}
        and "quality: of quality" in description["licence"]
    )
    assert contrique_jax.load(tmp_path / "both").width == 4 * WIDTH


def test_what_cannot_be_made_is_one_sentence_and_nothing_is_written(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "toy", "tests.recipes.toy")
    save_model(tmp_path / "scores", ToyConfig().model, toy.init(ToyConfig(), 0), provenance={}, recipe="toy")
    content, quality_, both = (place / name for name in ("content", "quality", "both"))
    for arguments, says in (
        ((f"content={content}", f"quality={content}"), "is a content model; name a quality model"),
        ((f"content={content}",), "name 2 to 16 models"),
        ((f"content={content}", f"content={content}"), "content is given twice"),
        ((f"content={content}", f"../quality={quality_}"), "a name of letters"),
        ((f"content={content}", "quality"), "give NAME=MODEL"),
        ((f"content={content}", f"quality={tmp_path / 'absent'}"), "no model folder and no finished run"),
        ((f"content={content}", f"two={both}"), "holds several models side by side (content, quality)"),
        ((f"content={content}", f"scored={tmp_path / 'scores'}"), "which gives scores"),
    ):
        run(ensemble, tmp_path / "out", *arguments, code=2)
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1, said
        assert [path.name for path in tmp_path.iterdir()] == ["scores"]
    run(ensemble, both, f"content={content}", f"quality={quality_}", code=2)
    assert "it exists" in capsys.readouterr().err


def test_a_damaged_one_is_one_sentence(place, tmp_path):
    shutil.copytree(place / "both", tmp_path / "both")
    with pytest.raises(
        UserError, match=r"holds several models side by side \(content, quality\); name one of them, such as"
    ):
        load_any(str(tmp_path / "both"))
    shutil.rmtree(tmp_path / "both" / "quality")
    with pytest.raises(UserError, match=r"quality.* is no folder|quality.*no such"):
        open_extractor(str(tmp_path / "both"))
    path = tmp_path / "both" / "model.json"
    for members in (["content", "../content"], [], "content", ["content", "content"], [3]):
        path.write_text(json.dumps({"format_version": 1, "recipe": "ensemble", "architecture": {"members": members}}))
        with pytest.raises(UserError, match=r"architecture\.members"):
            open_extractor(str(tmp_path / "both"))


def test_a_config_of_another_kind_than_known_is_refused(place, tmp_path):
    shutil.copytree(place / "quality", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    assert description["preprocessing"]["features"] == "global average at each scale, full scale first"
    description["architecture"]["kind"] = "beauty"
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"not an architecture of the recipe 'reiqa' .*must be one of quality, content"):
        load_any(str(tmp_path / "model"))
    assert ReiqaConfig().model.kind == "quality"
