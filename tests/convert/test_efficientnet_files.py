"""EfficientNet-Lite0 from the package efficientnet_lite_pytorch and from timm, and there and back."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from contrique_jax.config import ModelConfig
from contrique_jax.convert import from_torch, to_torch
from contrique_jax.convert.torch_file import read_state_dict
from contrique_jax.data.sizes import half_size
from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.description import read_description
from contrique_jax.networks.encoder import encode, init_model
from contrique_jax.networks.model_folder import load_model, save_model, to_flat
from tests.convert.subverbs import run

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def package():
    """The package's network without its 1000 classes, of random weights that leave something of every map."""
    found = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install torch efficientnet_lite_pytorch")
    torch.manual_seed(0)
    return stirred(found.EfficientNet.from_name("efficientnet-lite0"))


def timms():
    try:
        import timm
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision for another torch raises the latter two
        pytest.skip(f"timm cannot be imported ({error}); pip install timm with torch and a torchvision that fits it")
    torch.manual_seed(1)
    return stirred(timm.create_model("tf_efficientnet_lite0", pretrained=False))


def stirred(network):
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.bias, 0.0, 1.0)
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return network.eval()


def last_map(network, images):
    """[n, h, w, 1280] of uint8 images [n, h, w, 3]."""
    x = torch.tensor((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        maps = network.extract_features(x) if hasattr(network, "extract_features") else network.forward_features(x)
        if maps.shape[1] != 1280:
            maps = network.conv_head(maps)
    return maps.permute(0, 2, 3, 1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "sizes"),
    [(package, [(224, 224), (256, 192)]), (timms, [(301, 217), (224, 224)])],
    ids=["package", "timm"],
)
def test_features_equal_theirs(build, sizes, tmp_path, capsys):
    network = build()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    run(from_torch, tmp_path / "theirs.pth", tmp_path / "model", "--licence", "Apache-2.0")
    said = capsys.readouterr().out
    assert "efficientnet_lite0" in said and "less 127" in said and "left out" in said
    model, variables = load_model(tmp_path / "model")
    assert (model.input_scaling, model.features, model.projection_dim) == ("centred", "pooled", 0)
    assert read_description(tmp_path / "model")["licence"] == "Apache-2.0"
    model = dataclasses.replace(model, compute_dtype="float32")
    for size in sizes:
        images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
        pooled = last_map(network, images).mean((1, 2))
        wanted = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        found = jax.jit(lambda images: encode(model, variables, images))(images)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * wanted.max())


def test_a_projector_goes_there_and_back_with_it(tmp_path, capsys):
    model = ModelConfig("efficientnet_lite0", projection_dim=8)
    variables = init_model(model, 0)
    save_model(tmp_path / "model", model, variables, provenance={})
    run(to_torch, tmp_path / "model", tmp_path / "whole.pth")
    assert "--input-scaling unit" in capsys.readouterr().out
    named = read_state_dict(tmp_path / "whole.pth")[0]
    assert {"encoder.bn1.weight", "encoder.blocks.0.0.conv_dw.weight", "projector.0.weight"} <= named.keys()
    run(from_torch, tmp_path / "whole.pth", tmp_path / "again", "--input-scaling", "unit")
    again, weights = load_model(tmp_path / "again")
    first, second = to_flat(variables), to_flat(weights)
    assert again == dataclasses.replace(model, compute_dtype=again.compute_dtype)
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_there_and_back_is_bit_equal(tmp_path, capsys):
    network = package()
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "theirs.pth")
    run(from_torch, tmp_path / "theirs.pth", tmp_path / "model", "--features", "stages")
    run(to_torch, tmp_path / "model", tmp_path / "timm.pth", "--encoder-only")
    run(from_torch, tmp_path / "timm.pth", tmp_path / "again", "--features", "stages")
    assert "--features stages" in capsys.readouterr().out
    (model, first), (same, second) = load_model(tmp_path / "model"), load_model(tmp_path / "again")
    assert model == same and model.features == "stages"
    first, second = to_flat(first), to_flat(second)
    assert first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    named, theirs = read_state_dict(tmp_path / "timm.pth")[0], network.state_dict()
    np.testing.assert_array_equal(named["blocks.1.0.conv_dw.weight"], theirs["_blocks.1._depthwise_conv.weight"])
    np.testing.assert_array_equal(named["blocks.6.0.conv_pwl.weight"], theirs["_blocks.15._project_conv.weight"])
    np.testing.assert_array_equal(named["bn2.running_var"], theirs["_bn1.running_var"])


def test_timm_loads_what_is_written_for_it(tmp_path):
    network = timms()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    run(from_torch, tmp_path / "theirs.pth", tmp_path / "model")
    run(to_torch, tmp_path / "model", tmp_path / "ours.pth", "--encoder-only")
    network.reset_classifier(0)
    network.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True), strict=True)


def test_another_lite_is_refused_with_a_list(tmp_path, capsys):
    network = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install torch efficientnet_lite_pytorch")
    torch.save(network.EfficientNet.from_name("efficientnet-lite1").state_dict(), tmp_path / "lite1.pth")
    run(from_torch, tmp_path / "lite1.pth", tmp_path / "model", code=2)
    assert "do not fit a efficientnet_lite0" in capsys.readouterr().err and not (tmp_path / "model").exists()


@pytest.mark.slow
def test_features_of_all_stages_at_two_scales(tmp_path):
    torch.save(package().state_dict(), tmp_path / "theirs.pth")
    run(from_torch, tmp_path / "theirs.pth", tmp_path / "model", "--features", "stages")
    extractor = Extractor(*load_model(tmp_path / "model"))
    images = [
        np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate([(40, 61), (65, 50)])
    ]
    features = extractor.features(images)
    assert features.shape == (2, 2 * 1568)
    described = jax.jit(lambda images: encode(extractor.model, extractor.variables, images))
    for image, row in zip(images, features, strict=True):
        for part, scale in zip(np.split(row, 2), (image, half_size(image)), strict=True):
            alone = np.asarray(described(scale[None]))[0]
            np.testing.assert_allclose(part, alone, atol=2e-5 * np.abs(alone).max())
