"""ARNIQA against numbers of the original program, and what its sampler promises."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy.stats import chisquare

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.inference.recipe_extractor import RecipeExtractor
from contrique_jax.networks.layers import RUNNING, Statistics
from contrique_jax.networks.model_folder import from_flat
from contrique_jax.networks.pair_projector import project
from contrique_jax.networks.pooling import normalise
from contrique_jax.recipes.arniqa import recipe
from contrique_jax.recipes.arniqa.chain import (
    Chain,
    degrade,
    degrade_many,
    draw_chain,
    level_chances,
    numbered,
    one_distortion,
)
from contrique_jax.recipes.arniqa.config import ArniqaConfig, ArniqaData, ArniqaModel
from contrique_jax.recipes.arniqa.groups import CONTRAST_B, GROUPS, LONGEST, TYPES
from contrique_jax.training import mesh
from tests.reference_weights import ENCODER_PARTS, rebuilt

WHOLE = ModelConfig("resnet50", compute_dtype="float32", input_scaling="imagenet", patches=1)


def variables_of(shared) -> dict:
    """The original's weights by the reference's rule, as variables of `WHOLE`."""
    shapes = json.loads((shared / "systems" / "reference" / "arniqa_shapes.json").read_text())
    flat = {}
    for name, shape in shapes.items():
        part, number, *rest = name.split(".")
        ours = ".".join(["encoder", ENCODER_PARTS[number], *rest]) if part == "model" else name
        if not name.endswith("num_batches_tracked"):
            flat[ours] = rebuilt(name, tuple(shape))
    return from_flat(flat)


@pytest.fixture(scope="module")
def stored(shared):
    with np.load(shared / "systems" / "reference" / "arniqa.npz") as data:
        return dict(data)


@pytest.mark.parametrize("case", ["loss0", "loss1"])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_and_its_gradients_are_the_originals(stored, case, temperature):
    """Of the original's rows, all full sizes before all half ones, ours are by record."""
    a, b = (stored[f"{case}/{side}"] for side in "ab")
    config = ArniqaConfig()
    config.loss.temperature = temperature
    n = len(a) // 2
    rows = np.stack([a[:n], a[n:], b[:n], b[n:]], axis=1)  # [n, 4, d]
    run = mesh.start(1, devices=1, together=1)

    def loss(rows):
        split = jax.shard_map(
            lambda z: recipe.objective(config, {}, z, None, mesh.DATA_AXIS)[0],
            mesh=run.mesh, in_specs=P(mesh.DATA_AXIS), out_specs=P(),
        )  # fmt: skip
        return split(rows)

    value, gradient = jax.jit(jax.value_and_grad(loss))(rows)
    # of terms near 10, of which the original loses up to 5e-6 of itself by subtracting the diagonal
    np.testing.assert_allclose(value, stored[f"{case}/t{temperature}/loss"], rtol=1e-5, atol=2e-6)
    for side, places in (("a", (0, 1)), ("b", (2, 3))):
        ours = np.concatenate([gradient[:, place] for place in places])
        wanted = stored[f"{case}/t{temperature}/grad_{side}"]
        assert np.linalg.norm(ours - wanted) <= 1e-3 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_features_and_projections_are_the_originals(shared, stored):
    variables, images = variables_of(shared), stored["eval/images"]
    config = ArniqaConfig(model=WHOLE)
    features = jax.jit(lambda x: recipe.apply(config, variables, x, None))(images)
    z, _ = jax.jit(lambda x: project(WHOLE, variables, x, RUNNING))(images)
    assert np.linalg.norm(features - stored["eval/features"]) <= 1e-4 * np.linalg.norm(stored["eval/features"])
    wanted = stored["eval/projections"]
    assert np.linalg.norm(normalise(z) - wanted) <= 1e-4 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_features_of_five_crops_and_of_the_whole_image_are_the_originals(shared, stored):
    fields = dataclasses.asdict(WHOLE)
    for crops, wanted in (("five", stored["crops/features"].mean(axis=0)), ("whole", stored["whole/features"][0])):
        config = ArniqaConfig(model=ArniqaModel(**fields, crops=crops, crop_size=64))
        found = RecipeExtractor(config, variables_of(shared)).features([stored["crops/image"]])[0]
        assert np.linalg.norm(found - wanted) <= 1e-4 * np.linalg.norm(wanted)


@pytest.mark.slow
def test_a_training_step_is_the_originals(shared, stored):
    """Two passes of BatchNorm, A's crops and B's; loss, projections and the norms of gradients."""
    variables = variables_of(shared)
    views = np.stack([stored[f"train/{one}"] for one in ("A_orig", "A_ds", "B_orig", "B_ds")], axis=1)
    config = ArniqaConfig(model=WHOLE)
    run = mesh.start(4, devices=1, together=1)

    def loss(params):
        keys = jnp.zeros((4, 2), jnp.uint32)
        batch = {"views": jnp.asarray(views, jnp.float32) / 255}
        z, moved = recipe.forward(config, variables | {"params": params}, {}, batch, keys, None)
        split = jax.shard_map(
            lambda z: recipe.objective(config, {}, z, None, mesh.DATA_AXIS)[0],
            mesh=run.mesh, in_specs=P(mesh.DATA_AXIS), out_specs=P(),
        )  # fmt: skip
        return split(z), (z, moved)

    (value, (z, moved)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    np.testing.assert_allclose(value, stored["train/loss"], rtol=1e-4)
    ours = np.asarray(normalise(z))
    for side, places in (("A", (0, 1)), ("B", (2, 3))):
        wanted = stored[f"train/proj_{side}"]
        found = np.concatenate([ours[:, place] for place in places])
        assert np.linalg.norm(found - wanted) <= 1e-3 * np.linalg.norm(wanted)
    norms = dict(zip(stored["train/grad_names"], stored["train/grad_norms"], strict=True))
    head = gradient["projector"]
    for name, leaf in (("projector.0.bias", head["0"]["bias"]), ("projector.2.weight", head["2"]["weight"])):
        np.testing.assert_allclose(np.linalg.norm(leaf), norms[name], rtol=1e-3)
    mean = moved["batch_stats"]["encoder"]["bn1"]["running_mean"]
    np.testing.assert_allclose(mean, stored["train/running/model.1.running_mean"], rtol=1e-4, atol=1e-5)


EQUAL = {
    "gaublur": 1,
    "colorsat1": 7,
    "darken": 17,
    "meanshift": 18,
    "lincontrchange": 25,
    "nonlincontrchange": CONTRAST_B,
}


@pytest.mark.parametrize("name", sorted(EQUAL))
def test_types_are_the_originals_where_they_are_right(shared, name):
    with np.load(shared / "systems" / "reference" / "arniqa_degradations.npz") as data:
        image, wanted = data["image"].astype(np.float32) / 255, data[f"{name}/out"]
    number = numbered(jnp.asarray(EQUAL[name]))
    key = jnp.zeros(2, jnp.uint32)
    applied = jax.jit(lambda level: one_distortion(number, key, jnp.asarray(image), level))
    for level in range(5):
        found = np.asarray(applied(jnp.asarray(level + 1))).transpose(2, 0, 1)
        assert np.abs(found - wanted[level]).max() < 2e-5, level


def test_chances_of_levels_are_the_papers():
    np.testing.assert_allclose(level_chances(2.5), [0.2929, 0.2704, 0.2127, 0.1426, 0.0814], atol=5e-5)


def test_chains_are_drawn_as_the_paper_says():
    """Lengths 1 to 4 alike, no group twice, types of a group alike, levels by their chances: chi-square, one in a thousand."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    chains = jax.tree.map(np.asarray, jax.vmap(lambda key: draw_chain(key, 4, 0.05, 2.5))(keys))
    lengths = (chains.types > 0).sum(axis=1)
    assert abs(np.mean(lengths == 0) - 0.05) < 0.006
    assert chisquare(np.bincount(lengths, minlength=5)[1:5]).pvalue > 1e-3
    group = {kind: number for number, kinds in enumerate(GROUPS) for kind in kinds}
    for row in chains.types[:2000]:
        used = [group[kind] for kind in row if kind]
        assert len(set(used)) == len(used)
    drawn = chains.types[chains.types > 0]
    for kinds in GROUPS:
        assert chisquare([np.sum(drawn == kind) for kind in kinds]).pvalue > 1e-3
    levels = chains.levels[chains.types > 0]
    assert chisquare(np.bincount(levels, minlength=6)[1:], len(levels) * level_chances(2.5)).pvalue > 1e-3
    assert len(TYPES) == 24


def test_chains_of_some_types_have_no_others():
    keys = jax.random.split(jax.random.key(1), 300)
    chains = jax.tree.map(np.asarray, jax.vmap(lambda key: draw_chain(key, 2, 0.0, 2.5, (7, 11, 12)))(keys))
    assert set(np.unique(chains.types)) == {0, 7, 11, 12}
    assert (np.isin(chains.types, (11, 12)).sum(axis=1) <= 1).all(), "of one group there is one"
    for wrong, says in (({"types": (6,)}, "data.types"), ({"types": (7,), "longest_chain": 2}, "data.longest_chain")):
        with pytest.raises(UserError, match=says):
            ArniqaData(**wrong).validate()


def test_an_undistorted_record_stays_as_it_is():
    crops = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    nothing = Chain(np.zeros(LONGEST, np.int32), np.ones(LONGEST, np.int32))
    key = np.zeros(2, np.uint32)
    np.testing.assert_allclose(
        np.asarray(degrade(key, crops, nothing, (7, 11))), crops.astype(np.float32) / 255, atol=1e-7
    )


@pytest.mark.slow
def test_a_chain_is_its_links_one_after_another_alike_for_all_crops_and_on_the_device():
    generator = np.random.default_rng(1)
    crops = generator.integers(0, 256, (2, 4, 64, 64, 3), dtype=np.uint8)
    chain = Chain(np.array([[17, 7, 25, 0, 0, 0, 0]] * 2, np.int32), np.array([[2, 1, 3, 1, 1, 1, 1]] * 2, np.int32))
    keys = generator.integers(0, 2**32, (2, 2), dtype=np.uint32)
    many = np.asarray(jax.jit(degrade_many)(keys, crops, chain))
    x = crops[0].astype(np.float32) / 255
    for kind, level in ((17, 2), (7, 1), (25, 3)):
        link = jax.jit(functools.partial(one_distortion, numbered(jnp.asarray(kind)), keys[0]))
        x = np.stack([np.asarray(link(jnp.asarray(crop), jnp.asarray(level))) for crop in x])
    np.testing.assert_allclose(many[0], x, atol=1e-5)
    alone = np.asarray(jax.jit(degrade)(keys[1], crops[1], Chain(*(part[1] for part in chain))))
    np.testing.assert_allclose(many[1], alone, atol=1e-5)


def test_small_photographs_are_black_at_the_right_and_below():
    image = np.full((40, 90, 3), 7, np.uint8)
    crop = recipe._crop(image, np.array([0.99, 0.99]), 64)
    assert (crop[:40] == 7).all() and (crop[40:] == 0).all()


@pytest.mark.slow
def test_statistics_of_batch_norm_are_of_one_photographs_crops():
    """A's full and half crops make one batch, B's another: shuffling B changes nothing of A."""
    config = ArniqaConfig()
    config.model = ModelConfig("resnet18", base_width=4, projection_dim=8, compute_dtype="float32", patches=1)
    variables = recipe.init(config, 0)
    views = np.random.default_rng(2).random((4, 4, 64, 64, 3)).astype(np.float32)
    keys = np.zeros((4, 2), np.uint32)
    z, _ = recipe.forward(config, variables, {}, {"views": jnp.asarray(views)}, keys, None)
    images = views[:, :2].reshape(-1, 64, 64, 3)
    alone, _ = project(config.model, variables, jnp.asarray(images), Statistics(1))
    np.testing.assert_allclose(z[:, :2].reshape(8, -1), alone, rtol=1e-4, atol=1e-5)


def test_a_start_of_another_encoder_is_one_sentence():
    config = ArniqaConfig()
    config.train.init_from = "models/other"
    other = ModelConfig("resnet18", input_scaling="imagenet")
    with pytest.raises(UserError, match=r"its model.encoder is 'resnet18' and this run's is 'resnet50'"):
        recipe.take_over(config, {}, other, {})
