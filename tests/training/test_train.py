"""The step against the original's numbers and on 1, 4 and 8 devices; the loop: resume, SIGKILL, SIGTERM, NaN."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from contrique_jax.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError, run_verb
from contrique_jax.main import main
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.model_folder import load_model
from contrique_jax.recipes.contrique import recipe
from contrique_jax.recipes.contrique.batches import Batch
from contrique_jax.training import mesh
from contrique_jax.training.loop import Diverged, out_of_memory_said, train
from contrique_jax.training.step import init_state, make_step
from tests.children import ONE_DEVICE, alone
from tests.reference_weights import (
    REFERENCE_MODEL,
    SMALL_MODEL,
    SMALL_STEP,
    our_name,
    reference_batch,
    reference_variables,
    small_batch,
    small_state_dict,
    variables_of,
)  # fmt: skip
from tests.tiny_config import get_config

ROOT = Path(__file__).parents[2]


def tiny(**changes) -> Config:
    """A run that takes a second: 64-pixel views of small scenes through a narrow ResNet-18."""
    config = get_config()
    config.train = TrainConfig(steps=6, checkpoint_every=3, log_every=2)
    for name, value in changes.items():
        part, field = name.split("__")
        setattr(getattr(config, part), field, value)
    return config


def pipeline_of(config: Config, rows: range | None = None) -> Pipeline:
    sources = {
        role: open_source(
            getattr(config.data, role), role=role, field=f"config.data.{role}", seed=config.train.seed, canvas=(64, 96)
        )
        for role in recipe.roles
    }
    return Pipeline(config, recipe, sources, rows=rows or range(config.data.batch_size), broken=BrokenLog())


def flat(tree) -> dict[str, np.ndarray]:
    """Dotted name -> array."""
    return {".".join(str(part.key) for part in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def losses(workdir: Path) -> list[float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def batch() -> Batch:
    config = tiny()
    return next(pipeline_of(config).batches(0, 1))


@pytest.mark.slow
def test_devices_do_not_change_loss_or_gradient():
    """One SGD step without momentum or decay moves the parameters by the gradient: equal parameters, equal gradients.

    On noise: a flat region has equal values under the max-pool, where rounding decides which of them gets the gradient. Of
    the seeds 0 to 4, the first has such a pair too (0.5 % of the gradient), the others agree to 3e-6.
    """
    generator = np.random.default_rng(1)
    classes = np.stack([np.arange(8) % 3, 126 + np.arange(8)], axis=1).reshape(-1).astype(np.int32)
    batch = generator.integers(0, 256, (16, 2, 64, 64, 3), dtype=np.uint8), classes
    config = tiny(
        optim__momentum=0.0,
        optim__weight_decay=0.0,
        optim__warmup_share=0.0,
        optim__learning_rate=1.0,
        model__base_width=16,
        loss__temperature=0.5,  # at 0.1 rounding alone reaches 8e-6; the loss alone is tested there
    )
    results = {}
    for devices in (1, 4, 8):
        run = mesh.start(16, devices=devices)
        state = run.replicate(init_state(config, 6))
        before = jax.device_get(state.params)
        after, measures = make_step(config, run, 6)(state, run.place(batch))
        gradient = jax.tree.map(lambda a, b: a - b, before, jax.device_get(after.params))
        results[devices] = float(measures["loss"]), jax.tree.leaves(gradient), jax.device_get(after.batch_stats)
    loss, gradient, stats = results[1]
    for devices in (4, 8):
        np.testing.assert_allclose(results[devices][0], loss, rtol=1e-5)
        difference = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(results[devices][1], gradient, strict=True)))
        assert difference <= 1e-5 * np.sqrt(sum(np.sum(leaf**2) for leaf in gradient))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results[devices][2], stats)


@pytest.mark.slow
def test_one_batch_norm_for_both_views_is_another(batch):
    run, results = mesh.start(16, devices=1), []
    for apart in (True, False):
        config = tiny(model__norm_per_view=apart)
        state = run.replicate(init_state(config, 6))
        results.append(float(make_step(config, run, 6)(state, run.place(batch))[1]["loss"]))
    assert np.isfinite(results).all()
    assert results[0] != results[1]


@pytest.mark.slow
def test_nan_stops_and_names_the_steps(tmp_path):
    config = tiny(optim__learning_rate=1e30, optim__warmup_share=0.0)
    with pytest.raises(Diverged, match=r"step"):
        train(config, tmp_path, mesh.start(16, devices=1), pipeline_of(config))
    assert not (tmp_path / "model").exists()
    names = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    assert names == []  # nothing that holds NaN was saved


@pytest.mark.slow
def test_step_equals_the_original(shared):
    """Loss, gradient norms and running statistics of one step of the original program (shared/reference)."""
    data = shared / "reference" / "train_step.npz"
    alone(step_equals, REFERENCE_MODEL, reference_variables(shared), *reference_batch(shared), data)


def test_step_equals_pytorch_in_float64():
    step_equals(SMALL_MODEL, variables_of(small_state_dict()), *small_batch(), SMALL_STEP)


def test_the_stored_step_is_pytorchs(torch):
    from tests.torch_step import small_step

    with np.load(SMALL_STEP) as stored:
        for name, value in small_step().items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(value, stored[name], rtol=1e-9, err_msg=name)
            else:
                np.testing.assert_array_equal(value, stored[name])


def step_equals(model: ModelConfig, variables: Variables, views: np.ndarray, classes: np.ndarray, stored: Path) -> None:
    data = np.load(stored)
    config = Config(
        data=DataConfig(batch_size=6),
        model=model,
        loss=LossConfig(block_size=32),
        optim=OptimConfig(momentum=0.0, weight_decay=0.0, warmup_share=0.0, learning_rate=1.0),
    )
    run = mesh.start(6, devices=1)
    state = init_state(config, 10).replace(variables=variables)
    before = jax.device_get(state.params)
    state = run.replicate(state)
    after, measures = make_step(config, run, 10)(state, run.place((views, classes)))
    np.testing.assert_allclose(float(measures["loss"]), data["loss"], rtol=1e-4)
    gradient = jax.tree.map(lambda a, b: a - b, before, jax.device_get(after.params))
    ours = flat(gradient)
    assert len(ours) == len(data["grad_names"])
    errors = []
    for name, norm in zip(data["grad_names"].tolist(), data["grad_norms"].tolist(), strict=True):
        # a step of rate 1 gives the gradient back up to the rounding of the parameter
        rounding = 1e-7 * np.linalg.norm(flat(before)[our_name(name)])
        errors.append(max(abs(np.linalg.norm(ours[our_name(name)]) - norm) - rounding, 0) / norm)
    # near the image, rounding decides which of nearly equal values under the max-pool gets the gradient
    assert max(errors) <= 5e-3
    assert np.quantile(errors, 0.9) <= 1e-3
    for name in (name for name in data.files if name.startswith("running/encoder") and "num_batches" not in name):
        stats = flat(jax.device_get(after.batch_stats))[our_name(name.removeprefix("running/"))]
        np.testing.assert_allclose(stats, data[name], rtol=1e-4, atol=1e-5, err_msg=name)


def start_run(workdir: Path, *flags: str) -> subprocess.Popen[str]:
    config = ROOT / "tests" / "tiny_config.py"
    command = [
        sys.executable,
        "-m",
        "contrique_jax.main",
        f"--config={config}",
        f"--workdir={workdir}",
        "--devices=1",
        *flags,
    ]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ONE_DEVICE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(workdir: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Returns once `steps` lines of metrics are there, or the process has ended."""
    while process.poll() is None and written(workdir) < steps:
        time.sleep(0.02)


def written(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_same_losses(tmp_path):
    """SIGKILL at a random step, then the same command."""
    pytest.importorskip("tensorflow")
    flags = ["--config.data.loader=tfdata", "--config.train.steps=24"]
    whole = start_run(tmp_path / "whole", *flags)
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    expected = losses(tmp_path / "whole")

    killed = start_run(tmp_path / "killed", *flags)
    wait_for_steps(tmp_path / "killed", random.Random(time.time_ns()).randint(3, 9), killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert 0 < written(tmp_path / "killed") < 12  # a line every other step

    resumed = start_run(tmp_path / "killed", *flags)
    assert resumed.wait(timeout=300) == 0, resumed.stderr.read()
    assert losses(tmp_path / "killed") == expected
    ours, theirs = load_model(tmp_path / "killed" / "model")[1], load_model(tmp_path / "whole" / "model")[1]
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.data.pristine=nowhere/at/all"], "nowhere/at/all"),
        (["--config.data.authentic=scenes:3"], "config.data.authentic holds 3 images"),
        (["--devices=9"], "8 cpu devices are here"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(tmp_path, capfd, flags, says):
    config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
    assert run_verb(main, [config, f"--workdir={tmp_path / 'run'}", "--devices=1", "--distributed=off", *flags]) == 2
    said = capfd.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_batch_that_devices_do_not_divide():
    with pytest.raises(UserError, match=r"config\.data\.batch_size = 12: 4 devices do not divide"):
        mesh.start(12, devices=4)


def test_too_little_memory_names_the_fields_that_need_less():
    config = tiny(train__accumulation=2)
    says = r"batch_size = \d+: .*train.remat = True, or with a new --workdir lower it or raise .*accumulation, now 2"
    with pytest.raises(UserError, match=says), out_of_memory_said(config):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), out_of_memory_said(config):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
