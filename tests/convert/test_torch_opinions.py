"""Files of AHIQ, IQA-Conformer and the frozen networks under them: recognised by name, whole, or refused in one sentence."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from contrique_jax.convert import from_torch
from contrique_jax.errors import UserError
from contrique_jax.networks.backbones import InceptionBackbone, VitBackbone, load_backbone
from contrique_jax.networks.model_folder import shapes_of, to_flat
from contrique_jax.recipes import recipe_named
from contrique_jax.recipes.ahiq.config import AhiqConfig, AhiqModel
from contrique_jax.recipes.conformer.config import ConformerConfig, ConformerModel
from contrique_jax.training.load import load_any
from tests.convert.subverbs import run
from tests.reference_weights import rebuilt

torch = pytest.importorskip("torch")

from tests.convert.torch_files import saved  # noqa: E402

pytestmark = pytest.mark.torch
VIT = VitBackbone(patch=8, width=64, heads=1, side=4, depth=6)
AHIQ = AhiqModel(
    vit_width=64, vit_heads=1, vit_side=4, base_width=4, fused=8, bottleneck=8, projected=8, smoothed=8, crop_size=32,
    compute_dtype="float32",
)  # fmt: skip
STEM = {"conv2d_1a": 0, "conv2d_2a": 1, "conv2d_2b": 2, "conv2d_3b": 4, "conv2d_4a": 5, "mixed_5b": 7}


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict of such arrays, with BatchNorm's counters."""
    counters = {name.replace("running_mean", "num_batches_tracked"): () for name in shapes if "running_mean" in name}
    return {name: torch.from_numpy(np.asarray(rebuilt(name, shape))) for name, shape in (shapes | counters).items()}


def shapes_for(config) -> dict[str, tuple[int, ...]]:
    return shapes_of(recipe_named(config.recipe).variable_shapes(config))


def part(shapes, *names: str) -> dict[str, tuple[int, ...]]:
    """Of several networks' arrays those of one, without its name."""
    return {name.split(".", 1)[1]: shape for name, shape in shapes.items() if name.split(".")[0] in names}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """AHIQ's heads as its program saves them, and timm's two networks under them."""
    folder, config = tmp_path_factory.mktemp("ahiq"), AhiqConfig(model=AHIQ)
    shapes = shapes_for(config)
    heads = {f"{name}_model_state_dict": tensors(part(shapes, name)) for name in ("deform_net", "regressor")}
    saved(folder / "AHIQ_vit_p8_epoch33.pth", heads | {"epoch": 33, "optimizer_state_dict": {"state": {}}, "loss": 0.1})
    vit = tensors(shapes_of(VIT.whole.shapes()))
    saved(folder / "vit.pth", vit | {"norm.weight": torch.ones(64), "head.weight": torch.zeros(10, 64)})
    resnet = tensors(part(shapes, "resnet50"))
    saved(folder / "resnet.pth", resnet | {"layer2.0.conv1.weight": torch.zeros(8, 16, 1, 1)})
    return folder


def refused(capsys, *argv) -> str:
    run(from_torch, *argv, code=2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_ahiqs_heads_and_both_networks_become_one_meter(files, tmp_path, capsys):
    heads = files / "AHIQ_vit_p8_epoch33.pth"
    frozen = ("--vit", files / "vit.pth", "--resnet", files / "resnet.pth")
    run(from_torch, heads, tmp_path / "ahiq", *frozen)
    said = capsys.readouterr().out
    assert "AHIQ's heads from AHIQ_vit_p8_epoch33.pth" in said and "left out: epoch, optimizer_state_dict, loss" in said
    config, variables = load_any(str(tmp_path / "ahiq"))
    assert config.recipe == "ahiq" and dataclasses.replace(config.model, trunk_hash="") == AHIQ
    names = [name for name in to_flat(variables) if name.startswith("vit.blocks.")]
    assert {name.split(".")[2] for name in names} == set("01234"), "blocks behind the last tap are not kept"
    for name, array in to_flat(variables).items():
        np.testing.assert_array_equal(array, rebuilt(name.split(".", 1)[1], array.shape), err_msg=name)
    images = np.random.default_rng(0).random((2, 40, 48, 3)).astype(np.float32)
    found = recipe_named("ahiq").apply(config, variables, images, None, images[::-1])
    assert np.isfinite(found).all() and found.shape == (2,)
    assert "holds a model" in refused(capsys, heads, tmp_path / "ahiq", *frozen)


def test_what_does_not_belong_to_ahiqs_heads_is_one_sentence(files, tmp_path, capsys):
    heads, out = files / "AHIQ_vit_p8_epoch33.pth", tmp_path / "out"
    vit, resnet = ("--vit", files / "vit.pth"), ("--resnet", files / "resnet.pth")
    assert "give --vit the file of vit_base_patch8_224.augreg_in21k_ft_in1k" in refused(capsys, heads, out, *vit)
    other = tensors(shapes_of(dataclasses.replace(VIT, patch=16).whole.shapes()))
    saved(tmp_path / "vit16.pth", other)
    said = refused(capsys, heads, out, "--vit", tmp_path / "vit16.pth", *resnet)
    assert "its name says patches of 8 pixels, and those of" in said and "are of 16" in said
    wide = tensors(shapes_of(dataclasses.replace(VIT, width=128, heads=2).whole.shapes()))
    saved(tmp_path / "wide.pth", wide)
    said = refused(capsys, heads, out, "--vit", tmp_path / "wide.pth", *resnet)
    assert "was trained on 320 channels of a ViT, and" in said and "gives 640" in said
    assert "is no ViT of timm's" in refused(capsys, heads, out, "--vit", files / "resnet.pth", *resnet)
    assert "is no ResNet-50" in refused(capsys, heads, out, *vit, "--resnet", files / "vit.pth")
    saved(tmp_path / "deep.pth", {**tensors(shapes_of(VIT.whole.shapes())), "blocks.99999999.x": torch.zeros(1)})
    assert "it has 100000000 blocks, and a ViT has 1 to 64" in refused(capsys, tmp_path / "deep.pth", out)
    assert not out.exists()


def test_a_vit_is_a_frozen_network_for_training(files, tmp_path, capsys):
    run(from_torch, files / "vit.pth", tmp_path / "vit")
    said = capsys.readouterr().out
    assert "patches of 8 pixels, 6 blocks of width 64" in said and "norm.weight [64], head.weight [10, 64]" in said
    found = load_backbone(str(tmp_path / "vit"), dataclasses.replace(VIT, depth=5), "config.model.vit")
    assert shapes_of(found) == shapes_of(VIT.whole.shapes())
    for wrong, words in (({"patch": 16}, "its patch is 8 and this run's is 16"), ({"depth": 7}, "its depth is 6")):
        with pytest.raises(UserError, match=words):
            load_backbone(str(tmp_path / "vit"), dataclasses.replace(VIT, **wrong), "config.model.vit")
    with pytest.raises(UserError, match="not a frozen inception_resnet_v2"):
        load_backbone(str(tmp_path / "vit"), InceptionBackbone(), "config.model.inception")
    with pytest.raises(UserError, match="holds a frozen network alone"):
        load_any(str(tmp_path / "vit"))


def of_release(model: ConformerModel) -> dict[str, torch.Tensor]:
    """A state dict by the names of IQA-Conformer's program."""
    config, theirs = ConformerConfig(model=model), {}
    for name, shape in shapes_for(config).items():
        kind, _, rest = name.partition(".")
        if kind == "inception":
            first, _, rest = rest.partition(".")
            number, _, tail = rest.partition(".")
            block = f"block35_{2 * (int(number) // 2) + 2}.{int(number) % 2}.{tail}" if first == "repeat" else ""
            name = block or f"mixed5b.{STEM[first]}.{rest}"
        theirs[name] = shape
    return tensors(theirs)


def test_a_release_of_iqa_conformer_is_a_meter_and_its_backbones_file_a_network(tmp_path, capsys):
    small = ConformerModel(width=8, hidden=16, compute_dtype="float32")
    stored = of_release(small)
    release = {"model_state_dict": stored, "ema_model_state_dict": None, "model_step": torch.tensor(5)}
    run(from_torch, saved(tmp_path / "swa.ckpt", release), tmp_path / "conformer")
    assert "scores 1000 to 1700, higher is better" in capsys.readouterr().out
    found, variables = load_any(str(tmp_path / "conformer"))
    assert (found.model.crops, found.model.score_unit, found.model.kind) == ("ten", 121.5351, "conformer")
    last = variables["params"]["inception"]["repeat"]["9"]["conv2d"]["bias"]
    np.testing.assert_array_equal(last, stored["block35_10.1.conv2d.bias"].numpy())
    plain = of_release(dataclasses.replace(small, kind="transformer"))
    run(from_torch, saved(tmp_path / "plain.ckpt", {"model_state_dict": plain}), tmp_path / "transformer")
    found, variables = load_any(str(tmp_path / "transformer"))
    assert (found.model.crops, found.model.hidden, found.model.kind) == ("ten", 16, "transformer")
    np.testing.assert_array_equal(variables["params"]["emb_q"]["weight"].T, plain["emb_q.weight"].numpy())
    saved(tmp_path / "mixed.ckpt", {"model_state_dict": stored | {"emb_q.weight": torch.zeros(2, 8)}})
    assert "the encoder's blocks are missing" in refused(capsys, tmp_path / "mixed.ckpt", tmp_path / "out")

    shapes = shapes_of(InceptionBackbone().whole.shapes())
    whole = tensors(shapes) | {"last_linear.bias": torch.zeros(1001)}
    run(from_torch, saved(tmp_path / "inception.pth", whole), tmp_path / "inception")
    assert "left out: last_linear.bias [1001]" in capsys.readouterr().out
    load_backbone(str(tmp_path / "inception"), InceptionBackbone(), "config.model.inception")
    broken = whole | {"repeat.3.conv2d.bias": torch.full((320,), float("nan"))}
    said = refused(capsys, saved(tmp_path / "nan.pth", broken), tmp_path / "nan")
    assert "NaN, infinity or a negative variance in repeat.3.conv2d.bias" in said


def test_frozen_weights_of_another_network_are_found_out(files, tmp_path):
    """By their hash, when the model is read."""
    run(
        from_torch, files / "AHIQ_vit_p8_epoch33.pth", tmp_path / "ahiq",
        "--vit", files / "vit.pth", "--resnet", files / "resnet.pth",
    )  # fmt: skip
    config, variables = load_any(str(tmp_path / "ahiq"))
    recipe = recipe_named("ahiq")
    changed = jax.tree.map(lambda leaf: leaf, variables)
    changed["params"]["vit"]["cls_token"] = changed["params"]["vit"]["cls_token"] + 1
    with pytest.raises(UserError, match=f"the rest was trained on {config.model.trunk_hash}"):
        recipe.check(config.model, changed)
    drawn = recipe.init(config, 0)
    config.train.init_from = "there"
    config.model = dataclasses.replace(AHIQ, vit="random", resnet="random")
    with pytest.raises(UserError, match="it stands on frozen weights"):
        recipe.take_over(config, drawn, load_any(str(tmp_path / "ahiq"))[0].model, variables)
