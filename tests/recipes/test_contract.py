"""What every recipe of the table promises, and a toy one that has all the state there can be."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.config import Config, as_record
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError
from contrique_jax.networks.description import read_description
from contrique_jax.networks.model_folder import load_model, read_weights
from contrique_jax.planning.compiled_step import batch_shapes, compile_step
from contrique_jax.planning.topology import open_topology
from contrique_jax.recipes import RECIPES, recipe_named, recipe_of
from contrique_jax.training import loop, mesh
from contrique_jax.training.flags import parse_flags
from contrique_jax.training.loop import train
from contrique_jax.training.run import claim_workdir
from contrique_jax.training.step import init_state, make_step
from tests.conftest import release_memory
from tests.recipes import toy
from tests.recipes.tiny import STEPS, TINY, tiny

COMPILING: list[Callable] = []
SEED_OF_NOISE = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test for each recipe. What compiles whole programs is in `make test` for the first recipe and the toy, which has
    all the state there can be, and in `make test-full` for the others."""
    if "name" in metafunc.fixturenames:
        late = set(RECIPES) - {"contrique"} if metafunc.function in COMPILING else set()
        names = [pytest.param(name, marks=[pytest.mark.slow] * (name in late)) for name in (*RECIPES, "toy")]
        metafunc.parametrize("name", names, indirect=True, scope="module")


def compiling(test: Callable) -> Callable:
    COMPILING.append(test)
    return test


@pytest.fixture(scope="module")
def name(request) -> Iterator[str]:
    """A recipe, all of whose tests come together: what they compiled is released before the next one's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "toy", "tests.recipes.toy")
        yield request.param
    for kept in (pipeline_for, batches_of):
        kept.cache_clear()
    release_memory()


@pytest.fixture(scope="module", autouse=True)
def a_step_is_traced_once():
    """Not once a test: the tests of a recipe ask for the same few steps, and tracing one takes seconds."""

    made: dict[tuple, object] = {}

    def once(config: Config, run: mesh.Runtime, steps: int):
        if made and next(iter(made))[0] != config.recipe:
            made.clear()  # those of the recipe before
        key = config.recipe, json.dumps(as_record(config), default=str), run.devices, steps
        if key not in made:
            made[key] = make_step(config, run, steps)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", once)
        patch.setenv("CONTRIQUE_CACHE", "off")  # what an older program has kept of views proves nothing
        yield once


@functools.cache
def pipeline_for(name: str, where: str = "host") -> Pipeline:
    """That of the tiny run. Batches of any steps can be asked of it, again and again."""
    config = tiny(name)
    config.data.augment_on = where
    return pipeline_of(config)


@functools.cache
def batches_of(name: str, where: str = "host") -> list:
    return list(pipeline_for(name, where).batches(0, 3))


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
    step, losses = loop.make_step(config, run, config.train.steps), []
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
    for collection, tree in first.items():
        counters = {np.dtype("int32")} if collection not in ("params", "batch_stats") else set()
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} <= {np.dtype("float32")} | counters
    assert jax.tree.structure(recipe.decays(config, first)) == jax.tree.structure(first["params"])
    kept = recipe.finished(config, first, recipe.constants(config))[1]
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (recipe.variable_shapes(config), kept)]
    assert shapes[0] == shapes[1]


@compiling
def test_batches_have_the_shapes_that_plan_is_told(name):
    for where in ("host", "device"):
        config = tiny(name)
        config.data.augment_on = where
        batch = batches_of(name, where)[0]
        said = jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch_shapes(config))
        assert jax.tree.map(lambda x: (x.shape, str(x.dtype)), batch) == said


@compiling
def test_the_device_finishes_what_the_host_does(name):
    config = tiny(name)
    host, examples = (batches_of(name, where)[2] for where in ("host", "device"))
    config.data.augment_on = "device"
    device = jax.device_get(jax.jit(lambda examples: recipe_of(config).finish(config, examples))(examples))

    def close(a, b):
        apart = np.abs(np.asarray(a, np.float64) - b)
        if a.dtype == np.uint8:  # a code apart by rounding; hue goes round
            assert np.mean(np.minimum(apart, 256 - apart) > 1) < 0.01
        else:
            assert apart.max() < 1e-5

    jax.tree.map(close, device, host)


@compiling
def test_the_loss_falls_and_all_moves_that_should(name):
    config = tiny(name)
    losses, state = after(config, [batches_of(name)[0]] * STEPS)
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) and np.isfinite(losses).all()
    before = init_state(config, STEPS).variables
    for collection, tree in state.variables.items():
        moved = [
            np.any(a != b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(before[collection]), strict=True)
        ]
        assert all(moved), collection
    same(state.constants, recipe_of(config).constants(config))


def each_by_itself(config: Config, states, batches, devices: int):
    """(losses, states on the host) of one step on each batch from its own state."""
    run, _ = started(config, devices)
    step, losses, ends = loop.make_step(config, run, config.train.steps), [], []
    for state, batch in zip(states, batches, strict=True):
        end, measures = step(run.replicate(state), run.place(batch))
        losses.append(float(measures["loss"]))
        ends.append(jax.device_get(end))
    return losses, ends


@compiling
def test_devices_and_micro_batches_change_nothing_but_rounding(name):
    """Step by step from the same states: over several steps rounding grows, since it decides which of equal values under a
    max-pool is the largest, and which side of a ReLU's edge a value is on."""
    config, batches, states, losses = tiny(name), batches_of(name), [], []
    states.append(jax.device_get(started(config)[1]))
    for batch in batches:
        (loss,), (end,) = each_by_itself(config, [states[-1]], [batch], devices=1)
        losses.append(loss)
        states.append(end)
    on_four, four = each_by_itself(config, states[:-1], batches, devices=4)
    np.testing.assert_allclose(on_four, losses, rtol=1e-5)
    for end, one in zip(four, states[1:], strict=True):
        assert distance(end.variables, one.variables) < 1e-2
    if jax.tree.leaves(states[0].variables["batch_stats"]):
        return  # BatchNorm sees a micro-batch: `tests/training/test_accumulation.py`
    config.train.accumulation = 2
    in_parts, parts = each_by_itself(config, states[:-1], batches, devices=2)
    np.testing.assert_allclose(in_parts, losses, rtol=1e-5)
    for end, one in zip(parts, states[1:], strict=True):
        same(end.variables, one.variables, rtol=1e-4, atol=1e-5)


def cut(pipeline: Pipeline, after: int, cause: Callable[[], None]):
    """`pipeline.batches` as it is, but for what happens before the batch that follows so many."""
    batches = pipeline.batches

    def until(first, last):
        yield from batches(first, first + after)
        cause()
        yield from batches(first + after, last)

    return until


def losses_of(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[[str], tuple[Path, Any]]:
    """By a recipe's name: the folder of a whole run, and its state."""

    @functools.cache
    def run(name: str) -> tuple[Path, Any]:
        config, workdir = tiny(name), tmp_path_factory.mktemp("whole")
        return workdir, jax.device_get(train(config, workdir, started(config)[0], pipeline_for(name)))

    return run


def fails() -> None:
    raise KeyboardInterrupt


@compiling
def test_a_resumed_run_is_bit_equal(name, uninterrupted, tmp_path, monkeypatch):
    """From the last checkpoint, with the steps since then again; and when it has ended, there is nothing to do."""
    config, pipeline, (before, whole) = tiny(name), pipeline_for(name), uninterrupted(name)
    run = started(config)[0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "batches", cut(pipeline, 6, fails))
        train(config, tmp_path, run, pipeline)
    assert not (tmp_path / "model").exists()
    resumed = jax.device_get(train(config, tmp_path, run, pipeline))
    same(resumed.variables, whole.variables)
    assert losses_of(tmp_path) == losses_of(before) and len(losses_of(before)) == config.train.steps
    assert int(train(config, tmp_path, run, pipeline).step) == config.train.steps == len(losses_of(tmp_path))
    model, kept = recipe_of(config).finished(config, whole.variables, whole.constants)
    variables = read_weights(tmp_path / "model", kept)
    assert read_description(tmp_path / "model")["recipe"] == name
    same(variables, kept)
    recipe_of(config).check(model, variables)
    if name != "contrique":
        with pytest.raises(UserError, match=f"a model of the recipe '{name}'"):
            load_model(tmp_path / "model")


def test_sigterm_saves_where_the_run_stands(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "toy", "tests.recipes.toy")
    config, pipeline, (before, _) = tiny("toy"), pipeline_for("toy"), uninterrupted("toy")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "batches", cut(pipeline, 5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        stopped = int(train(config, tmp_path, started(config)[0], pipeline).step)
    assert 5 <= stopped < 8 and len(losses_of(tmp_path)) == stopped and not (tmp_path / "model").exists()
    train(config, tmp_path, started(config)[0], pipeline)
    assert losses_of(tmp_path) == losses_of(before)


@compiling
def test_plan_compiles_it(name):
    config = tiny(name)
    topology = open_topology("cpu:4")
    compiled = compile_step(config, topology, topology.runtime(config.data.batch_size, 4), images=24)
    assert compiled.fits and compiled.flops > 0
    assert all(compiled.parts[part] > 0 for part in ("parameters", "batch"))


def test_padding_changes_nothing(name):
    """A batch padded at the bottom and right gives each image what it gives alone."""
    config, recipe = tiny(name), recipe_named(name)
    constants = recipe.constants(config)
    _, variables = recipe.finished(config, recipe.init(config, 0), constants)
    image = np.random.default_rng(SEED_OF_NOISE).random((1, 48, 64, 3)).astype(np.float32)
    padded = np.zeros((1, 64, 96, 3), np.float32)
    padded[:, :48, :64] = image
    apply = jax.jit(functools.partial(recipe.apply, config))
    needed = recipe.takes_reference(config) == "needed"
    references = [1 - jnp.asarray(each) if needed else None for each in (image, padded)]
    alone = apply(variables, jnp.asarray(image), None, references[0])
    beside = apply(variables, jnp.asarray(padded), jnp.asarray([[48, 64]]), references[1])
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
    with pytest.raises(
        UserError, match=r"another config's run \(config.json: recipe is 'toy' here and 'contrique' there\)"
    ):
        claim_workdir(tmp_path, tiny("toy"), {"authentic": 24})


def test_a_config_of_a_recipe_that_does_not_exist_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delitem(RECIPES, "toy", raising=False)
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
    "zeng_kwong",
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
        found = [s for s in SYSTEMS[:9] if s in words.lower().replace("contrique_resnet50", "")]
        allowed = ["contrique"] if module in ("plan", "planning.topology", "training.load") else []
        assert found in ([], allowed), f"{module} names {found}"
