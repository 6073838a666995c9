"""Tables: what a csv may look like, and what is said of one that cannot be read. Columns of scores: test_iqa_sets."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest

from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import number, open_table, table_paths


def read(folder: Path, data: bytes | str) -> list[tuple[int, list[str]]]:
    path = folder / "t.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    table = open_table(path, "--scores")
    return list(table.rows(table.column("path"), table.column("mos")))


@pytest.mark.parametrize(
    "text", ["1_0", "", " 1", "1 ", "nan", "inf", "-Infinity", "0x1", "\u0663", "1,5", "1e", ".", "1.5.2", "--1"]
)
def test_what_is_no_number(text):
    assert number(text) != number(text)


def test_numbers():
    assert [number(text) for text in ("1", "-1.5", "+2.", ".5", "1e3", "1.5E-2")] == [1, -1.5, 2, 0.5, 1000, 0.015]


def test_lines_are_counted_through_comments_and_cells_of_several_lines(tmp_path):
    rows = read(tmp_path, '# one\n\n#two "\nnote,path,mos\n"a\nb",x,1\n\n"c",y,2\n')
    assert rows == [(6, ["x", "1"]), (8, ["y", "2"])]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('path,mos,note\na,1,"x\nb,2,y\n', "line 3: unexpected end of data"),
        ('path,mos\n"a"b,1\n', "line 2: ',' expected"),
        (b"path,mos\n\xe4,1\n", "line 2: .*another encoding; save it as CSV UTF-8"),
        ("path,mos\n".encode("utf-16"), "it is in UTF-16; save it as CSV UTF-8"),
        ("path,mos\n".encode("utf-16-le"), "it is no text in UTF-8; save it as CSV UTF-8"),
        ('{"header": {}}\n', "it is JSON; give a csv"),
        (b"PK\x03\x04rest", "an Excel workbook or another zip file"),
        ("# path,mos\na,1\n", "a line that begins with # is a comment: take the # away if it is the header"),
        ("a.png,1\nb.png,2\n", "its first line looks like a row: write the names of the columns above it"),
        (
            "path,mos\na,b,1\n",
            r"line 2: 3 values for 2 columns; fix the row \(a name with commas in it goes between quotes\)",
        ),
        ("path,mos\na\n", "line 2: 1 values for 2 columns"),
        ("path," + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, data, says):
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path, data)
    assert str(tmp_path / "t.csv") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "darwin", reason="file names of a Mac are UTF-8")
def test_a_name_that_is_no_utf8_is_read_if_a_file_has_it(tmp_path):
    """As our own tables have it; another encoding's letters would name no file."""
    name = os.fsdecode(b"n\xe4.png")
    (tmp_path / name).touch()
    assert read(tmp_path, b"path,mos\nn\xe4.png,1\n") == [(2, [name, "1"])]


def test_the_images_of_a_table(tmp_path, capsys, monkeypatch):
    path = tmp_path / "set" / "t.csv"
    path.parent.mkdir()
    path.write_text("image_name,mos\na.png,1\n/b.png,2\ngone.png,3\n")
    with pytest.raises(UserError, match="is it 'image_name'"):
        table_paths(path, "PATH")
    assert table_paths(path, "PATH", "image_name") == [path.parent / "a.png", Path("/b.png"), path.parent / "gone.png"]
    path.write_text("path\na.png\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    assert table_paths("set/t.csv", "PATH") == [Path("a.png")]
    assert (
        capsys.readouterr().err
        == "note: set/t.csv: its paths are taken from the working folder, as none is beside it\n"
    )
    (path.parent / "a.png").touch()
    assert table_paths("set/t.csv", "PATH") == [Path("set/a.png")] and not capsys.readouterr().err
    for text, says in (("path\n", "no rows"), ("path,mos\n,1\n", "line 2: the column 'path' is empty")):
        path.write_text(text)
        with pytest.raises(UserError, match=says):
            table_paths(path, "PATH")


def test_any_name_that_csv_writes_is_read_back(tmp_path):
    names = [
        "a,b.png",
        'say "x".png',
        "#1.png",
        "a;b.png",
        "é\u2028.png",
        "two\nlines.png",
        "'q'.png",
        "=1+1.png",
        "1_0",
    ]
    for separator in ",;\t":
        with open(tmp_path / "t.csv", "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, delimiter=separator).writerows([["path", "mos"], *[[name, 1] for name in names]])
        assert table_paths(tmp_path / "t.csv", "PATH") == [tmp_path / name for name in names]
