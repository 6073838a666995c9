"""What others rely on: names that can be imported, commands, and files that earlier versions wrote."""

from __future__ import annotations

import importlib
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import contrique_jax
from contrique_jax.config import Config, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.errors import run_verb
from contrique_jax.evaluate import main as evaluate
from contrique_jax.main import main as train
from contrique_jax.probe import load_probe
from tests.planted import write_images
from tests.tiny_config import get_config as tiny_config

BEFORE = Path(__file__).parent / "data_before"
MODEL_HASH = "694b39fd3216"
NAMES = {
    "contrique_jax": "__version__ load",
    "contrique_jax.cli": "VERBS entry main usage",
    "contrique_jax.config": "Config DataConfig LossConfig ModelConfig OptimConfig TrainConfig first_difference to_json",
    "contrique_jax.data.iqa_sets": "LOWER_IS_BETTER SCORE_COLUMNS ScoredImages csv_columns read_scores read_set",
    "contrique_jax.data.iqa_tfds": "builder_class main",
    "contrique_jax.data.scenes": "authentic_scene pristine_scene",
    "contrique_jax.distort": "BANK apply class_id",
    "contrique_jax.distort.bank": "BANK NUM_CLASSES NUM_LEVELS class_id",
    "contrique_jax.errors": "BrokenImage Parser UserError run_verb",
    "contrique_jax.probe": "FULL_REFERENCE NO_REFERENCE Probe fit_ridge float64 load_probe ridge_path",
}
VERBS = ["main", "cli", "plan", "features", "evaluate", "score", "gallery", "distort", "convert", "data.iqa_tfds"]


def get_config() -> Config:
    """Of the run in data_before/."""
    config = tiny_config()
    config.model = ModelConfig(encoder="resnet18", base_width=4, projection_dim=8, compute_dtype="float32")
    config.optim = OptimConfig(learning_rate=0.05)
    config.train = TrainConfig(steps=4, checkpoint_every=2, log_every=1)
    return config


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """checkpoints/, model/ and the other files, as they were written."""
    place = tmp_path_factory.mktemp("before")
    for path in BEFORE.iterdir():
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as packed:
                packed.extractall(place)
        else:
            shutil.copy(path, place)
    return place


@pytest.mark.parametrize("module", sorted(NAMES))
def test_names_can_be_imported(module):
    found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


@pytest.mark.parametrize("verb", VERBS)
def test_commands_say_what_they_do(verb, capsys):
    name = f"contrique_jax.{verb}"
    found = importlib.import_module(f"{name}.__main__" if verb in ("distort", "convert") else name)
    try:
        assert run_verb(found.main, ["--help"]) == 0
    except SystemExit as end:
        assert not end.code
    assert "example" in capsys.readouterr().out.lower()


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint(place, tmp_path):
    """config.json is this config's, the first steps' metrics stay, and the others come out as they did."""
    run = tmp_path / "run"
    shutil.copytree(place / "checkpoints", run / "checkpoints")
    lines = (place / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:2]))
    shutil.copy(place / "config.json", run)
    config = f"--config={__file__}"
    assert run_verb(train, [config, f"--workdir={run}", "--devices=1", "--distributed=off"]) == 0
    found = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert found[:2] == lines[:2] and len(found) == 4
    for ours, theirs in zip(map(json.loads, found[2:]), map(json.loads, lines[2:]), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-6)
        # another kind of CPU rounds otherwise, and a loss of 16 images follows
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
    assert (run / "model" / "model.json").is_file()


def test_a_checkpoint_is_a_model(place):
    model = contrique_jax.load(place / "checkpoints" / "2")
    assert repr(model) == "<resnet18, 64 features, model 4b6f9cfda7be>"


def test_a_model_folder_and_a_probe_give_the_scores_they_gave(place):
    model = contrique_jax.load(place / "model", probe=place / "probe.npz")
    assert repr(model) == f"<resnet18, 64 features, model {MODEL_HASH}, probe of images>"
    scenes = [pristine_scene(0, index, 96, 64) for index in range(2)]
    np.testing.assert_allclose(model.score(scenes), [3.22595178, 3.38347581], rtol=1e-4)
    deviations = model.probe.deviations(model.features(scenes))
    np.testing.assert_allclose(deviations, [4.10575311, 3.47924537], rtol=1e-3)
    probe = load_probe(place / "probe.npz")
    assert probe.alpha == pytest.approx(0.00464159) and probe.direction == "higher is better"


def test_a_file_of_splits_is_taken(place, tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")
    scores = write_images(tmp_path / "images", count=160)
    argv = ["--model", place / "model", "--scores", scores, "--splits-file", place / "splits.json", "--no-control"]
    assert run_verb(evaluate, [str(word) for word in [*argv, "--out", tmp_path / "out.json"]]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["splits_hash"] == "a7df7f20fa54" and found["model_hash"] == MODEL_HASH
    assert found["srocc"] == pytest.approx(0.1893, abs=0.03)
