"""Models of another recipe: one that gives scores needs no probe, one that gives features takes one."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import contrique_jax
from contrique_jax.errors import UserError
from contrique_jax.evaluate import main as evaluate
from contrique_jax.inference.any_recipe import EnsembleExtractor, open_extractor
from contrique_jax.inference.recipe_extractor import RecipeExtractor
from contrique_jax.networks.model_folder import save_model
from contrique_jax.recipes import RECIPES, recipe_named
from contrique_jax.score import main as score
from tests.recipes import toy
from tests.recipes.toy_config import ToyConfig


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A toy model and 30 pictures, whose opinions are the model's own scores with a little noise."""
    monkeypatch.setitem(RECIPES, "toy", "tests.recipes.toy")
    config = ToyConfig()
    variables = toy.init(config, 3)
    kept = {part: variables[part] for part in ("params", "batch_stats")}
    save_model(tmp_path / "model", config.model, kept, provenance={}, recipe="toy")
    generator = np.random.default_rng(0)
    rows = ["path,mos,subset"]
    for i in range(30):
        pixels = generator.integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
        own = float(toy.apply(config, kept, pixels[None, :16, :16].astype(np.float32) / 255, None)[0])
        rows.append(f"{i:02}.png,{10 * own + 0.05 * generator.standard_normal():.4f},{'ab'[i % 2]}")
    (tmp_path / "rated.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_it_scores_without_a_probe(place, capsys):
    score(
        ["--model", str(place / "model"), str(place / "00.png"), str(place / "01.png"), "--out", str(place / "s.csv")]
    )
    lines = (place / "s.csv").read_text().splitlines()
    assert "higher is better; scores of toy's own scale range from -1 to 1" in (place / "s.csv.json").read_text()
    found = [float(line.split(",")[1]) for line in lines[1:]]
    model = contrique_jax.load(place / "model")
    np.testing.assert_allclose(model.score([place / "00.png", place / "01.png"]), found, rtol=1e-5)
    image = np.asarray(Image.open(place / "01.png"))
    np.testing.assert_allclose(model.score([image]), found[1:], rtol=1e-5)
    np.testing.assert_allclose(model.apply(image[None] / np.float32(255))[0, 0], found[1], rtol=1e-5)


def test_it_is_evaluated_without_a_ridge(place):
    out = place / "e.json"
    flags = ["--model", str(place / "model"), "--scores", str(place / "rated.csv"), "--no-control", "--out", str(out)]
    evaluate([*flags, "--splits", "4"])
    found = json.loads(out.read_text())
    assert found["srocc"] > 0.95


def test_its_direction_is_kept(place):
    """Opinions that fall where the model rises are a negative correlation, which a ridge would turn round."""
    rows = [line.split(",") for line in (place / "rated.csv").read_text().splitlines()[1:]]
    (place / "rated.csv").write_text("path,mos\n" + "".join(f"{path},{-float(mos)}\n" for path, mos, _ in rows))
    out = place / "e.json"
    flags = ["--model", str(place / "model"), "--scores", str(place / "rated.csv"), "--no-control", "--out", str(out)]
    evaluate([*flags, "--splits", "4"])
    assert json.loads(out.read_text())["srocc"] < -0.9


def test_what_it_cannot_give_is_one_sentence(place, tmp_path):
    with pytest.raises(UserError, match="has no maps"):
        open_extractor(str(place / "model"), windows=True)
    description = json.loads((place / "model" / "model.json").read_text())
    (place / "model" / "model.json").write_text(json.dumps(description | {"architecture": {"depth": 3}}))
    with pytest.raises(UserError, match="architecture has unknown depth and lacks encoder, width"):
        open_extractor(str(place / "model"))
    (place / "model" / "model.json").write_text(json.dumps(description | {"recipe": "gone"}))
    with pytest.raises(UserError, match=r"there is no recipe 'gone'"):
        open_extractor(str(place / "model"))


def test_features_of_another_recipe_go_through_a_probe(place, monkeypatch, capsys):
    monkeypatch.setattr(toy, "gives", "features")
    monkeypatch.setattr(
        toy,
        "apply",
        lambda config, variables, x, valid, reference=None: toy._encoded(variables["params"], _corner(x)),
    )
    rated, probe = str(place / "rated.csv"), str(place / "p.npz")
    flags = ["--model", str(place / "model"), "--scores", rated, "--no-control", "--splits", "2", "--probe", probe]
    evaluate(flags)
    assert contrique_jax.load(place / "model").features([place / "00.png"]).shape == (1, 16)
    score(["--model", str(place / "model"), "--probe", probe, str(place / "00.png"), "--out", str(place / "s.csv")])
    assert (place / "s.csv").read_text().count("00.png") == 1


def _corner(x):
    """16 x 16 pixels of an image of any size."""
    return jnp.pad(x[:, :16, :16], ((0, 0), (0, max(16 - x.shape[1], 0)), (0, max(16 - x.shape[2], 0)), (0, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arniqa", "reiqa"])
def test_a_recipe_that_only_encodes_has_large_images_in_tiles(name):
    """Also at half size and beside another; in float32 whatever it was trained in."""
    recipe = recipe_named(name)
    config = recipe.Config()
    small = {"encoder": "resnet18", "base_width": 4, "projection_dim": 8, "compute_dtype": "bfloat16"}
    config.model = dataclasses.replace(config.model, **small)
    variables = recipe.finished(config, recipe.init(config, 0), {})[1]
    image = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    whole, tiled = (RecipeExtractor(config, variables, memory=memory) for memory in (1.0, 1e-5))
    found, wanted = tiled.features([image]), whole.features([image])
    assert tiled._runner._large(image.shape[:2]) and not whole._runner._large(image.shape[:2])
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())
    both = EnsembleExtractor({"one": (config, variables), "other": (config, variables)}, memory=1e-5)
    np.testing.assert_array_equal(both.features([image]), np.tile(found, 2))
