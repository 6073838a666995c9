"""PyTorch checkpoints: both ways bit for bit, the original's numbers, every family of names."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from contrique_jax.config import ModelConfig
from contrique_jax.convert import from_torch, to_torch
from contrique_jax.errors import run_verb
from contrique_jax.networks.encoder import encode, init_model, project
from contrique_jax.networks.model_folder import load_model, save_model, to_flat
from contrique_jax.training.load import load_network
from tests.convert.subverbs import run
from tests.reference_weights import our_name, reference_state_dict

torch = pytest.importorskip("torch")

from tests.convert.torch_files import BASE, saved  # noqa: E402
from tests.torch_resnet import Arniqa, Original, ReIQA, ResNet, stirred  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 53, 3), dtype=np.uint8)


def equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name


def same_variables(ours, theirs):
    ours, theirs = to_flat(ours), to_flat(theirs)
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def prepared(image, scaling="unit"):
    """The image as torch programs take it, [1, 3, H, W]."""
    x = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    if scaling == "unit":
        return x
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / deviation[:, None, None]


@functools.cache
def compiled(architecture):
    model = ModelConfig(*architecture)
    return jax.jit(lambda variables, image: encode(model, variables, image[None])[0])


def check_features(folder, module, image, scaling="unit"):
    """Full-scale features of the model folder against those of a torch module that ends in a map or a vector."""
    with torch.no_grad():
        out = module(prepared(image, scaling))
    out = torch.nn.functional.normalize(out.reshape(*out.shape[:2], -1).mean(2), dim=1)[0].numpy()
    model, variables = load_network(str(folder))
    encoder = {kind: {"encoder": tree["encoder"]} for kind, tree in variables.items()}
    network = compiled(dataclasses.astuple(dataclasses.replace(model, compute_dtype="float32", projection_dim=0)))
    ours = network(encoder, image)
    assert np.linalg.norm(ours - out) <= 1e-5 * np.linalg.norm(out)


def test_torch_to_ours_to_torch_is_bit_equal(original, image, tmp_path):
    state = original.state_dict()
    run(from_torch, saved(tmp_path / "in.tar", state), tmp_path / "model")
    model, _ = load_model(tmp_path / "model")
    assert model == ModelConfig("resnet18", base_width=BASE, projection_dim=16)
    run(to_torch, tmp_path / "model", tmp_path / "out.tar")
    back = torch.load(tmp_path / "out.tar", weights_only=True)
    equal(back, state)  # with num_batches_tracked, which is 7
    again = Original("resnet18", BASE, 16).eval()
    again.load_state_dict(back, strict=True)
    check_features(tmp_path / "model", again.encoder, image)


@pytest.mark.parametrize("encoder", ["resnet34", "resnet50", "resnet101", "resnet152"])
def test_ours_to_torch_to_ours_is_bit_equal(encoder, tmp_path):
    model = ModelConfig(encoder, base_width=4, projection_dim=8)
    variables = init_model(model, 1)
    save_model(tmp_path / "model", model, variables, provenance={})
    run(to_torch, tmp_path / "model", tmp_path / "out.pth")
    Original(encoder, 4, 8).load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    run(from_torch, tmp_path / "out.pth", tmp_path / "again")
    assert load_model(tmp_path / "again")[0] == model
    same_variables(load_model(tmp_path / "again")[1], variables)


def test_encoder_alone_is_torchvision_s(tmp_path, image, capsys):
    model = ModelConfig("resnet50", base_width=4, projection_dim=8)
    save_model(tmp_path / "model", model, init_model(model, 1), provenance={})
    run(to_torch, tmp_path / "model", tmp_path / "out.pth", "--encoder-only")
    resnet = ResNet("resnet50", 4).eval()
    resnet.fc = torch.nn.Identity()
    resnet.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    check_features(tmp_path / "model", resnet, image)
    assert "torchvision's resnet50 without fc" in capsys.readouterr().out
    run(from_torch, tmp_path / "out.pth", tmp_path / "again")  # without fc it is no classifier: [0, 1] goes in
    assert load_model(tmp_path / "again")[0].input_scaling == "unit"
    check_features(tmp_path / "again", resnet, image)


def test_the_original_s_numbers(shared, tmp_path, capsys):
    state = reference_state_dict(shared)
    stored = {f"module.{name}": torch.from_numpy(np.array(array)) for name, array in state.items()}
    run(from_torch, saved(tmp_path / "checkpoint_25.tar", stored), tmp_path / "model")
    assert "resnet50" in capsys.readouterr().out
    model, variables = load_network(str(tmp_path / "model"))
    flat = to_flat(variables)
    assert all(np.array_equal(flat[our_name(k)], v) for k, v in state.items() if not k.endswith("tracked"))
    with np.load(shared / "reference" / "model_eval.npz") as wanted:
        images = [wanted[f"{scale}{i}"] for scale in ("image", "half") for i in range(4)]
        theirs = np.stack([wanted[f"feature{i}"] for i in range(4)])
    batch, valid = np.zeros((8, 384, 512, 3), np.uint8), np.zeros((8, 2), np.int32)
    for i, x in enumerate(images):
        batch[i, : x.shape[0], : x.shape[1]], valid[i] = x, x.shape[:2]
    for dtype in ("float32", "bfloat16"):
        network = functools.partial(encode, dataclasses.replace(model, compute_dtype=dtype))
        ours = np.concatenate(np.split(np.asarray(jax.jit(network)(variables, batch, valid)), 2), axis=1)
        errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosines.min() >= 0.9999 and (dtype == "bfloat16" or errors.max() <= 1e-4)
    run(to_torch, tmp_path / "model", tmp_path / "out.tar")
    back = torch.load(tmp_path / "out.tar", weights_only=True)
    equal(back, {name.removeprefix("module."): tensor for name, tensor in stored.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(original, dtype, tmp_path):
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in original.state_dict().items()}
    run(from_torch, saved(tmp_path / "in.pth", state), tmp_path / "model")
    run(to_torch, tmp_path / "model", tmp_path / "out.pth")
    equal(
        torch.load(tmp_path / "out.pth", weights_only=True),
        {k: v.float() if v.is_floating_point() else v for k, v in state.items()},
    )


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_training_checkpoints_with_extra_keys(original, wrapper, tmp_path, capsys):
    state = original.state_dict()
    inner = {f"module.{k}": v for k, v in state.items()} | {"module.fc.weight": torch.zeros(5, 2)}
    optimiser = torch.optim.SGD(original.parameters(), 0.1).state_dict()
    stored = {"epoch": 3, wrapper: inner, "optimizer": optimiser, "opt": argparse.Namespace(lr=0.1)}
    run(from_torch, saved(tmp_path / "in.tar", stored), tmp_path / "model")
    said = capsys.readouterr().out
    assert "left out: fc.weight [5, 2], epoch, optimizer, opt" in said
    run(to_torch, tmp_path / "model", tmp_path / "out.tar")
    equal(torch.load(tmp_path / "out.tar", weights_only=True), state)


def test_files_of_other_programs(tmp_path, image, capsys):
    """Encoders of torchvision, ARNIQA and Re-IQA, of these without their projectors: their features, and nothing to train."""
    torch.manual_seed(1)
    resnet = stirred(ResNet("resnet18", BASE))
    arniqa = stirred(Arniqa("resnet18", BASE))
    reiqa = stirred(ReIQA("resnet18", BASE))
    moco = {f"module.encoder_{kind}.{k}": v for kind in "qk" for k, v in resnet.state_dict().items()}
    alone = {k: v for k, v in arniqa.state_dict().items() if k.startswith("model.")}
    behind = {f"encoder.{k}": v for k, v in alone.items()}
    data_parallel = {f"module.{k}": v for k, v in reiqa.state_dict().items() if not k.startswith("head.")}
    encode_resnet = torch.nn.Sequential(*list(resnet.children())[:-2])
    encode_reiqa = torch.nn.Sequential(*list(reiqa.encoder.children())[:-1])
    bare = encode_resnet.state_dict()
    content = ("--input-scaling", "imagenet")
    for name, stored, module, scaling, flags in (
        ("torchvision", resnet.state_dict(), encode_resnet, "imagenet", ()),
        ("ARNIQA's encoder", alone, arniqa.model, "imagenet", ()),
        ("ARNIQA's encoder in training", {"model_state_dict": behind, "epoch": 9}, arniqa.model, "imagenet", ()),
        ("this program", {"model": data_parallel, "contrast": {}}, encode_reiqa, "unit", ()),
        ("this program", {"model": data_parallel, "contrast": {}}, encode_reiqa, "imagenet", content),
        ("an encoder alone", bare, encode_resnet, "imagenet", content),
        ("an encoder alone", bare, encode_resnet, "unit", ()),
        ("MoCo", {"state_dict": moco}, encode_resnet, "imagenet", ()),
    ):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        run(from_torch, saved(tmp_path / "in.pth", stored), tmp_path / "model", *flags)
        said = capsys.readouterr().out
        assert f"names of {name}" in said and "no projector" in said
        assert ("left out:" in said) == (name not in ("an encoder alone", "ARNIQA's encoder")) and (
            "a guess" in said
        ) == (stored is bare and not flags)
        check_features(tmp_path / "model", module, image, scaling)
    model, variables = load_model(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert model.projection_dim == 0 and description["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    train = lambda _: project(model, variables, np.zeros((1, 2, 64, 64, 3), np.float32))  # noqa: E731
    assert run_verb(train, []) == 2 and "without a projector" in capsys.readouterr().err
    run(to_torch, tmp_path / "model", tmp_path / "out.pth", code=2)
    assert "add --encoder-only" in capsys.readouterr().err and not (tmp_path / "out.pth").exists()
    run(to_torch, tmp_path / "model", tmp_path / "out.pth", "--encoder-only")
    assert "images in [0, 1] less [0.485" in capsys.readouterr().out
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    equal(back, {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")})


def test_a_resnet18_of_torchvision_s_size(tmp_path, image):
    torch.manual_seed(2)
    resnet = stirred(ResNet("resnet18"))
    run(from_torch, saved(tmp_path / "resnet18-f37072fd.pth", resnet.state_dict()), tmp_path / "model")
    assert load_model(tmp_path / "model")[0] == ModelConfig("resnet18", projection_dim=0, input_scaling="imagenet")
    resnet.fc = torch.nn.Identity()
    check_features(tmp_path / "model", resnet, image, "imagenet")


def test_mistakes_of_to_torch(tmp_path, capsys):
    for arguments, says in (
        ((tmp_path / "absent", tmp_path / "out.tar"), "no folder"),
        ((tmp_path, tmp_path / "out.tar"), "neither a model folder nor"),
        (("random:resnet18", tmp_path / "out.npz"), "should end in"),
    ):
        run(to_torch, *arguments, code=2)
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_training_checkpoint_converts_without_its_optimiser(tmp_path, capsys):
    from contrique_jax.config import Config
    from contrique_jax.training.checkpoint import Checkpoints
    from contrique_jax.training.step import init_state

    config = Config(model=ModelConfig("resnet18", base_width=4, projection_dim=8))
    state = init_state(config, 10)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(3, state, config)
    checkpoints.close()
    run(to_torch, tmp_path / "run", tmp_path / "out.tar")
    assert "optimiser's state and the step stay" in capsys.readouterr().out
    Original("resnet18", 4, 8).load_state_dict(torch.load(tmp_path / "out.tar", weights_only=True), strict=True)
    run(from_torch, tmp_path / "out.tar", tmp_path / "model")
    same_variables(load_model(tmp_path / "model")[1], load_network(str(tmp_path / "run"))[1])


def test_a_training_checkpoint_with_nan_is_refused(tmp_path, capsys):
    from contrique_jax.config import Config
    from contrique_jax.training.checkpoint import Checkpoints
    from contrique_jax.training.step import init_state

    config = Config(model=ModelConfig("resnet18", base_width=4, projection_dim=8))
    state = init_state(config, 10)
    state = state.replace(variables=jax.tree.map(lambda leaf: leaf * np.nan, state.variables))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(3, state, config)
    checkpoints.close()
    run(to_torch, tmp_path / "run", tmp_path / "out.tar", code=2)
    assert "NaN or infinity among the weights" in capsys.readouterr().err
    assert not (tmp_path / "out.tar").exists()
