"""Images named by folders, tables, lists and stdin."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from contrique_jax.data.listed import find_listed
from contrique_jax.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b, c.png", "d.png"):
        (tmp_path / "photos" / name).write_bytes(b"")
    (tmp_path / "photos" / "t.csv").write_text('path,image\n"b, c.png",d.png\na.png,a.png\n')
    (tmp_path / "photos" / "l.txt").write_text("d.png\n\nb, c.png\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return find_listed(["-"]).files


@pytest.mark.parametrize(
    "paths, column, names",
    [
        (["photos"], None, ["a.png", "b, c.png", "d.png"]),
        (["photos/t.csv"], None, ["b, c.png", "a.png"]),
        (["photos/t.csv"], "image", ["d.png", "a.png"]),
        (["photos/l.txt", "photos/a.png", "photos"], None, ["d.png", "b, c.png", "a.png"]),
    ],
)
def test_lists_and_tables_name_images_beside_them_each_once(place, paths, column, names):
    assert [str(path) for path in find_listed(paths, column).files] == [f"photos/{name}" for name in names]


def test_stdin_gives_a_path_a_line_or_between_zero_bytes(place, monkeypatch):
    assert from_stdin(monkeypatch, b"photos/d.png\nabsent.png\n") == [Path("photos/d.png"), Path("absent.png")]
    assert from_stdin(monkeypatch, b"odd\nname.png\0caf\xe9.png\0") == [Path("odd\nname.png"), Path("caf\udce9.png")]


@pytest.mark.parametrize(
    "paths, column, says",
    [(["photos/t.csv"], "mos", "no column 'mos'"), (["absent.csv"], None, "does not exist"),
     (["absent.txt"], None, "cannot be read"), (["empty.txt"], None, "lists no images"), (["u.txt"], None, "in UTF-16"),
     ([""], None, "an empty path"),
     (["-"], None, "lists no images")],
)  # fmt: skip
def test_mistakes_are_named(place, monkeypatch, paths, column, says):
    (place / "empty.txt").write_text("\n")
    (place / "u.txt").write_bytes("photos/a.png\n".encode("utf-16"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UserError, match=says):
        find_listed(paths, column)
