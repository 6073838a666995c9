"""What every recipe of the table promises, and a toy one that has all the state there can be."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.config import Config, ModelConfig, TrainConfig, as_record
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError
from contrique_jax.networks.model_folder import load_model, read_description, read_weights
from contrique_jax.planning.compiled_step import batch_shapes, compile_step
from contrique_jax.planning.topology import open_topology
from contrique_jax.recipes import RECIPES, recipe_named, recipe_of
from contrique_jax.recipes.arniqa.config import ArniqaConfig, ArniqaData
from contrique_jax.training import mesh
from contrique_jax.training.flags import parse_flags
from contrique_jax.training.loop import train
from contrique_jax.training.run import claim_workdir
from contrique_jax.training.step import init_state, make_step
from tests import tiny_config
from tests.recipes import toy, toy_config

SEED_OF_NOISE = 3


def tiny(name: str, **train) -> Config:
    """A run of seconds of that recipe."""
    config = toy_config.get_config() if name == "toy" else TINY[name]()
    config.train = TrainConfig(**({"steps": 20, "checkpoint_every": 4, "log_every": 4} | train))
    return config


def tiny_arniqa() -> ArniqaConfig:
    config = ArniqaConfig(
        data=ArniqaData(
            pristine="scenes:24", batch_size=8, view_size=64, loader="threads", types=(7, 11, 17), longest_chain=3
        )
    )
    config.model = ModelConfig("resnet18", base_width=4, projection_dim=16, compute_dtype="float32", patches=1)
    config.optim.learning_rate, config.optim.restart_steps = 0.001, 1000
    return config


TINY = {"contrique": tiny_config.get_config, "arniqa": tiny_arniqa}


@pytest.fixture(params=[*RECIPES, "toy"])
def name(request, monkeypatch) -> str:
    monkeypatch.setitem(RECIPES, "toy", "tests.recipes.toy")
    return request.param


def pipeline_of(config: Config) -> Pipeline:
    recipe = recipe_of(config)
    sources = {
        role: open_source(
            getattr(config.data, role), role=role, field=f"config.data.{role}", canvas=recipe.canvas(config)
        )
        for role in recipe.roles
    }
    return Pipeline(config, recipe, sources, rows=range(config.data.batch_size), broken=BrokenLog())


def started(config: Config, devices: int = 1):
    run = mesh.start(config.data.batch_size, devices, recipe_of(config).rows_together)
    return run, run.replicate(init_state(config, config.train.steps))


def after(config: Config, batches, devices: int = 1):
    """(losses, state on the host) after a step on each batch."""
    run, state = started(config, devices)
    step, losses = make_step(config, run, config.train.steps), []
    for batch in batches:
        state, measures = step(state, run.place(batch))
        losses.append(float(measures["loss"]))
    return losses, jax.device_get(state)


def same(ours, theirs, rtol: float = 0.0, atol: float = 0.0) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), ours, theirs)


def distance(ours, theirs) -> float:
    """Relative, in the norm over all leaves."""
    ours, theirs = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def test_every_recipe_has_a_tiny_config():
    assert set(TINY) == set(RECIPES)


def test_it_is_whole(name):
    recipe = recipe_named(name)
    assert recipe.name == name and recipe.gives in ("features", "score")
    assert recipe.rows_together % len(recipe.roles) == 0
    assert recipe_of(tiny(name)) is recipe
    assert all(isinstance(getattr(tiny(name).data, role), str) for role in recipe.roles)


def test_init_repeats_and_depends_on_the_seed(name):
    config, recipe = tiny(name), recipe_named(name)
    first, again, other = (recipe.init(config, seed) for seed in (1, 1, 2))
    same(first, again)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(first)} == {np.dtype("float32")}
    assert jax.tree.structure(recipe.decays(config, first)) == jax.tree.structure(first["params"])
    promised = recipe.variable_shapes(config)
    for part in ("params", "batch_stats"):
        assert jax.tree.map(lambda leaf: leaf.shape, promised[part]) == jax.tree.map(
            lambda leaf: leaf.shape, first[part]
        )


def test_batches_have_the_shapes_that_plan_is_told(name):
    for where in ("host", "device"):
        config = tiny(name)
        config.data.augment_on = where
        batch = next(iter(pipeline_of(config).batches(0, 1)))
        said = jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch_shapes(config))
        assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch) == said


def test_the_device_finishes_what_the_host_does(name):
    config = tiny(name)
    host = next(iter(pipeline_of(config).batches(2, 3)))
    config.data.augment_on = "device"
    examples = next(iter(pipeline_of(config).batches(2, 3)))
    device = jax.device_get(jax.jit(lambda examples: recipe_of(config).finish(config, examples))(examples))

    def close(a, b):
        apart = np.abs(np.asarray(a, np.float64) - b)
        if a.dtype == np.uint8:  # a code apart by rounding; hue goes round
            assert np.mean(np.minimum(apart, 256 - apart) > 1) < 0.01
        else:
            assert apart.max() < 1e-5

    jax.tree.map(close, device, host)


def test_the_loss_falls_and_all_moves_that_should(name):
    config = tiny(name)
    batch = next(iter(pipeline_of(config).batches(0, 1)))
    losses, state = after(config, [batch] * 20)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) and np.isfinite(losses).all()
    before = init_state(config, 20).variables
    for collection, tree in state.variables.items():
        moved = [
            np.any(a != b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(before[collection]), strict=True)
        ]
        assert all(moved), collection
    same(state.constants, recipe_of(config).constants(config))


def test_devices_and_micro_batches_change_nothing_but_rounding(name):
    config = tiny(name)
    config.optim.learning_rate = 1e-3
    batches = list(pipeline_of(config).batches(0, 3))
    losses, state = after(config, batches)
    on_four, four = after(config, batches, devices=4)
    np.testing.assert_allclose(on_four, losses, rtol=1e-4)
    assert (
        distance(four.variables, state.variables) < 1e-2
    )  # where values under the max-pool are equal, rounding decides
    if jax.tree.leaves(state.variables["batch_stats"]):
        return  # BatchNorm sees a micro-batch: `tests/training/test_accumulation.py`
    config.train.accumulation = 2
    for devices in (1, 2):
        in_parts, parts = after(config, batches, devices)
        np.testing.assert_allclose(in_parts, losses, rtol=1e-5)
        same(parts.variables, state.variables, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_bit_equal(name, tmp_path):
    config = tiny(name, steps=6, checkpoint_every=3)
    run, _ = started(config)
    whole = jax.device_get(train(config, tmp_path / "whole", run, pipeline_of(config)))
    pipeline, batches = pipeline_of(config), pipeline_of(config).batches

    def breaks(first, last):
        yield from batches(first, 4)
        raise KeyboardInterrupt

    pipeline.batches = breaks
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", run, pipeline)
    resumed = jax.device_get(train(config, tmp_path / "cut", run, pipeline_of(config)))
    same(resumed.variables, whole.variables)
    texts = [(tmp_path / where / "metrics.jsonl").read_text() for where in ("whole", "cut")]
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in texts]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    variables = read_weights(tmp_path / "whole" / "model", whole.variables)
    assert read_description(tmp_path / "whole" / "model")["recipe"] == name
    same(variables, {part: whole.variables[part] for part in ("params", "batch_stats")})
    if name != "contrique":
        with pytest.raises(UserError, match=f"a model of the recipe '{name}'"):
            load_model(tmp_path / "whole" / "model")


def test_plan_compiles_it(name):
    config = tiny(name)
    topology = open_topology("cpu:4")
    compiled = compile_step(config, topology, topology.runtime(config.data.batch_size, 4), images=24)
    assert compiled.fits and compiled.flops > 0
    assert all(compiled.parts[part] > 0 for part in ("parameters", "batch"))


def test_padding_changes_nothing(name):
    """A batch padded at the bottom and right gives each image what it gives alone."""
    config, recipe = tiny(name), recipe_named(name)
    variables, constants = recipe.init(config, 0), recipe.constants(config)
    image = np.random.default_rng(SEED_OF_NOISE).random((1, 48, 64, 3)).astype(np.float32)
    padded = np.zeros((1, 64, 96, 3), np.float32)
    padded[:, :48, :64] = image
    alone = recipe.apply(config, variables, constants, jnp.asarray(image), None, None)
    beside = recipe.apply(config, variables, constants, jnp.asarray(padded), jnp.asarray([[48, 64]]), None)
    np.testing.assert_allclose(beside, alone, rtol=1e-4, atol=1e-5)
    assert alone.ndim == (1 if recipe.gives == "score" else 2)


def test_an_unknown_recipe_is_one_sentence():
    with pytest.raises(UserError, match=r"there is no recipe 'nothing'; choose from .*contrique"):
        recipe_named("nothing")


def test_constants_are_kept_as_a_hash(tmp_path, monkeypatch):
    """Another teacher is another run."""
    config, teacher = tiny("toy"), toy.constants(None)
    assert claim_workdir(tmp_path, config, {"authentic": 24}, constants=teacher) is False
    assert claim_workdir(tmp_path, config, {"authentic": 24}, constants=teacher) is True
    with pytest.raises(UserError, match="another config's run"):
        claim_workdir(tmp_path, config, {"authentic": 24}, constants={"teacher": teacher["teacher"] + 1})


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    claim_workdir(tmp_path, tiny("contrique"), {"authentic": 24})
    with pytest.raises(UserError, match=r"another config's run \(recipe is 'toy' here and 'contrique' there\)"):
        claim_workdir(tmp_path, tiny("toy"), {"authentic": 24})


def test_a_config_of_a_recipe_that_does_not_exist_is_one_sentence(tmp_path):
    file = tmp_path / "config.py"
    file.write_text("from tests.recipes.toy_config import ToyConfig\n\ndef get_config():\n    return ToyConfig()\n")
    with pytest.raises(UserError, match=r"--config: there is no recipe 'toy'"):
        parse_flags(["--config", str(file), "--workdir", str(tmp_path / "run")])


def test_fields_of_another_recipe_come_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "toy", "tests.recipes.toy")
    file = tmp_path / "config.py"
    file.write_text("from tests.recipes.toy_config import ToyConfig\n\ndef get_config():\n    return ToyConfig()\n")
    flags = ["--config", str(file), "--workdir", str(tmp_path / "run")]
    assert parse_flags([*flags, "--config.model.width=5"]).config.model.width == 5
    with pytest.raises(UserError, match=r"config.model has no field 'widht'; the nearest name is config.model.width"):
        parse_flags([*flags, "--config.model.widht=5"])


def test_the_record_carries_the_name(name):
    assert as_record(tiny(name))["recipe"] == name


SYSTEMS = (
    "contrique",
    "arniqa",
    "reiqa",
    "conviqt",
    "satqa",
    "ahiq",
    "conformer",
    "copa",
    "nt_xent",
    "pristine",
    "distort",
)


def test_no_system_is_known_outside_its_recipe():
    """Training, planning, the loader and the doors of training: no module names a system or a part of one, but for the
    program's own name and what a model folder without a recipe's name is."""
    from tests.test_architecture import MODULES, inside, room_of

    general = [m for m in MODULES if room_of(m) in ("training", "planning")] + ["main", "plan", "data.pipeline"]
    for module in general:
        for name in inside(module):
            parts = set(name.split(".")) - {"contrique_jax"}
            assert not parts & set(SYSTEMS), f"{module} imports {name}"
        words = MODULES[module].read_text(encoding="utf-8").replace("contrique_jax", "").replace("contrique-jax", "")
        found = [s for s in SYSTEMS[:8] if s in words.lower().replace("configs/contrique_resnet50", "")]
        allowed = ["contrique"] if module in ("plan", "planning.topology", "training.load") else []
        assert found in ([], allowed), f"{module} names {found}"
