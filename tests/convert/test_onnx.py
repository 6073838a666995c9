"""The ONNX graph, run by a runtime nobody here wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest

from contrique_jax.config import ModelConfig
from contrique_jax.convert import to_onnx
from contrique_jax.data.sizes import half_size
from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.encoder import feature_width, init_model
from contrique_jax.networks.model_folder import content_hash, load_model, save_model
from tests.convert.subverbs import run

onnxruntime = pytest.importorskip("onnxruntime")


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def nchw(images):
    return np.stack(images).astype(np.float32).transpose(0, 3, 1, 2) / 255


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig("resnet18", base_width=16, projection_dim=8),
        pytest.param(
            ModelConfig("resnet50", base_width=8, projection_dim=0, input_scaling="imagenet"), marks=pytest.mark.slow
        ),
        ModelConfig("resnet18", base_width=8, projection_dim=0, features="stages"),
        pytest.param(
            ModelConfig("efficientnet_lite0", projection_dim=0, input_scaling="centred", features="stages"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_features_at_two_sizes_and_batch_sizes(model, tmp_path, capsys):
    variables = init_model(model, 2)
    variables["batch_stats"] = {
        "encoder": _moved(variables["batch_stats"]["encoder"], np.random.default_rng(3))
    } | {k: v for k, v in variables["batch_stats"].items() if k != "encoder"}  # fmt: skip
    save_model(tmp_path / "model", model, variables, provenance={}, licence="mine")
    run(to_onnx, tmp_path / "model", tmp_path / "encoder.onnx")
    assert f"features [batch, {feature_width(model)}]" in capsys.readouterr().out
    network, extractor = session(tmp_path / "encoder.onnx"), Extractor(*load_model(tmp_path / "model"))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(59, 90)] + [(64, 96)] * 3]
    wanted = extractor.features(images)
    for rows in (slice(0, 1), slice(1, 4)):
        (full,) = network.run(None, {"images": nchw(images[rows])})
        (half,) = network.run(None, {"images": nchw([half_size(image) for image in images[rows]])})
        found = np.concatenate([full, half], axis=1)
        np.testing.assert_allclose(found, wanted[rows], atol=1e-4 * np.abs(wanted).max())
    notes = network.get_modelmeta().custom_metadata_map
    assert notes["model_hash"] == content_hash(model, variables) and notes["licence"] == "mine"
    assert json.loads(notes["architecture"])["encoder"] == model.encoder and "Run it twice" in notes["two_scales"]


def _moved(tree, rng):
    return {
        name: _moved(value, rng) if isinstance(value, dict) else rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        for name, value in tree.items()
    }


def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, capsys, monkeypatch):
    run(to_onnx, tmp_path / "absent", tmp_path / "out.onnx", code=2)
    run(to_onnx, "random:resnet18", tmp_path / "out.pth", code=2)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    run(to_onnx, "random:resnet18", tmp_path / "out.onnx", code=2)
    said = capsys.readouterr().err
    assert "no folder" in said and "should end in .onnx" in said and "contrique-jax[onnx]" in said
    assert said.count("\n") == 3 and not list(tmp_path.iterdir())
