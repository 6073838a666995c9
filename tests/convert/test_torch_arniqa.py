"""ARNIQA's checkpoints whole, as it saves them, and its scores: the mean prediction over five crops at two sizes."""

from __future__ import annotations

import collections
import sys
import types

import numpy as np
import pytest
from PIL import Image

from contrique_jax import score
from contrique_jax.convert import from_torch
from contrique_jax.convert.torch_probe import probe_from_torch
from contrique_jax.errors import run_verb
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.networks.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN
from contrique_jax.networks.model_folder import load_model
from contrique_jax.training.load import load_any
from tests.convert.script_files import changed, pickled
from tests.convert.subverbs import run

torch = pytest.importorskip("torch")

from tests.convert.torch_files import BASE, saved  # noqa: E402
from tests.torch_resnet import Arniqa, stirred  # noqa: E402

pytestmark = pytest.mark.torch
SIDE, WIDTH = 224, 16 * BASE  # of a crop; of a ResNet-18's last map at both sizes


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(4)
    return stirred(Arniqa("resnet18", BASE, 16))


def scaled(image: Image.Image) -> torch.Tensor:
    pixels = (np.asarray(image) / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_DEVIATION)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def features_of(module, images: list[Image.Image]) -> np.ndarray:
    with torch.no_grad():
        found = module.model(torch.stack([scaled(image) for image in images])).flatten(1)
    return torch.nn.functional.normalize(found, dim=1).numpy()


def crops_of(image: Image.Image) -> list[Image.Image]:
    """Pillow's own crop, which is black beyond the image."""
    width, height = image.size
    left, top = width - SIDE, height - SIDE
    corners = [(width // 2 - SIDE // 2, height // 2 - SIDE // 2), (0, 0), (0, top), (left, 0), (left, top)]
    return [image.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def test_scores_are_those_of_its_test(module, tmp_path, capsys):
    """A ridge's mean prediction over the rows of five crops, each full and half size side by side."""
    run(from_torch, saved(tmp_path / "ARNIQA.pth", module.state_dict()), tmp_path / "arniqa")
    assert "it looks at five crops of 224 pixels, at full and at half size" in capsys.readouterr().out
    weights = np.random.default_rng(0).normal(size=WIDTH).astype(np.float32)
    sizes = pickled().replace(b"(K\x01K\x08t", b"(K\x01K%ct" % WIDTH, 1)
    regressor = changed(tmp_path / "regressor_koniq10k.pth", data=sizes, **{"0": weights.tobytes()})
    run(probe_from_torch, regressor, tmp_path / "p.npz", "--model", tmp_path / "arniqa")
    wanted = []
    for i, size in enumerate([(301, 260, 3), (200, 470, 3), (90, 61, 3)]):  # some crops reach beyond the image
        image = Image.fromarray(np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8))
        image.save(tmp_path / f"{i}.png")
        half = image.resize((image.width // 2, image.height // 2))
        rows = np.concatenate([features_of(module, crops_of(x)) for x in (image, half)], axis=1)
        wanted.append(np.mean(rows @ weights + np.float32(3.5)))
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    arguments = ["--model", str(tmp_path / "arniqa"), "--probe", str(tmp_path / "p.npz"), *files]
    capsys.readouterr()
    assert run_verb(score.main, arguments) == 0
    found = [float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:]]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    run(from_torch, tmp_path / "ARNIQA.pth", tmp_path / "whole", "--crops", "whole")
    assert "it looks at the whole image" in capsys.readouterr().out
    arguments[1] = str(tmp_path / "whole")
    assert run_verb(score.main, arguments) == 2, "a probe is of one way to look"
    assert "it was fitted on the features of model" in capsys.readouterr().err


class DotMap(collections.OrderedDict):
    """A run's settings as ARNIQA keeps them, with paths and NumPy's numbers."""


def test_a_training_checkpoint_is_a_whole_model_and_its_settings_are_not_run(module, tmp_path, monkeypatch, capsys):
    behind = {f"encoder.{name}": tensor for name, tensor in module.state_dict().items()}
    monkeypatch.setattr(DotMap, "__module__", "dotmap")
    monkeypatch.setitem(sys.modules, "dotmap", types.SimpleNamespace(DotMap=DotMap))
    settings = DotMap(data_base_path=tmp_path, last_srocc=np.float64(0.8))
    settings["training"] = DotMap(lr=0.001)
    settings.note = "kept beside the items"
    optimiser = torch.optim.SGD(module.parameters(), 0.1).state_dict()
    stored = {"model_state_dict": behind, "optimizer_state_dict": optimiser, "epoch": 9, "config": settings}
    saved(tmp_path / "last_epoch_9.pth", stored)
    monkeypatch.delitem(sys.modules, "dotmap")
    run(from_torch, tmp_path / "last_epoch_9.pth", tmp_path / "model")
    said = capsys.readouterr().out
    assert "names of ARNIQA in training" in said and "left out: optimizer_state_dict, epoch, config" in said
    run(from_torch, saved(tmp_path / "best.pth", behind), tmp_path / "again")
    hashes = {open_extractor(str(tmp_path / name)).model_hash for name in ("model", "again")}
    assert len(hashes) == 1
    config, variables = load_any(str(tmp_path / "model"))
    assert (config.recipe, config.model.crops, config.model.projection_dim) == ("arniqa", "five", 16)
    for number in ("0", "2"):
        for kind, array in variables["params"]["projector"][number].items():
            wanted = module.projector.state_dict()[f"{number}.{kind}"].numpy()
            np.testing.assert_array_equal(array, wanted.T)


def test_crops_are_of_its_whole_files_alone(module, tmp_path, capsys):
    alone = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("model.")}
    for number, (stored, flags) in enumerate(((alone, ()), (module.state_dict(), ("--features", "stages")))):
        path = saved(tmp_path / f"{number}.pth", stored)
        run(from_torch, path, tmp_path / "model", "--crops", "five", *flags, code=2)
        said = capsys.readouterr().err
        assert "not a whole file of ARNIQA's, which --crops is for" in said and said.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_its_encoder_alone_is_one_of_contriques_kind(module, tmp_path, capsys):
    """Which has maps, and can stand under other networks."""
    path = saved(tmp_path / "ARNIQA.pth", module.state_dict())
    run(from_torch, path, tmp_path / "model", "--encoder-only")
    assert "left out: projector.0.weight" in capsys.readouterr().out
    model, variables = load_model(tmp_path / "model")
    assert (model.projection_dim, model.input_scaling) == (0, "imagenet") and "projector" not in variables["params"]
