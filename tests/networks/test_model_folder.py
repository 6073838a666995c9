"""Model folders: what is written is what is read, and every bad folder has its sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.description import DESCRIPTION
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import content_hash, load_model, save_model, to_flat
from contrique_jax.networks.weights_file import WEIGHTS
from contrique_jax.training.load import load_any

MODEL = ModelConfig("resnet18", base_width=4, projection_dim=8, compute_dtype="float32")


@pytest.fixture(scope="module")
def variables():
    return init_model(MODEL, 1)


@pytest.fixture
def folder(tmp_path: Path, variables) -> Path:
    save_model(tmp_path / "model", MODEL, variables, provenance={"steps": 10})
    return tmp_path / "model"


def _refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message and message.endswith(".")
    return message


def _rewrite_weights(folder: Path, change) -> None:
    flat = safetensors.numpy.load_file(folder / WEIGHTS)
    change(flat)
    safetensors.numpy.save_file(flat, folder / WEIGHTS)


def _rewrite_description(folder: Path, change) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    change(description)
    (folder / DESCRIPTION).write_text(json.dumps(description))


def test_round_trip_is_bit_equal(folder: Path, variables):
    model, loaded = load_model(folder)
    assert model == MODEL
    assert jax.tree.structure(loaded) == jax.tree.structure(variables)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, loaded, variables))
    assert content_hash(model, loaded) == content_hash(MODEL, variables)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["model"]
    assert sorted(p.name for p in folder.iterdir()) == [DESCRIPTION, WEIGHTS]


def test_names_and_layouts_are_torch_s(folder: Path):
    flat = safetensors.numpy.load_file(folder / WEIGHTS)
    assert flat["encoder.conv1.weight"].shape == (4, 3, 7, 7)
    assert flat["encoder.layer2.0.downsample.0.weight"].shape == (8, 4, 1, 1)
    assert flat["encoder.layer2.0.downsample.1.running_var"].shape == (8,)
    assert flat["projector.3.weight"].shape == (8, 32)
    assert {array.dtype for array in flat.values()} == {np.dtype("float32")}


def test_description_says_what_the_model_is(folder: Path):
    description = json.loads((folder / DESCRIPTION).read_text())
    assert description["architecture"]["encoder"] == "resnet18"
    assert description["provenance"] == {"steps": 10}
    assert description["format_version"] == 1 and description["licence"] and description["preprocessing"]


def test_saving_again_replaces_the_model_and_keeps_other_files(folder: Path):
    (folder / "NOTES").write_text("mine")
    other = init_model(MODEL, 2)
    save_model(folder, MODEL, other, provenance={}, licence="CC0")
    assert content_hash(*load_model(folder)) == content_hash(MODEL, other)
    assert (folder / "NOTES").read_text() == "mine"
    assert json.loads((folder / DESCRIPTION).read_text())["licence"] == "CC0"


def test_a_failed_save_leaves_the_old_model(folder: Path, variables):
    with pytest.raises(TypeError):
        save_model(folder, MODEL, init_model(MODEL, 2), provenance={"bad": object()})
    assert content_hash(*load_model(folder)) == content_hash(MODEL, variables)


def test_saving_over_a_file_is_refused(tmp_path: Path, variables):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        save_model(tmp_path / "taken", MODEL, variables, provenance={})


def test_every_field_of_an_architecture_survives(tmp_path, variables):
    model = dataclasses.replace(MODEL, norm_per_view=False, input_scaling="imagenet")
    save_model(tmp_path / "model", model, variables, provenance={})
    assert load_model(tmp_path / "model")[0] == model
    assert content_hash(model, variables) != content_hash(MODEL, variables)  # their features differ


def test_content_hash_tells_weights_apart(variables):
    other = jax.tree.map(lambda leaf: leaf, variables)
    weight = np.array(other["params"]["projector"]["3"]["weight"])
    weight[0, 0] += 1e-6
    other["params"]["projector"]["3"]["weight"] = weight
    assert content_hash(MODEL, other) != content_hash(MODEL, variables)
    assert len(content_hash(MODEL, variables)) == 12


def test_missing_folder_and_files(folder: Path):
    assert "no such model folder" in _refused(folder.parent / "nowhere")
    (folder / WEIGHTS).rename(folder / "elsewhere")
    assert f"{WEIGHTS} is missing" in _refused(folder)
    (folder / DESCRIPTION).unlink()
    assert f"{DESCRIPTION} is missing" in _refused(folder)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(folder: Path, keep: int):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:keep])
    assert "truncated" in _refused(folder)


def test_weights_that_are_something_else(folder: Path):
    (folder / WEIGHTS).write_bytes(b"PK\x03\x04" * 100)
    assert "safetensors" in _refused(folder)


def test_a_misfit_is_told_from_both_sides(folder: Path):
    def change(flat):
        flat["encoder.fc.weight"] = flat.pop("projector.3.weight")
        flat["encoder.bn1.bias"] = np.zeros(5, np.float32)
        flat["projector.4.bias"] = flat["projector.4.bias"].astype(np.float16)

    _rewrite_weights(folder, change)
    message = _refused(folder)
    for part in ("missing projector.3.weight", "extra encoder.fc.weight", "encoder.bn1.bias", "projector.4.bias"):
        assert part in message


def test_another_architecture_names_a_few_and_counts_the_rest(folder: Path):
    _rewrite_description(folder, lambda d: d["architecture"].update(encoder="resnet34"))
    message = _refused(folder)
    assert "missing encoder.layer1.2." in message and " more" in message and len(message) < 700


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_numbers(folder: Path, bad: float):
    def change(flat):
        flat["encoder.conv1.weight"][0, 0, 0, 0] = bad

    _rewrite_weights(folder, change)
    assert "encoder.conv1.weight" in _refused(folder)


def test_a_negative_variance_is_refused(folder: Path):
    _rewrite_weights(folder, lambda flat: flat["encoder.bn1.running_var"].__setitem__(0, -1))
    assert "a negative variance in encoder.bn1.running_var" in _refused(folder)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: d.update(format_version=99), "format version 99"),
        (lambda d: d.pop("format_version"), "format version None"),
        (lambda d: d.pop("architecture"), "architecture"),
        (lambda d: d["architecture"].pop("patches"), "architecture"),
        (lambda d: d["architecture"].update(depth=3), "depth"),
        (lambda d: d["architecture"].update(encoder="vgg16"), "vgg16"),
        (lambda d: d["architecture"].update(compute_dtype="int8"), "int8"),
        (lambda d: d["architecture"].update(base_width=0), "base_width"),
        (lambda d: d["architecture"].update(patches=True), "patches"),
        (lambda d: d["architecture"].update(base_width=10**9), "1000000000, and must be a whole number, 1 to 4096"),
        (lambda d: d["architecture"].update(base_width=8), "base_width is 8, and encoder.conv1.weight"),
        (lambda d: d["architecture"].update(projection_dim=10**9), "projection_dim is 1000000000"),
        (lambda d: d["architecture"].update(encoder="efficientnet_lite0"), "must be 64 for its encoder"),
        (lambda d: d["architecture"].update(encoder="\x1b[31m"), r"'\x1b[31m'"),
        (lambda d: d.update(format_version=True), "format version True"),
        (lambda d: d.update(recipe=["contrique"]), "recipe is ['contrique'], and must be a name"),
    ],
)
def test_a_description_that_cannot_be_right(folder: Path, change, part: str):
    _rewrite_description(folder, change)
    assert part in _refused(folder)


def test_what_another_recipe_s_model_claims_takes_no_memory(folder: Path):
    """Its weights, drawn at that width, would have 200 GB."""

    def change(description):
        description["recipe"] = "arniqa"
        description["architecture"].update(encoder="resnet152", base_width=4096, input_scaling="imagenet", patches=1)

    _rewrite_description(folder, change)
    with pytest.raises(UserError, match="the weights do not fit the architecture"):
        load_any(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", "[" * 100_000, '{"format_version": 1, "format_version": 1}'])
def test_a_description_that_is_no_json_object(folder: Path, text: str):
    (folder / DESCRIPTION).write_text(text)
    _refused(folder)


def test_flat_names_are_one_to_one(variables):
    assert len(to_flat(variables)) == len(jax.tree.leaves(variables))


def test_a_folder_from_before_a_field_existed_has_its_default(folder: Path):
    _rewrite_description(folder, lambda description: description["architecture"].pop("input_scaling"))
    assert load_model(folder)[0] == MODEL
    _rewrite_description(folder, lambda description: description["architecture"].update(input_scaling="bytes"))
    assert "input_scaling" in _refused(folder)


def test_an_encoder_needs_no_projector(tmp_path: Path):
    model = ModelConfig("resnet18", base_width=4, projection_dim=0, input_scaling="imagenet")
    save_model(tmp_path / "model", model, init_model(model, 1), provenance={})
    loaded, variables = load_model(tmp_path / "model")
    assert loaded == model and set(variables["params"]) == {"encoder"}
    assert json.loads((tmp_path / "model" / DESCRIPTION).read_text())["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
