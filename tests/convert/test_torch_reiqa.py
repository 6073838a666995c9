"""Checkpoints of Re-IQA: encoder and head, both kinds, and Ridges on their features."""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest

from contrique_jax.convert import from_torch
from contrique_jax.convert.sklearn_probe import probe_from_sklearn
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.networks import pair_projector
from contrique_jax.networks.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN
from contrique_jax.networks.layers import RUNNING
from contrique_jax.networks.model_folder import load_model
from contrique_jax.probe import load_probe
from contrique_jax.training.load import load_any
from tests.convert.subverbs import run

torch = pytest.importorskip("torch")
linear_model = pytest.importorskip("sklearn.linear_model")

from tests.convert.torch_files import BASE, saved  # noqa: E402
from tests.torch_resnet import ReIQA, stirred  # noqa: E402

pytestmark = pytest.mark.torch


def test_a_file_of_re_iqa_is_a_whole_model_of_its_kind(tmp_path, capsys):
    """Its features are not normalised; its head, its Ridges; which kind it is, the file's name or a flag says."""
    image = np.random.default_rng(0).integers(0, 256, (70, 53, 3), dtype=np.uint8)
    torch.manual_seed(3)
    module = stirred(ReIQA("resnet18", BASE, 16))
    stored = {
        "model": {f"module.{k}": v for k, v in module.state_dict().items()},
        "model_ema": module.state_dict(),
        "contrast": {"memory": torch.zeros(8, 16)},
        "optimizer": torch.optim.SGD(module.parameters(), 0.1).state_dict(),
        "opt": argparse.Namespace(method="MoCov2", head="mlp"),
        "epoch": 4,
    }
    for file, flags, kind, scaling in (
        ("quality_aware_r50.pth", (), "quality", "unit"),
        ("content_aware_r50.pth", (), "content", "imagenet"),
        ("current.pth", ("--input-scaling", "imagenet"), "content", "imagenet"),
    ):
        out = tmp_path / file.removesuffix(".pth")
        run(from_torch, saved(tmp_path / file, stored), out, *flags)
        said = capsys.readouterr().out
        assert f"a {kind} model of the recipe 'reiqa', with its projector" in said
        assert "left out: model_ema, contrast, optimizer, opt, epoch" in said
        config, variables = load_any(str(out))
        assert (config.model.kind, config.model.input_scaling, config.model.projection_dim) == (kind, scaling, 16)
    encode = torch.nn.Sequential(*list(module.encoder.children())[:-1])
    with torch.no_grad():
        pixels = (image / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_DEVIATION)
        features = encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).mean((2, 3))
        projections = module.head(features).numpy()
    extractor = open_extractor(str(out))
    ours = extractor.features([image])[0, : extractor.width // 2]
    assert np.linalg.norm(ours - features.numpy()[0]) <= 1e-5 * np.linalg.norm(ours)
    z, _ = pair_projector.project(config.model.network, variables, image[None], RUNNING, unit=False)
    assert np.linalg.norm(z - projections) <= 1e-2 * np.linalg.norm(projections), "in bfloat16"
    ridge = linear_model.Ridge(alpha=2.0).fit(np.random.default_rng(0).random((9, extractor.width)), np.arange(9.0))
    (tmp_path / "ridge.save").write_bytes(pickle.dumps(ridge))
    told = ("--low", "0", "--high", "9", "--higher-is-better", "yes", "--model", out)
    run(probe_from_sklearn, tmp_path / "ridge.save", tmp_path / "p.npz", *told)
    assert load_probe(tmp_path / "p.npz").model_hash == extractor.model_hash
    run(from_torch, tmp_path / file, tmp_path / "stages", "--features", "stages")
    assert load_model(tmp_path / "stages")[0].features == "stages", "without its head an encoder like any"
    capsys.readouterr()
    run(from_torch, tmp_path / "content_aware_r50.pth", tmp_path / "alone", "--encoder-only")
    assert load_model(tmp_path / "alone")[0].input_scaling == "imagenet", "its name still says so"
    run(from_torch, tmp_path / file, tmp_path / "centred", "--input-scaling", "centred", code=2)
    said = capsys.readouterr().err
    assert "images are unit (quality) or imagenet (content), not centred" in said and said.count("\n") == 1
    run(from_torch, saved(tmp_path / "other.pth", stirred(ReIQA("resnet18", BASE, 16), 1).state_dict()), out, code=2)
    assert "holds another model" in capsys.readouterr().err
