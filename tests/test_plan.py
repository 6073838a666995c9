"""`contrique-jax plan`: on fake devices everywhere, on TPU slices where their compiler is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from contrique_jax import plan
from contrique_jax.errors import UserError
from contrique_jax.planning.compiled_step import Compiled, purpose, refusal
from contrique_jax.planning.hlo_text import Collective
from contrique_jax.planning.topology import CHIPS, Topology, open_topology
from tests import tiny_config

TINY = str(Path(tiny_config.__file__))
# where libtpu lies apart from the other packages, because jax looks for chips wherever it finds it
TPU_COMPILER = os.environ.get("CONTRIQUE_TPU_COMPILER", "")
HAS_TPU_COMPILER = (
    Path(TPU_COMPILER, "libtpu").is_dir() if TPU_COMPILER else importlib.util.find_spec("libtpu") is not None
)


@pytest.fixture(autouse=True)
def unchanged_environment(monkeypatch):
    """What a plan sets for its own process must not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[dict, str]:
    """One plan on eight fake devices, as written and as printed."""
    out, printed = tmp_path_factory.mktemp("plan") / "plan.json", io.StringIO()
    with contextlib.redirect_stdout(printed):
        plan.main(["--config", TINY, "--topology", "cpu:8", "--out", str(out), "--epoch_images", "80"])
    return json.loads(out.read_text()), printed.getvalue()


def test_a_plan_has_what_scripts_rely_on(planned):
    record, printed = planned
    assert record["fits"] is True and record["devices"] == 8
    assert record["bytes_per_chip"] == sum(record["bytes_by_purpose"].values())
    assert record["flops_per_chip"] > 0
    assert record["step_seconds"] is None and record["images_per_second"] is None  # fake devices have no peaks
    assert record["epoch_steps"] == 10
    assert "fits" in printed and "no published peaks" in printed


def test_parameters_and_gradients_are_counted_whole(planned):
    record, _ = planned
    state = jax.eval_shape(lambda: plan_state())
    sizes = [leaf.size * 4 for leaf in jax.tree.leaves(state.params)]
    assert record["bytes_by_purpose"]["parameters"] == sum(sizes)
    gradients = sum(one["bytes"] * one["times"] for one in record["collectives"] if one["purpose"] == "gradients")
    assert 0.9 * sum(sizes) <= gradients <= 1.2 * sum(sizes)  # joined with a few small exchanges


def plan_state():
    from contrique_jax.training.step import init_state

    return init_state(tiny_config.get_config(), 10)


def test_every_exchange_happens_once_a_step(planned):
    record, _ = planned
    assert {one["times"] for one in record["collectives"]} == {1}
    gathers = [one for one in record["collectives"] if one["purpose"] == "loss: projections"]
    assert [one["bytes"] for one in gathers] == [2 * 16 * 4 * 16 * 4]  # views, images, patches, width, float32


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--topology", "v9:2x2"], "no such machine"),
        (["--topology", "v5e:4x4x4"], "2 axes"),
        (["--topology", "v5e:64x64"], "at most 256"),
        (["--topology", "v5e"], "2 axes"),
        (["--topology", "cpu:none"], "number of fake devices"),
        (["--topology", "cpu:8", "--devices", "9"], "has only 8"),
        (["--topology", "cpu:8", "--config.data.batch_size=20"], "config.data.batch_size"),
        (["--topology", "cpu:8", "--config.data.batch=20"], "batch"),
        (["--topology", "cpu:8", "--out", "plan.txt"], ".json"),
        (["--topology", "cpu:8", "--epoch_images", "3"], "--epoch_images"),
        ([], "--topology"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words):
    with pytest.raises(UserError, match=words) as caught:
        plan.main(["--config", TINY, *arguments])
    assert "\n" not in str(caught.value)


def test_a_missing_compiler_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"contrique-jax\[plan\]"):
        open_topology("v5e:4x4")


def test_a_misfit_exits_three_and_names_the_field(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan, "compile_step", lambda *_: Compiled(False, 30 * 10**9, 16 * 10**9, 1.0))
    out = tmp_path / "plan.json"
    with pytest.raises(SystemExit) as caught:
        plan.main(["--config", TINY, "--topology", "cpu:8", "--out", str(out)])
    assert caught.value.code == 3
    assert "config.data.batch_size" in capsys.readouterr().err
    record = json.loads(out.read_text())
    assert record["fits"] is False and record["bytes_per_chip"] == 30 * 10**9 and record["step_seconds"] is None


def test_rows_that_stand_alone_go_one_to_a_device_and_nothing_is_distorted(monkeypatch, capsys):
    monkeypatch.setattr(plan, "compile_step", lambda *_: Compiled(True, 10**9, 16 * 10**9, 1.0))
    plan.main(["--config", "zeng_kwong.py:small", "--topology", "cpu:8", "--config.data.batch_size=8"])
    printed = capsys.readouterr().out
    assert "8 chip(s), 1 images each" in printed and "distorted" not in printed
    plan.main(["--config", TINY, "--topology", "cpu:8", "--config.data.augment_on=device"])
    assert "the clean photographs are distorted in the step" in capsys.readouterr().out


@pytest.mark.parametrize("start", [16, 160, 1600, 6400])
@pytest.mark.parametrize("bend", [1.0, 1.15])
def test_the_search_ends_near_the_largest_batch(start, bend):
    granule, capacity = 16, 10_000

    def compile_at(batch: int) -> Compiled:
        needed = round(1000 + batch**bend)
        return Compiled(needed <= capacity, needed, capacity, 0.0, {"parameters": 1000} if needed <= capacity else {})

    best, tries = plan.largest_batch(compile_at, start, compile_at(start), granule)
    most = int(9000 ** (1 / bend))
    assert best % granule == 0 and tries <= plan.MOST_TRIES
    assert most * 15 / 17 - granule <= best <= most


def test_the_search_goes_on_where_a_compiler_finds_ways_to_need_less():
    """As at 64 and more images on one v5e: 0.1 GB an image at first, less when it gets tight."""

    def compile_at(batch: int) -> Compiled:
        return Compiled(batch <= 250, min(1000 + 100 * batch, 16_000), 16_000, 0.0, {"parameters": 1000})

    best, tries = plan.largest_batch(compile_at, 64, compile_at(64), 2)
    assert 250 * 15 / 17 - 2 <= best <= 250 and tries <= plan.MOST_TRIES


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory in memory space hbm. Used 25.00G of 15.75G hbm. Exceeded hbm capacity by 9.25G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (25G) exceeds available HBM (15.75G).",
    ],
)
def test_the_compilers_refusals_are_read(message):
    assert refusal(message) == (25 * 2**30, 15.75 * 2**30)
    assert refusal("something else") is None


def test_no_batch_fits():
    assert plan.largest_batch(lambda _: Compiled(False, 9, 5, 0.0), 64, Compiled(False, 9, 5, 0.0), 16)[0] == 0


def test_exchanges_take_what_links_allow():
    chip = CHIPS["v5e"]
    everything = Collective("all-gather", 256_000_000, 1, (1,), 1, "")
    closed = Topology("v5e:16x16", chip, (16, 16), (None,) * 256)
    # 255/256 of it comes in over four links of 50 GB/s; 8 + 8 chips to the farthest
    assert closed.seconds(everything) == pytest.approx((255e6 / 200e9, 16e-6))
    open_ended = Topology("v5e:4x4", chip, (4, 4), (None,) * 16)
    # no ring: the chip in the corner has two links
    assert open_ended.seconds(everything) == pytest.approx((240e6 / 100e9, 6e-6))
    summed = Collective("all-reduce", 256_000_000, 1, (1,), 1, "")
    assert closed.seconds(summed) == pytest.approx((2 * 255e6 / 200e9, 32e-6))
    assert Topology("v5e:1x1", chip, (1, 1), (None,)).seconds(everything) == (0, 0)


def test_three_axes_are_rings_all_or_none():
    chip, everything = CHIPS["v4"], Collective("all-gather", 32_000_000, 1, (1,), 1, "")
    # 31/32 of it over a link an axis, 1 + 3 + 3 chips to the farthest
    assert Topology("v4:2x4x4", chip, (2, 4, 4), (None,) * 32).seconds(everything) == pytest.approx(
        (31e6 / 150e9, 7e-6)
    )
    cube = Topology("v4:4x4x4", chip, (4, 4, 4), (None,) * 64)
    assert cube.seconds(everything) == pytest.approx((31.5e6 / 300e9, 6e-6))


def test_purposes_by_scope_and_shape():
    names = {
        ("all-gather", (8192, 128), "jvp(objective)/shard_map/loss: projections/all_gather"): "loss: projections",
        ("all-gather", (16, 1, 512), "transpose(jvp(objective))/loss: denominators/all_gather"): "loss: denominators",
        ("all-reduce", (126, 128), "jvp(objective)/shard_map/loss: class sums/psum"): "loss: class sums",
        ("all-reduce", (126,), "jvp(objective)/shard_map/loss: sums/psum"): "loss: sums",
        ("all-reduce", (4096, 64), "objective/shard_map/psum"): "loss",
        (
            "all-reduce",
            (64, 64),
            "(transpose(jvp(forward))/dot:transpose(jvp(forward))/dot:objective/psum)",
        ): "gradients",
        ("all-reduce", (126,), "(jvp(forward)/sum:objective/loss: class sums/psum)"): "loss: class sums",
        ("all-reduce", (3, 3, 512, 512), "transpose(jvp(forward))/conv"): "gradients",
        ("all-reduce", (2048, 2048), "transpose(jvp(forward))/reduce_sum"): "gradients",
        ("all-reduce", (2, 2048), "transpose(jvp(forward))/reduce_sum"): "BatchNorm, backwards",
        ("all-reduce", (2, 2048), "jvp(forward)/reduce_sum"): "BatchNorm statistics",
        ("all-reduce", (2, 2048), "shard_map/while/body/transpose(jvp(forward))/psum"): "BatchNorm, backwards",
        ("all-reduce", (2, 2048), "shard_map/while/body/jvp(forward)/psum"): "BatchNorm statistics",
    }
    for (kind, shape, source), name in names.items():
        assert purpose(Collective(kind, 1, 1, shape, 1, source)) == name


needs_tpu_compiler = pytest.mark.skipif(
    not HAS_TPU_COMPILER, reason="libtpu, the compiler for TPUs, is not installed (extra `plan`)"
)


def with_the_compiler() -> dict[str, str]:
    """The environment of a process that finds it."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (TPU_COMPILER, os.environ.get("PYTHONPATH"))))}


@pytest.mark.slow
@needs_tpu_compiler
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:1x1"])
def test_the_compiler_refuses_what_is_larger_than_our_table_says(name):
    """Each in a new process, as the compiler takes one kind of chip a process."""
    code = f"""
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from contrique_jax.planning.compiled_step import refusal
from contrique_jax.planning.topology import open_topology
topology = open_topology("{name}")
run = topology.runtime(2 * len(topology.devices), 0)
pages = int(topology.chip.memory // 2**21)
x = jax.ShapeDtypeStruct((pages, 1024, 1024), jnp.float32, sharding=NamedSharding(run.mesh, PartitionSpec()))
try:
    jax.jit(lambda x: (x[:, ::-1] * 2).sum(0)).lower(x).compile()
except jax.errors.JaxRuntimeError as error:
    print(len(topology.devices), abs(refusal(str(error))[1] - topology.chip.memory) < 0.01 * 2**30)
"""
    done = subprocess.run([sys.executable, "-c", code], env=with_the_compiler(), capture_output=True, text=True)
    assert done.stdout.split() == ["1" if name == "v6e:1x1" else "4", "True"], done.stderr


@pytest.mark.slow
@needs_tpu_compiler
@pytest.mark.parametrize("where", ["host", "device"])
def test_a_step_compiles_for_a_tpu_slice(tmp_path, where):
    out = tmp_path / "plan.json"
    command = ["--config", TINY, "--topology", "v5e:2x2", "--out", str(out)]
    command += [f"--config.data.augment_on={where}"]
    command += ["--config.model.compute_dtype=bfloat16"]  # compiles much faster than six passes for float32
    command = [sys.executable, "-m", "contrique_jax.plan", *command]
    done = subprocess.run(command, env=with_the_compiler(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["fits"] and record["devices"] == 4 and record["images_per_second"] > 0
    if where == "host":  # distortions have loops whose turns the image decides
        assert record["loops_counted_once"] == 0
    assert {"gradients", "loss: projections"} <= {one["purpose"] for one in record["collectives"]}
