"""How commands end by Ctrl-C and SIGTERM, also while what they read does not answer: a pipe that nobody writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.awaited import awaited
from tests.children import ONE_DEVICE

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
CONFIG = Path(__file__).parent / "tiny_config.py"
# a thread reads from the pipe, and the main thread: waits for it, waits where Python hears nothing, clears away for ever
WAITS = {
    "in a thread": "pool.submit(read).result()",
    "in C": "import ctypes; ctypes.CDLL(None).sleep(1000)",
    "while it clears away": "\n    try: pool.submit(read).result()\n    finally: time.sleep(1000)",
}


def verb(pipe: Path, wait: str) -> list[str]:
    code = f"""
import sys, time
from concurrent.futures import ThreadPoolExecutor
from contrique_jax.errors import run_verb
pool = ThreadPoolExecutor(1)
read = lambda: open({str(pipe)!r}, 'rb').read()
def main(argv):
    print("begun", flush=True); {wait}
sys.exit(run_verb(main, []))
"""
    return [sys.executable, "-c", code]


def ended(job: subprocess.Popen[str], *numbers: int) -> tuple[int, float]:
    """Exit code, and seconds from the last of the signals to the end."""
    for number in numbers:
        time.sleep(0.3)
        job.send_signal(number)
    begun = time.monotonic()
    try:
        code = job.wait(timeout=60)
    finally:
        job.kill()
    return code, time.monotonic() - begun


@pytest.mark.parametrize("wait", WAITS)
def test_a_second_signal_ends_a_command_within_five_seconds(wait, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    jobs = []
    for numbers in ([signal.SIGINT, signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
        command = verb(tmp_path / "pipe", WAITS[wait])
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert job.stdout.readline() == "begun\n"
        jobs.append((job, numbers))
    for job, numbers in jobs:
        job.send_signal(numbers[0])
    for job, numbers in jobs:
        code, seconds = ended(job, numbers[1])
        assert (code, seconds < 5) == (128 + numbers[0], True), seconds


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_is_enough_while_a_thread_waits_for_a_disk(number, code, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    command = verb(tmp_path / "pipe", WAITS["in a thread"])
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout.readline() == "begun\n"
    found, seconds = ended(job, number)
    assert (found, seconds < 5) == (code, True)
    assert job.stderr.read() == ("interrupted\n" if number == signal.SIGINT else "terminated\n")


def test_items_come_until_one_is_late_after_a_stop():
    stop = []

    def items():
        yield from range(3)
        stop.append(True)
        time.sleep(1000)

    assert list(awaited(items(), lambda: bool(stop))) == [0, 1, 2]
    assert list(awaited(iter("ab"), lambda: True)) == ["a", "b"]
    with pytest.raises(ZeroDivisionError):
        list(awaited((1 // (1 - i) for i in range(3)), lambda: False))


HUNG = """
import sys
from contrique_jax import cli, errors
from contrique_jax.data import decode
real, pipe, few, seen = decode.read_bytes, sys.argv[1], int(sys.argv[2]), []
def read_bytes(path):
    seen.append(path)
    return real(path) if len(seen) <= few else open(pipe, "rb").read()
decode.read_bytes = read_bytes
sys.exit(errors.run_verb(cli.main, sys.argv[3:]))
"""


@pytest.fixture
def photographs(tmp_path) -> Path:
    (tmp_path / "photographs").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{i:02}.png")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "photographs"


@pytest.mark.slow
@pytest.mark.parametrize(("loader", "number", "code"), [("threads", signal.SIGINT, 130), ("tfdata", signal.SIGTERM, 0)])
def test_a_training_whose_disk_stops_answering_saves_what_it_has(loader, number, code, photographs, tmp_path):
    flags = [f"--config={CONFIG}", f"--config.data.pristine={photographs}", f"--config.data.loader={loader}"]
    flags += [f"--workdir={tmp_path / 'w'}", "--config.train.checkpoint_every=1000", "--config.train.log_every=1"]
    command = [sys.executable, "-c", HUNG, str(tmp_path / "pipe"), "80", "train", *flags]
    job = subprocess.Popen(command, env=os.environ | ONE_DEVICE, stderr=subprocess.PIPE, text=True)
    line = ""
    while not line.startswith("step 5/"):
        line = job.stderr.readline()
        assert line, "it ended early"
    time.sleep(5)  # until it stands still
    found, seconds = ended(job, number)
    said = job.stderr.read()
    assert found == code and seconds < 20, said
    (saved,) = (place.name for place in (tmp_path / "w" / "checkpoints").iterdir() if place.name.isdigit())
    assert f"stopped and saved at step {saved} of 40" in said and "Traceback" not in said


@pytest.mark.slow
def test_scoring_from_a_disk_that_stops_answering_ends_by_signals(photographs, tmp_path):
    command = [sys.executable, "-c", HUNG, str(tmp_path / "pipe"), "3", "score", str(photographs)]
    for numbers in ([signal.SIGTERM], [signal.SIGINT, signal.SIGINT]):
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(15)
        assert job.poll() is None
        code, seconds = ended(job, *numbers)
        assert code == 128 + numbers[0] and seconds < (25 if len(numbers) == 1 else 5)
