"""SaTQA against numbers of the original program, and what its pairs promise."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from contrique_jax.config import ModelConfig
from contrique_jax.distort import bank
from contrique_jax.errors import UserError
from contrique_jax.networks.grid_encoder import GridEncoder
from contrique_jax.networks.layers import RUNNING
from contrique_jax.networks.model_folder import from_flat, save_model
from contrique_jax.recipes.satqa import pretrain, recipe
from contrique_jax.recipes.satqa.config import GridModel, PretrainConfig, PretrainData, SatqaConfig, SatqaModel
from contrique_jax.training import mesh
from contrique_jax.training.flags import parse_flags
from tests.reference_weights import close, system_state

WHOLE = GridModel("resnet50", compute_dtype="float32", reduced_width=512)


def encoder_variables(shared) -> dict:
    """The original's weights by the reference's rule, as variables of `WHOLE`; each array once, and no unused classifier."""
    flat = {}
    for name, array in system_state(shared, "satqa", "cmodel").items():
        part, rest = name.split(".", 1)
        if part == "model" and not rest.startswith("fc."):
            flat[f"encoder.{rest}"] = array
        elif part in ("pool1", "pool2", "projector"):
            flat[name] = array
    return from_flat(flat)


def images_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8).astype(np.float32) / 255


@pytest.fixture(scope="module")
def whole(shared):
    with np.load(shared / "systems" / "reference" / "satqa.npz") as data:
        return dict(data)


def summarised(found: np.ndarray, stored: dict, stage: str, tolerance: float) -> None:
    """A map or tokens, in torch's order, against what the reference keeps of them."""
    assert found.shape == tuple(stored[f"{stage}/shape"])
    close(np.asarray(found).reshape(-1)[stored[f"{stage}/index"]], stored[f"{stage}/value"], tolerance)


@pytest.mark.slow
def test_the_encoder_is_the_originals(shared, whole):
    """In evaluation; the last image's maps are of sizes that the grid does not divide."""
    variables = encoder_variables(shared)
    network: GridEncoder = pretrain.network(WHOLE).bind(variables)
    x = images_of(20231206, (2, 224, 224, 3))

    @jax.jit
    def both(images):
        grid = network.grid(images, RUNNING)
        return jnp.moveaxis(grid, 3, 1), network.projected(grid, RUNNING)

    odd = images_of(7, (1, 96, 80, 3))
    for name, images in (("z1", x), ("z2", x[:, :, ::-1]), ("odd/z", odd)):
        grid, z = both(images)
        close(z, whole[f"cmodel/{name}"], 1e-4)
        if name != "z2":
            summarised(grid, whole, "cmodel/fea" if name == "z1" else "cmodel/odd/fea", 1e-4)


@pytest.mark.slow
def test_a_step_of_the_pre_training_is_the_originals(shared):
    """Two passes of BatchNorm, distorted photographs first; loss, gradients of projections, norms of all gradients."""
    with np.load(shared / "systems" / "reference" / "satqa_parts.npz") as data:
        stored = {name[5:]: data[name] for name in data.files if name.startswith("step/")}
    variables = encoder_variables(shared)
    generator = np.random.default_rng(int(stored["seed"]))
    views = np.stack([generator.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8) for _ in range(2)], axis=1)
    classes = stored["class"].copy()
    reference = classes[6]
    assert (classes[6:] == reference).all() and not (classes[:6] == reference).any()
    batch = {
        "views": jnp.asarray(views),
        "classes": jnp.asarray(classes[:6], jnp.int32) - 1,
    }  # original: 0 is the reference
    config = PretrainConfig(model=WHOLE)
    run = mesh.start(6, devices=1, together=1)

    def of_outputs(z):
        split = jax.shard_map(
            lambda z, batch: pretrain.objective(config, {}, z, batch, mesh.DATA_AXIS)[0],
            mesh=run.mesh, in_specs=(P(mesh.DATA_AXIS), P(mesh.DATA_AXIS)), out_specs=P(),
        )  # fmt: skip
        return split(z, batch)

    def loss(params):
        keys = jnp.zeros((6, 2), jnp.uint32)
        z, changed = pretrain.forward(config, variables | {"params": params}, {}, batch, keys, None)
        return of_outputs(z), (z, changed)

    (value, (z, changed)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(value, stored["loss"], rtol=1e-4)
    for place in (0, 1):
        close(z[:, place], stored[f"z{place + 1}"], 1e-3)
    flat = {".".join(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)}
    norms = dict(zip(stored["grad_names"], stored["grad_norms"], strict=True))
    largest = max(norms.values())
    for name, leaf in flat.items():
        wanted = norms[name.replace("encoder.", "model.", 1)]
        assert abs(np.linalg.norm(leaf) - wanted) <= 5e-3 * wanted + 1e-5 * largest, name
    for name in ("bn1", "layer4.2.bn3"):
        node = functools.reduce(lambda tree, key: tree[key], name.split("."), changed["batch_stats"]["encoder"])
        for statistic in ("running_mean", "running_var"):
            close(node[statistic], stored[f"after/model.{name}.{statistic}"], 1e-4)
    close(changed["batch_stats"]["projector"]["3"]["running_var"], stored["after/projector.3.running_var"], 1e-4)


def drawn(config: PretrainConfig, count: int = 24) -> pretrain.Draws:
    class Source:
        def __len__(self) -> int:
            return count

    return pretrain.draw(config, {"pristine": Source()}, 0, range(config.data.batch_size))[0]


def test_a_row_is_the_distorted_photograph_and_itself_cut_apart():
    config = PretrainConfig(
        data=PretrainData(
            batch_size=8, height=64, width=96, view_size=32, type_weights=tuple(float(t == 16) for t in range(25))
        )
    )
    draws = drawn(config)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    distort = jax.jit(functools.partial(bank.distort, types=(17,)))
    finish = jax.jit(functools.partial(pretrain.finish_row, config, 0))
    for row in range(8):
        example = pretrain.Example(image, draws.class_id[row], draws.key[row], draws.place[row], draws.flips[row])
        views = np.asarray(finish(example)["views"])
        for view, whole, place, flips in zip(
            views, (np.asarray(distort(draws.key[row], image, draws.class_id[row])), image), draws.place[row],
            draws.flips[row], strict=True,
        ):  # fmt: skip
            top, left = int(place[0] * 33), int(place[1] * 65)
            cut = whole[top : top + 32, left : left + 32]
            cut = cut[::-1] if flips[0] else cut
            np.testing.assert_array_equal(view, cut[:, ::-1] if flips[1] else cut)
    assert len({tuple(flips.ravel()) for flips in draws.flips}) > 2 and (draws.place[:, 0] != draws.place[:, 1]).all()


def test_classes_are_those_of_the_distortions():
    """Never the undistorted one, unless levels that change nothing are to count as it."""
    config = PretrainConfig(data=PretrainData(batch_size=3000))
    classes = drawn(config, 3000).class_id
    assert set(classes) == set(range(125))
    config.data.merge_identity_classes = True
    merged = drawn(config, 3000).class_id
    assert set(classes[merged == bank.PRISTINE]) == set(bank.IDENTITIES) and (merged != classes).any()


def test_a_start_of_another_encoder_is_one_sentence_and_one_of_the_same_is_taken():
    config = PretrainConfig(model=GridModel("resnet10", 4, reduced_width=4, hidden_width=4, projection_dim=4))
    config.train.init_from = "models/other"
    drawn_here, theirs = pretrain.init(config, 0), pretrain.init(config, 1)
    with pytest.raises(UserError, match=r"its model.encoder is 'resnet18' and this run's is 'resnet10'"):
        pretrain.take_over(config, drawn_here, ModelConfig("resnet18"), theirs)
    taken, said = pretrain.take_over(config, drawn_here, ModelConfig("resnet10", 4), theirs)
    assert said == "its encoder" and taken["params"]["encoder"] is theirs["params"]["encoder"]
    assert taken["params"]["pool1"] is drawn_here["params"]["pool1"]
    assert pretrain.take_over(config, drawn_here, config.model, theirs) == (theirs, "all its weights")


def tiny(**model) -> SatqaConfig:
    given = {"vit": "random", "trunk": "random", "vit_width": 8, "vit_heads": 2, "vit_side": 4, "encoder": "resnet10"}
    given |= {
        "base_width": 4,
        "cells": 2,
        "reduced_width": 4,
        "width": 48,
        "heads": 4,
        "middle_blocks": 1,
        "last_blocks": 1,
    }
    return SatqaConfig(model=SatqaModel(crop_size=40, **(given | model)))


def test_frozen_networks_are_in_the_model_by_their_hash_and_in_no_checkpoint():
    config = tiny()
    below, own = recipe.constants(config), recipe.init(config, 0)
    assert not set(config.model.frozen) & {name for tree in own.values() for name in tree}
    assert set(below["params"]) == set(config.model.frozen)
    model, variables = recipe.finished(config, own, below)
    assert len(model.trunk_hash) == 12 and set(below["params"]) < set(variables["params"])
    recipe.check(model, variables)
    other = jax.tree.map(np.copy, variables)
    other["params"]["pool1"]["conv"]["weight"][0, 0, 0, 0] += 1
    with pytest.raises(UserError, match=r"its frozen weights are .* and the rest was trained on"):
        recipe.check(model, other)


def test_a_trunk_is_what_the_pre_training_made_or_another_encoder_as_it_is(tmp_path):
    pretrained = GridModel("resnet10", 4, projection_dim=4, patches=2, reduced_width=4, hidden_width=8)
    made = pretrain.init(PretrainConfig(model=pretrained), 5)
    save_model(tmp_path / "run" / "model", pretrained, made, provenance={}, recipe=pretrain.name)
    below = recipe.constants(tiny(trunk=str(tmp_path / "run")))["params"]
    assert "projector" not in below
    for name in ("pool1", "pool2"):
        np.testing.assert_array_equal(below[name]["conv"]["weight"], made["params"][name]["conv"]["weight"])
    with pytest.raises(UserError, match=r"its patches is 2 and config.model.cells is 3; set --config.model.cells=2"):
        recipe.constants(tiny(trunk=str(tmp_path / "run"), cells=3))
    lite = {"trunk": "lite0", "encoder": "efficientnet_lite0", "base_width": 64, "input_scaling": "centred"}
    with pytest.raises(
        UserError, match=r"is no model of satqa_pretrain; train one, or set --config.model.reduced_width=0"
    ):
        recipe.constants(tiny(**lite))
    config = tiny(**lite, reduced_width=0)
    assert config.model.size.grid == 24 + 40 + 112 + 320
    assert set(recipe.constants(config)["params"]) == {"vit", "encoder"}
    with pytest.raises(UserError, match=r"config.model.vit=nothing: there is no such folder of a frozen vit"):
        recipe.constants(tiny(vit="nothing"))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"width": 50}, "model.width"), ({"vit_heads": 3}, "model.vit_width"), ({"patch": 16}, "model.crop_size")],
)
def test_sizes_that_do_not_fit_are_one_sentence(wrong, says):
    with pytest.raises(UserError, match=says):
        tiny(**wrong).model.validate()


def test_crops_in_training_and_at_the_test_are_of_one_size():
    config = tiny()
    config.data.rated = "scores.csv"
    with pytest.raises(UserError, match=r"data.view_size = 224: must be model.crop_size = 40"):
        config.validate()


def test_configs_are_the_papers_and_small_ones():
    whole, encoder = (parse_flags(["--config", f"satqa.py{v}", "--workdir", "x"]).config for v in ("", ":pretrain"))
    assert whole.model.size.streams == ((256, 256, 256), (192, 192, 384), (48, 48, 672))
    assert whole.model.size.grid == 1792 and whole.model.size.side == 28 and encoder.model.grid.reduced == 512
    for variant in ("small", "pretrain_small"):
        parse_flags(["--config", f"satqa.py:{variant}", "--workdir", "x"]).config.validate()
    with pytest.raises(UserError, match=r"has no variant 'tiny'; there are pretrain, small"):
        parse_flags(["--config", "satqa.py:tiny", "--workdir", "x"])
