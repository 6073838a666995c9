"""`train.init_from`: which weights a run starts from, what is refused, and that a resumed run does not look again."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from contrique_jax.errors import UserError, run_verb
from contrique_jax.main import main
from contrique_jax.networks.description import read_description
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import save_model
from contrique_jax.training.warm_start import starting_weights
from tests.tiny_config import get_config


@pytest.fixture
def folder(tmp_path):
    """A model folder of the tiny config's network, of other weights than its seed's."""
    model = get_config().model
    save_model(tmp_path / "start", model, init_model(model, 7), provenance={})
    return tmp_path / "start"


def config_from(spec, **model):
    config = get_config()
    config.train.init_from = str(spec)
    config.model = dataclasses.replace(config.model, **model)
    return config


def equal(ours, theirs) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(theirs)))


def test_without_a_model_the_seed_draws_all():
    assert equal(starting_weights(get_config()), init_model(get_config().model, 0))


def test_encoder_and_a_projector_that_fits(folder, capsys):
    assert equal(starting_weights(config_from(folder)), init_model(get_config().model, 7))
    assert capsys.readouterr().err == f"starting from {folder}: its encoder and its projector\n"


@pytest.mark.parametrize("changed", [{"projection_dim": 8}, {"features": "stages"}])
def test_a_projector_of_other_shapes_is_drawn_afresh(folder, capsys, changed):
    config = config_from(folder, **changed)
    found, theirs, fresh = starting_weights(config), init_model(get_config().model, 7), init_model(config.model, 0)
    for part in found:
        assert equal(found[part]["encoder"], theirs[part]["encoder"])
        assert equal(found[part]["projector"], fresh[part]["projector"])
    assert "a projector of fresh weights" in capsys.readouterr().err


def test_an_encoder_alone_is_enough(tmp_path):
    alone = dataclasses.replace(get_config().model, projection_dim=0)
    save_model(tmp_path / "encoder", alone, init_model(alone, 7), provenance={})
    found = starting_weights(config_from(tmp_path / "encoder"))
    assert equal(found["params"]["encoder"], init_model(alone, 7)["params"]["encoder"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"encoder": "resnet34"}, "its model.encoder is 'resnet10' and this run's is 'resnet34'"),
        ({"base_width": 8}, "its model.base_width is 4"),
        ({"input_scaling": "centred"}, "--config.model.input_scaling=unit"),
    ],
)
def test_another_encoder_is_refused(folder, changed, says):
    with pytest.raises(UserError) as caught:
        starting_weights(config_from(folder, **changed))
    assert says in str(caught.value) and f"config.train.init_from={folder}" in str(caught.value)


@pytest.mark.slow
def test_a_run_starts_there_and_goes_on_without_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")
    argv = [
        "--config=tests/tiny_config.py",
        f"--config.train.init_from={folder}",
        "--config.train.steps=2",
        "--devices=1",
        "--distributed=off",
    ]
    workdir = f"--workdir={tmp_path / 'run'}"
    wrong = run_verb(main, [*argv, workdir, "--config.model.encoder=resnet34"])
    said = capsys.readouterr().err
    assert wrong == 2 and said.count("\n") == 1 and "config.train.init_from" in said and not (tmp_path / "run").exists()

    assert not run_verb(main, [*argv, workdir])
    assert read_description(tmp_path / "run" / "model")["provenance"]["init_from"] == str(folder)
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(folder)
    assert not run_verb(main, [*argv, workdir])
    said = capsys.readouterr().err
    assert said.count("starting from") == 1 and "resuming resnet10" in said and (tmp_path / "run" / "model").exists()
    del argv[1]
    assert run_verb(main, [*argv, workdir]) == 2
    assert "train.init_from" in capsys.readouterr().err
