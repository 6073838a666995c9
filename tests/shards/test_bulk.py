"""`contrique-jax bulk` as it is typed: processes that die, commands that are killed, runners."""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax import cli
from contrique_jax.errors import run_verb
from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.model_folder import load_model
from tests.planted import probe_of, tiny_model, write_images

pytest.importorskip("apache_beam")
ROOT = Path(__file__).parents[2]
DEADLY = (13, 11)  # an image of this size ends the process that decodes it
SITE = f"""
import os, signal
from PIL import PngImagePlugin
whole = PngImagePlugin.PngImageFile.load
def load(self):
    if self.size == {DEADLY}:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self)
PngImagePlugin.PngImageFile.load = load
"""
COUNTED = re.compile(r"(\d+) images found = (\d+) scored \+ (\d+) broken \+ (\d+) skipped")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """40 images in 8 shards, 2 of them broken; a model and its probe."""
    folder = tmp_path_factory.mktemp("bulk")
    write_images(folder / "images", 26)
    for name in ("b1.png", "image3_1.png"):
        (folder / "images" / name).write_bytes(b"no image")
    extractor = Extractor(*load_model(tiny_model(folder / "model", 0)))
    probe_of(extractor, np.random.default_rng(0)).save(folder / "probe.npz")
    return folder


def words(place, out, *more, images="images"):
    model = ["--model", place / "model", "--probe", place / "probe.npz", "--format", "csv", "--shard-images", 5]
    return [sys.executable, "-m", "contrique_jax.cli", "bulk", *map(str, (place / images, "--out", out, *model, *more))]


def environment(*places):
    path = os.pathsep.join(map(str, (*places, ROOT)))
    return dict(os.environ, PYTHONPATH=path, CONTRIQUE_CACHE="off")


def bulk(place, out, *more, site=(), within=(), images="images", code=0):
    """The command's counts, or what it says is wrong."""
    asked = [*within, *words(place, out, *more, images=images)]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment(*site))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return tuple(map(int, COUNTED.search(done.stdout).groups())) if not code else done.stderr


def each_once(place, out, images="images"):
    """The images that are broken; that every one stands in the results once is checked."""
    found = Counter()
    for pattern in ("scores-*.csv", "broken-*.csv"):
        names = [row["path"] for file in out.glob(pattern) for row in csv.DictReader(file.read_text().splitlines())]
        found += Counter(names)
    assert found == Counter(str(path) for path in (place / images).glob("*.png"))
    return sorted(Path(name).name for name in names)


def children(parent):
    """The processes that another one has begun, on Linux."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def alive(process):
    """Whether it is there, and not only waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_a_killed_command_goes_on_and_nothing_is_done_twice(place, tmp_path):
    """SIGKILL with its processes at work, then SIGTERM, then in peace; no process and no half a file is left."""
    out, skipped = tmp_path / "out", 0
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = subprocess.Popen(words(place, out, "--workers", 2), env=environment(), stderr=subprocess.DEVNULL)
        wanted = skipped + 1
        while process.poll() is None and len(list(out.glob("done/*.json"))) < wanted:
            time.sleep(0.02)
        workers = children(process.pid)
        process.send_signal(number)
        assert process.wait(30) == code and workers
        until = time.monotonic() + 10
        while any(map(alive, workers)):
            assert time.monotonic() < until
            time.sleep(0.1)
        skipped = len(list(out.glob("done/*.json")))
    scores = [out / f"scores-{path.stem}.csv" for path in out.glob("done/*.json")]
    written = [path.stat().st_mtime_ns for path in scores]
    found, scored, broken, before = bulk(place, out, "--workers", 2)
    assert found == 40 == scored + broken + before and before == 5 * skipped
    assert each_once(place, out) == ["b1.png", "image3_1.png"] and not list(out.rglob(".*"))
    assert [path.stat().st_mtime_ns for path in scores] == written
    assert bulk(place, out, "--workers", 2) == (40, 0, 0, 40)


@pytest.mark.slow
def test_an_image_that_brings_processes_down_is_a_broken_one(place, tmp_path):
    """Its shard is done again, image by image; the others are scored."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    shutil.copytree(place / "images", place / "deadly")
    Image.new("RGB", DEADLY).save(place / "deadly" / "image5_9.png")
    counts = bulk(place, tmp_path / "out", "--workers", 1, site=[tmp_path], images="deadly")
    assert counts == (41, 38, 3, 0)
    assert each_once(place, tmp_path / "out", "deadly") == ["b1.png", "image3_1.png", "image5_9.png"]
    reasons = "".join(path.read_text() for path in (tmp_path / "out").glob("broken-*.csv"))
    assert "the process that read it was brought down by it, 2 times (signal 9)" in reasons


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_command_goes_on(place, tmp_path):
    more = ("--workers", 1, "--features")
    said = bulk(place, tmp_path / "out", *more, code=2, within=["bash", "-c", 'ulimit -f 3; exec "$@"', "-"])
    assert re.fullmatch(r"error: .*features-0000\d\.npz: no space left to write \(.*\); free some space.*\n", said)
    assert not list((tmp_path / "out").rglob(".*")) and not list((tmp_path / "out").glob("done/*"))
    assert bulk(place, tmp_path / "out", *more) == (40, 38, 2, 0)
    each_once(place, tmp_path / "out")


@pytest.mark.slow
def test_another_runner_gets_the_same(place, tmp_path):
    """Beam's own job service, to which the pipeline goes as it would to Flink's or Spark's."""
    portable = ("--runner", "PortableRunner", "--option", "job_endpoint=embed", "--option", "environment_type=LOOPBACK")
    assert bulk(place, tmp_path / "out", "--workers", 2, *portable) == (40, 38, 2, 0)
    each_once(place, tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--runner", "Nonsense"], "--runner Nonsense: Beam knows no such runner; choose direct, DataflowRunner"),
        (["--option", "runner"], "--option: Beam cannot read runner; give each as NAME=VALUE"),
        (
            ["--runner", "DataflowRunner"],
            "Dataflow's workers do not see this machine's folders; give gs://BUCKET/FOLDER",
        ),
        (["--features-of", "elsewhere"], "give the PATHs of images, or --features-of DIR, one of the two"),
        (["--shard-images", "0"], "--shard-images 0: give 1 or more"),
        (["--workers", "-1"], "--workers -1: give 0 or more"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(place, tmp_path, capfd, more, says):
    assert run_verb(cli.main, ["bulk", str(place / "images"), "--out", str(tmp_path / "out"), *more]) == 2
    said = capfd.readouterr().err
    assert says in said and said.count("\n") == 1 and not (tmp_path / "out").exists()
