"""Several real processes on this machine train as one does, stop together and refuse together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from tests.children import ONE_DEVICE

CONFIG = Path(__file__).parents[1] / "tiny_config.py"


@pytest.fixture
def photographs(tmp_path):
    """Flags for two sources without flat areas: where values tie under the max-pool, rounding decides on the gradient."""
    generator = np.random.default_rng(0)
    flags = ["--config.data.height=128", "--config.data.width=192", "--config.loss.temperature=0.5"]
    for role in ("pristine", "authentic"):
        smooth = ndimage.gaussian_filter(generator.normal(size=(24, 128, 192, 3)), (0, 1.5, 1.5, 0))
        smooth = (smooth - smooth.min()) / np.ptp(smooth) * 255
        noisy = smooth + generator.normal(0, 6, smooth.shape)
        np.save(tmp_path / f"{role}.npy", np.clip(noisy, 0, 255).astype(np.uint8))
        flags.append(f"--config.data.{role}=arrays:{tmp_path / role}.npy")
    return flags


def start(count, workdir, flags, each=None, program=lambda i: None):
    """One job of `count` processes with one CPU device each; `each(i)`: further flags of process i, or its folder and these;
    `program(i)`: what it runs, None for the ordinary one."""
    port = _free_port()
    environment = (
        os.environ
        | ONE_DEVICE
        | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(workdir.parent / "cache")}
    )
    together = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
    jobs = []
    for i in range(count):
        command = [sys.executable, *(program(i) or ["-m", "contrique_jax.main"])]
        command += [f"--config={CONFIG}", f"--workdir={workdir}", *flags]
        command += [*together, f"--process_id={i}"] if together else []
        further = each(i) if each else []
        folder, further = further if isinstance(further, tuple) else (None, further)
        jobs.append(
            subprocess.Popen([*command, *further], env=environment, stderr=subprocess.PIPE, text=True, cwd=folder)
        )
    return jobs


def finish(jobs, seconds=240):
    """-> exit codes and what each said."""
    try:
        said = [job.communicate(timeout=seconds)[1] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    return [job.returncode for job in jobs], said


def rows(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(workdir, step, jobs, seconds=240):
    until = time.monotonic() + seconds
    while not any(row["step"] >= step for row in rows(workdir)):
        assert time.monotonic() < until and all(job.poll() is None for job in jobs), "the job ended early"
        time.sleep(0.1)


@pytest.mark.slow
def test_two_processes_killed_and_four_resumed_equal_one(tmp_path, photographs):
    flags = [*photographs, "--config.train.steps=14", "--config.optim.learning_rate=0.0005"]
    flags += ["--config.train.wait_seconds=60", "--config.train.log_every=1"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert finish(start(1, alone, flags))[0] == [0]
    jobs = start(2, together, flags)
    wait_for_step(together, 7, jobs)
    jobs[1].kill()  # SIGKILL between two saves
    assert all(finish(jobs)[0])  # jax ends the one that is left
    before = rows(together)
    assert 7 <= len(before) < 14 and not (together / "model").exists()
    assert finish(start(4, together, flags))[0] == [0] * 4
    losses = [[row["loss"] for row in rows(place)] for place in (alone, together)]
    assert len(losses[0]) == len(losses[1]) == 14
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose([row["loss"] for row in before], losses[0][: len(before)], rtol=1e-5)
    assert (together / "model" / "model.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("further", "number", "expected"),
    [(["--exit_code_if_unfinished=75"], signal.SIGTERM, [75, 75]), ([], signal.SIGINT, [0, 130])],
)
def test_a_signal_to_one_process_saves_at_one_step_on_all(tmp_path, photographs, further, number, expected):
    workdir = tmp_path / "run"
    flags = [*photographs, "--config.train.steps=100000", "--config.train.checkpoint_every=100000"]
    jobs = start(2, workdir, [*flags, *further])
    wait_for_step(workdir, 2, jobs)
    jobs[1].send_signal(number)
    codes, said = finish(jobs)
    assert codes == expected
    (saved,) = (int(place.name) for place in (workdir / "checkpoints").iterdir() if place.name.isdigit())
    assert rows(workdir)[-1]["step"] == saved
    assert f"stopped and saved at step {saved} of 100000" in said[0] and "stopped" not in said[1]


@pytest.mark.slow
def test_a_disk_that_stops_answering_on_one_host_ends_the_job(tmp_path, photographs):
    code = """
import sys, time
from contrique_jax import errors, main
from contrique_jax.data.sources import ArraySource
load, seen = ArraySource.load, []
def stop_answering(self, i):
    seen.append(i)
    if len(seen) > 150:
        time.sleep(1000)
    return load(self, i)
ArraySource.load = stop_answering
sys.exit(errors.run_verb(main.main))
"""
    flags = [*photographs, "--config.train.steps=100000", "--config.train.wait_seconds=30"]
    jobs = start(2, tmp_path / "run", flags, program=lambda i: ["-c", code] if i == 1 else None)
    codes, said = finish(jobs)
    assert codes == [2, 2], said
    assert all("did not end within config.train.wait_seconds = 30" in text for text in said)
    assert all("Traceback" not in text for text in said), said


def test_processes_with_different_configs_all_refuse(tmp_path):
    codes, said = finish(start(2, tmp_path / "run", [], each=lambda i: [f"--config.train.seed={i}"]))
    assert codes == [2, 2]
    assert all("process 1 has another config than process 0" in text for text in said)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_one_process_cannot_read_all_say(tmp_path):
    folders = ["scenes:24", str(tmp_path / "missing")]
    jobs = start(2, tmp_path / "run", [], each=lambda i: [f"--config.data.pristine={folders[i]}"])
    codes, said = finish(jobs)
    assert codes == [2, 2] and "process 1: " in said[0] and all("missing" in text for text in said)


@pytest.mark.slow
def test_processes_that_see_other_images_all_refuse(tmp_path):
    from PIL import Image

    for i, count in enumerate((24, 23)):
        (tmp_path / f"host{i}" / "photos").mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (80, 64)).save(tmp_path / f"host{i}" / "photos" / f"{k}.png")
    flags = ["--config.data.authentic=photos", f"--workdir={tmp_path / 'run'}"]
    jobs = start(2, tmp_path / "run", flags, each=lambda i: (tmp_path / f"host{i}", []))
    codes, said = finish(jobs)
    assert codes == [2, 2]
    assert all("process 1 has another config.data.authentic than process 0 (23 images" in text for text in said)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_with_workdirs_of_their_own_all_refuse_to_go_on(tmp_path, photographs):
    """As on hosts whose local disks have the same path: only the first one's holds a checkpoint."""
    flags = [*photographs, "--config.train.steps=4", "--config.train.wait_seconds=60", "--workdir=run"]
    jobs = start(1, tmp_path / "x", flags, each=lambda i: (tmp_path, []))
    assert finish(jobs)[0] == [0]
    (tmp_path / "other").mkdir()
    jobs = start(2, tmp_path / "x", flags, each=lambda i: ((tmp_path, tmp_path / "other")[i], []))
    codes, said = finish(jobs)
    assert codes == [2, 2] and all("another newest checkpoint than process 0 (0 and 4)" in text for text in said)


def join_and_do(bodies):
    """Processes that join and then each do their own."""
    port, jobs = _free_port(), []
    for i, body in enumerate(bodies):
        lines = [
            "import sys, time",
            "from contrique_jax import errors; from contrique_jax.training import hosts",
            "from contrique_jax.training.watch import Watchdog",
        ]
        lines += ["def run(_):", f"    hosts.join('on', '127.0.0.1:{port}', {len(bodies)}, {i}, 30)"]
        lines += [f"    {line}" for line in body.splitlines()] + ["sys.exit(errors.run_verb(run))"]
        environment = os.environ | ONE_DEVICE | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", "\n".join(lines)]
        jobs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return jobs


def together(bodies, seconds=60):
    """-> exit codes and what each said."""
    return finish(join_and_do(bodies), seconds)


@pytest.mark.slow
def test_a_first_process_whose_machine_has_stopped_is_waited_for_only_so_long():
    stops = "import os, signal\nhosts.barrier('here', 30)\nos.kill(os.getpid(), signal.SIGSTOP)"
    waits = "hosts.barrier('here', 30)\nwith Watchdog(3) as watch:\n    watch.expect('step 7')\n    time.sleep(100)"
    jobs = join_and_do([stops, waits])
    try:
        said = jobs[1].communicate(timeout=60)[1]
    finally:
        jobs[0].kill()
    assert jobs[1].returncode == 2 and "step 7 did not end within" in said and "Traceback" not in said


def test_what_stands_still_ends_all_with_a_sentence():
    wait = "with Watchdog(3) as watch:\n    watch.expect('step 7')\n    time.sleep(100)"
    codes, said = together([wait, wait])
    assert codes == [2, 2]
    assert all("step 7 did not end within config.train.wait_seconds = 3" in text for text in said)
    assert all("Traceback" not in text for text in said)


@pytest.mark.parametrize("failing", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_failure_of_one_process_ends_all_with_its_sentence(failing):
    fails = "with Watchdog(100):\n    raise errors.UserError('the disk is full')"
    waits = "with Watchdog(100):\n    time.sleep(100)"
    codes, said = together([fails if i == failing else waits for i in range(3)])
    assert codes == [2, 2, 2]
    sentences = [
        ["error: the disk is full" if i == failing else f"error: process {failing}: the disk is full"] for i in range(3)
    ]
    assert [[line for line in text.splitlines() if line.startswith("error")] for text in said] == sentences


def test_a_bug_in_one_process_ends_all():
    codes, said = together(["with Watchdog(100):\n    raise KeyError('k')", "with Watchdog(100):\n    time.sleep(100)"])
    assert codes == [1, 2]
    assert "KeyError: 'k'" in said[0] and "error: process 0: it ended by KeyError" in said[1]


@pytest.mark.slow
def test_what_processes_agree_on_is_compared_and_may_be_slow():
    """Half a minute is what a collective would wait for."""
    bodies = [
        "time.sleep(40)\nhosts.agree('a', None, 60, same={'k': 'v'})\nhosts.agree('b', None, 60, same={'k': 'v'})"
    ] * 2
    bodies[1] = (
        bodies[1]
        .removeprefix("time.sleep(40)\n")
        .replace("'b', None, 60, same={'k': 'v'}", "'b', None, 60, same={'k': 'w'}")
    )
    codes, said = together(bodies, 120)
    assert codes == [2, 2] and all("process 1 has another k than process 0 (w and v)" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("lacks", [0, 1])
def test_a_value_that_one_process_alone_has_is_named(lacks):
    bodies = ["hosts.agree('a', None, 60, same={'k': 'v', 'm': 'w'})"] * 2
    bodies[lacks] = "hosts.agree('a', None, 60, same={'k': 'v'})"
    codes, said = together(bodies)
    there = "(w and none)" if lacks == 0 else "(none and w)"
    assert codes == [2, 2] and all(f"process 1 has another m than process 0 {there}" in text for text in said)


def test_a_taken_port_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        in_a_new_process(f"""
with pytest.raises(UserError, match="another program listens at port {port}"):
    hosts.join("on", "127.0.0.1:{port}", 2, 0, 2)
""")


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_alone_waits_only_so_long(process):
    code = (
        "import sys\nfrom contrique_jax import errors; from contrique_jax.training import hosts\n"
        f"sys.exit(errors.run_verb(lambda _: hosts.join('on', '127.0.0.1:{_free_port()}', 2, {process}, 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "config.train.wait_seconds = 2" in done.stderr and "Traceback" not in done.stderr


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_a_new_process(body):
    """Joining must come before this process's devices are chosen, which other tests have done."""
    code = (
        "import pytest\nfrom contrique_jax.training import hosts\nfrom contrique_jax.errors import UserError\n" + body
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_mistakes_of_joining_are_one_sentence():
    in_a_new_process("""
for flags, message in [
    (("on", "", -1, -1), "no cluster was found"),
    (("auto", "here:8476", 2, 2), "--process_id=2"),
    (("auto", "here", 2, 0), "give host:port"),
    (("auto", "", 4, 2), "--process_id need --coordinator"),
]:
    with pytest.raises(UserError, match=message):
        hosts.join(*flags, 2)
""")


def test_alone_is_the_default():
    in_a_new_process("""
hosts.join("auto", "", -1, -1, 2)
hosts.join("off", "here", 0, 0, 2)
assert hosts.is_first() and hosts.total(3) == 3
with pytest.raises(UserError, match="a sentence"):
    hosts.agree("now", UserError("a sentence"), 2)
with pytest.raises(UserError, match="has already used jax"):
    hosts.join("auto", "", -1, -1, 2)
""")
