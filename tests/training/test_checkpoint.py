"""Checkpoints: what is saved comes back; what does not fit is refused; a full disk loses nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.config import Config, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.encoder import init_model
from contrique_jax.training.checkpoint import Checkpoints, load_for_inference
from contrique_jax.training.disk_space import no_space
from contrique_jax.training.step import init_state

TINY = Config(model=ModelConfig(encoder="resnet10", base_width=4, projection_dim=8, compute_dtype="float32"))


@pytest.fixture(scope="module")
def state():
    return init_state(TINY, 10)


def test_round_trip_is_bit_equal(tmp_path, state):
    """Of a state in which no number is 0 and no two arrays are alike, read into one of zeros."""
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: jnp.asarray(rng.integers(1, 2**24, leaf.shape), leaf.dtype), state)
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() is None
    checkpoints.save(3, state, TINY)
    checkpoints.wait()
    assert checkpoints.latest() == 3
    back = checkpoints.restore(3, jax.tree.map(jnp.zeros_like, state))
    jax.tree.map(np.testing.assert_array_equal, back, state)
    assert jax.tree.map(lambda leaf: leaf.dtype, back) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert checkpoints.config(3)["model"]["base_width"] == 4
    checkpoints.close()


def test_only_the_last_ones_stay(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, state, TINY)
    checkpoints.wait()
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "c").iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_clock_that_jumps_at_every_look_ends_no_save(tmp_path, state, monkeypatch):
    days, tell = iter([0, 1, -1] * 10_000), time.time
    monkeypatch.setattr(time, "time", lambda: tell() + 86400 * next(days))
    checkpoints = Checkpoints(tmp_path / "c", wait_seconds=60)
    for step in (1, 2):
        checkpoints.save(step, state, TINY)
    checkpoints.wait()
    assert checkpoints.latest() == 2
    checkpoints.close()


def test_another_architecture_is_refused_by_name(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state, TINY)
    checkpoints.wait()
    wider = Config(model=ModelConfig(encoder="resnet34", base_width=8, projection_dim=8))
    with pytest.raises(UserError, match="another architecture"):
        checkpoints.restore(1, init_state(wider, 10))
    checkpoints.close()


def test_a_half_written_checkpoint_does_not_count(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state, TINY)
    checkpoints.wait()
    checkpoints.close()
    # what a killed process leaves: a folder under Orbax's temporary name
    shutil.copytree(tmp_path / "c" / "1", tmp_path / "c" / "2.orbax-checkpoint-tmp")
    again = Checkpoints(tmp_path / "c")
    assert again.latest() == 1
    again.close()


def test_inference_takes_a_workdir_or_one_checkpoint(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(4, state, TINY)
    checkpoints.wait()
    checkpoints.close()
    expected = init_model(TINY.model, 0)
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "4"):
        model, variables = load_for_inference(path)
        assert model == TINY.model
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), variables["params"], expected["params"])
    (tmp_path / "photographs" / "2023").mkdir(parents=True)
    for path in ("nothing", "photographs"):
        with pytest.raises(UserError, match="neither a model folder nor"):
            load_for_inference(tmp_path / path)
    next((tmp_path / "checkpoints" / "4" / "config").iterdir()).write_text("{")
    with pytest.raises(UserError, match="a damaged checkpoint"):
        load_for_inference(tmp_path)


def test_too_little_space_is_said_before_writing(tmp_path, state, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, state, TINY)
    checkpoints.wait()

    monkeypatch.setattr(sys, "platform", "one that cannot allocate ahead")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="free some space"):
        checkpoints.save(2, state, TINY)
    assert checkpoints.latest() == 1
    checkpoints.close()


def test_the_space_is_asked_for_without_writing_it(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    assert no_space(tmp_path, 10**6) is None
    assert "needs" in str(no_space(tmp_path, 2 * free)) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_disk_without_space_keeps_the_earlier_checkpoint(tmp_path):
    """A limit on file sizes stands for the full disk or the quota: the system itself refuses the bytes."""
    code = """
        import resource, signal, sys
        import jax
        from contrique_jax.training.checkpoint import Checkpoints
        from contrique_jax.config import Config, ModelConfig
        from contrique_jax.errors import run_verb
        from contrique_jax.training.step import init_state
        config = Config(model=ModelConfig(encoder="resnet10", base_width=16, compute_dtype="float32"))
        state = init_state(config, 10)
        checkpoints = Checkpoints(__import__("pathlib").Path(sys.argv[1]))
        checkpoints.save(1, state, config)
        checkpoints.wait()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        def more(argv):
            checkpoints.save(2, state, config)
            checkpoints.wait()
        code = run_verb(more, [])
        assert checkpoints.latest() == 1, checkpoints.latest()
        checkpoints.close()
        sys.exit(code)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "c")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "there is no space for it" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "c" / "1").is_dir()


def test_of_damaged_checkpoints_the_one_before_is_taken_and_says_so(tmp_path, state, capsys):
    checkpoints = Checkpoints(tmp_path / "c", keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, replace(state, step=jnp.asarray(step)), TINY)
    checkpoints.wait()
    (tmp_path / "c" / "3" / "state" / "manifest.ocdbt").write_bytes(b"")
    (tmp_path / "c" / "2" / "state" / "_METADATA").write_text("{")
    step, back = checkpoints.restore_newest(state)
    assert step == int(back.step) == checkpoints.latest() == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": a damaged checkpoint (")[0] for line in said] == [
        f"warning: {tmp_path}/c/3", f"warning: {tmp_path}/c/2",
    ]  # fmt: skip
    assert "damaged_checkpoint_3, and step 2 is taken" in said[0]
    assert (tmp_path / "damaged_checkpoint_3" / "state").is_dir() and not (tmp_path / "c" / "3").exists()
    checkpoints.save(2, state, TINY)  # its place is free
    checkpoints.wait()
    for step in (1, 2):
        (tmp_path / "c" / str(step) / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(UserError, match="there is none before it"):
        checkpoints.restore_newest(state)
    checkpoints.close()
