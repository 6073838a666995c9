"""What is no regular file is named and never opened: pipes, sockets, devices and links to them, wherever a path is read."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.broken import BrokenLog, load
from contrique_jax.data.decode import read
from contrique_jax.data.sources import open_source
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.evaluation.splits import read_splits
from contrique_jax.gallery import load as load_photograph
from contrique_jax.inference.cache import cached_features
from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.io import regular
from contrique_jax.io.csv_rows import csv_rows
from contrique_jax.io.npz import read_npy
from contrique_jax.io.outputs import output_path
from contrique_jax.io.parts import Parts
from contrique_jax.io.regular import NotRegular, open_regular, read_bytes
from contrique_jax.networks.description import read_description
from contrique_jax.networks.model_folder import load_model
from contrique_jax.probe import load_probe
from contrique_jax.training.config_files import by_name

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def pipe(tmp_path) -> Path:
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path / "pipe.png"


def test_each_kind_is_named(tmp_path, pipe):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        (tmp_path / "link").symlink_to(pipe)
        kinds = {"pipe.png": "a named pipe", "socket": "a socket", "link": "a named pipe", ".": "a folder"}
        for name, kind in kinds.items():
            with pytest.raises(NotRegular) as found:
                open_regular(tmp_path / name)
            assert found.value.strerror == f"it is {kind}, not a file"
    with pytest.raises(NotRegular, match="a device"):
        open_regular("/dev/zero")


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00\xffabc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "b") == b"\x00\xffabc"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_a_pipe_that_takes_the_files_place_is_not_waited_for(tmp_path, pipe, monkeypatch):
    """The look at the path sees a file, the opening finds a pipe."""
    (tmp_path / "file").write_text("x")
    status = os.stat(tmp_path / "file")
    monkeypatch.setattr("contrique_jax.io.regular.os.stat", lambda path: status)
    done = []

    def opened():
        with pytest.raises(NotRegular):
            open_regular(pipe)
        done.append(True)

    thread = threading.Thread(target=opened, daemon=True)
    thread.start()
    thread.join(10)
    assert done


def test_pipes_in_the_place_of_configs_results_and_lists_of_a_run_are_refused(tmp_path, pipe):
    """Each would be waited for, or be replaced by a file."""
    (tmp_path / "s.csv.partial").symlink_to(pipe)
    (tmp_path / "s.csv").symlink_to(pipe)
    for says, read_it in {
        r"--config: .*pipe\.png cannot be read \(it is a named pipe": lambda: by_name(str(pipe)),
        "s.csv.partial: it cannot be written": lambda: Parts(tmp_path / "s.csv", {}),
        "--out: .*s.csv is there and no file": lambda: output_path("--out", str(tmp_path / "s.csv"), (".csv",)),
    }.items():
        with pytest.raises(UserError, match=says):
            read_it()
    for read_it in (lambda: BrokenLog(pipe), lambda: read_npy(pipe)):
        with pytest.raises(NotRegular):
            read_it()


def test_broken_images_are_written_down_once_their_folder_is_there(tmp_path):
    log = BrokenLog(tmp_path / "run" / "broken.txt", quiet=True)
    log.add(BrokenImage("a.png", "the file is empty"))
    assert log.count == 1 and not list(tmp_path.iterdir())
    (tmp_path / "run").mkdir()
    log.write()
    log.add(BrokenImage("b.png", "the file is empty"))
    assert (tmp_path / "run" / "broken.txt").read_text() == "a.png: the file is empty\nb.png: the file is empty\n"


def test_a_folder_of_photographs_with_a_pipe_among_them_is_read(tmp_path, pipe):
    Image.new("RGB", (8, 8), (9, 0, 0)).save(tmp_path / "q.png")
    source, broken = open_source(str(tmp_path), role="pristine", field="config.data.pristine"), BrokenLog(quiet=True)
    assert len(source) == 2
    stack, read_as = load(source, 0, broken)
    assert read_as == 1 and stack[0, 0, 0, 0] == 9 and broken.count == 1
    with pytest.raises(BrokenImage, match="it is a named pipe, not a file"):
        read(pipe)


class Brightness:
    """Features of one number."""

    model_hash, width, max_megapixels, shorter_side = "none", 1, 16.0, None

    def stream(self, paths):
        for path in paths:
            yield FileFeatures(path, np.asarray([read(path).mean()]))


def test_features_of_images_with_a_pipe_among_them(tmp_path, pipe):
    for i in range(3):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    features, broken = cached_features(Brightness(), [pipe, *tmp_path.glob("[0-9].png")], None, tmp_path)
    assert len(features) == 3
    assert [str(error) for error in broken] == [f"{pipe}: the file cannot be read (it is a named pipe, not a file)"]


def test_files_of_other_kinds_are_refused_in_one_sentence(tmp_path, pipe):
    model = tmp_path / "model"
    model.mkdir()
    os.mkfifo(model / "model.json")
    os.mkfifo(model / "model.safetensors")
    for call in (
        lambda: load_probe(pipe),
        lambda: list(csv_rows(pipe, "--scores")),
        lambda: read_splits(pipe, ["a"]),
        lambda: load_photograph(pipe),
        lambda: read_description(model),
        lambda: open_source(f"arrays:{pipe}", role="pristine", field="config.data.pristine"),
    ):
        with pytest.raises(UserError, match=r"it is a named pipe, not a file|a named pipe"):
            call()
    with pytest.raises(UserError, match=r"model\.json is no file"):  # which is what a model folder needs: files
        load_model(model)


def test_what_does_not_come_is_named_while_it_is_waited_for(tmp_path, monkeypatch, capsys):
    """As on a server that does not answer: an open and a read that return late."""
    monkeypatch.setattr(regular, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(regular, "LOOK_SECONDS", 0.02)
    (tmp_path / "late").write_bytes(b"abc")
    stat = os.stat

    def slow(path: object, *args: object, **options: object) -> os.stat_result:
        if str(path).endswith("late"):
            until = time.monotonic() + 20  # the thread that looks may be in the middle of a second
            while "still waiting" not in said[0] and time.monotonic() < until:
                time.sleep(0.02)
                said[0] += capsys.readouterr().err
        return stat(path, *args, **options)  # type: ignore[arg-type]

    said = [""]
    monkeypatch.setattr(os, "stat", slow)
    assert read_bytes(tmp_path / "late") == b"abc"
    assert said[0].startswith(f"still waiting for {tmp_path / 'late'} after ")
    assert not regular._waited_for
