"""Files that appear whole or not at all; folders with one writer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contrique_jax.errors import UserError
from contrique_jax.io.outputs import atomic_write, only_writer


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "out.txt"
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"] and path.read_text() == "whole"
    with atomic_write(path) as temporary, atomic_write(path) as another:  # of two threads
        temporary.write_text("one")
        another.write_text("other")
    assert [file.name for file in tmp_path.iterdir()] == ["out.txt"] and path.read_text() == "one"
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: it is a folder"), atomic_write(tmp_path / "folder") as temporary:
        temporary.write_text("whole")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "out.txt"]


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path):
    pytest.importorskip("fcntl")
    hold = (
        "import sys, pathlib; from contrique_jax.io.outputs import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another process"), only_writer(tmp_path):
            pass
        other.kill()
    with only_writer(tmp_path):
        pass
