"""The original's lists of images and our manifests, both ways."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from contrique_jax.convert.original_csv import class_of, csv_from_original, csv_to_original, labels_of
from contrique_jax.data.sources import open_source
from tests.convert.subverbs import run


def labels(place: int | None) -> str:
    return str([float(number == place) for number in range(126)])


def original(path, places) -> None:
    rows = "".join(f'"images/{i}, a.png","{labels(place)}"\n' for i, place in enumerate(places))
    path.write_text("File_names,labels\n" + rows, encoding="utf-8")


def test_there_and_back_is_the_same_text(tmp_path, capsys):
    places = [*range(126), None, 3, 3, 125, None]
    original(tmp_path / "a.csv", places)
    run(csv_from_original, tmp_path / "a.csv", tmp_path / "b.csv")
    assert "131 rows, 2 of them authentic" in capsys.readouterr().out
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines[0] == "path,class" and lines[1] == '"images/0, a.png",0' and lines[127] == '"images/126, a.png",'
    run(csv_to_original, tmp_path / "b.csv", tmp_path / "c.csv")
    assert "131 rows, 2 of them authentic" in capsys.readouterr().out
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_distorted_rows_are_a_source_with_classes(tmp_path):
    original(tmp_path / "a.csv", [5, 0, 125])
    run(csv_from_original, tmp_path / "a.csv", tmp_path / "b.csv")
    source = open_source(str(tmp_path / "b.csv"), role="pristine", field="config.data.pristine")
    assert source.classes.tolist() == [5, 0, 125] and source.item_name(1) == "images/1, a.png"
    assert open_source(str(tmp_path / "b.csv"), role="authentic", field="x").classes is None


def test_the_text_as_pandas_and_numpy_write_it(tmp_path):
    place = np.zeros(126)
    place[7] = 1
    whole = place.astype(int).tolist()
    for text in (str(place.tolist()), str(whole), np.array2string(place), np.array2string(place, separator=",")):
        assert class_of(text) == "7"
    rows = [f'0,é.png,"{labels(7)}"', f'1,b.png,"{labels(None)}"']  # the first column numbers the rows
    (tmp_path / "a.csv").write_text("\n".join([",File_names,labels", *rows]), encoding="utf-8")
    run(csv_from_original, tmp_path / "a.csv", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text(encoding="utf-8") == "path,class\né.png,7\nb.png,\n"


@pytest.mark.parametrize(
    "row,says",
    [
        ('x.png,"[0.0, 1.0]"', "has 2"),
        (f'x.png,"{labels(None)[:-1]}"', "in brackets"),
        (f'x.png,"{labels(4).replace("1.0", "0.5")}"', "at most one 1"),
        (f'x.png,"{labels(4).replace("1.0", "nan")}"', "at most one 1"),
        (f'x.png,"{labels(4).replace("0.0", "1.0", 1)}"', "at most one 1"),
        (f'x.png,"{labels(4).replace("1.0", "one")}"', "one"),
        (f',"{labels(4)}"', "'File_names' is empty"),
        ("x.png", "1 values for 2 columns"),
        ("x.png,", "has 0"),
    ],
)
def test_a_bad_row_is_named_by_its_line_and_nothing_is_written(tmp_path, capsys, row, says):
    (tmp_path / "a.csv").write_text(f'File_names,labels\na.png,"{labels(3)}"\n{row}\nb.png,"{labels(3)}"\n')
    run(csv_from_original, tmp_path / "a.csv", tmp_path / "b.csv", code=2)
    error = capsys.readouterr().err
    assert "a.csv, line 3: " in error and says in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("text", ["126", "-1", "3.0", "cat", "1" * 5000])
def test_a_class_that_is_none(tmp_path, capsys, text):
    (tmp_path / "a.csv").write_text(f"path,class\na.png,3\nb.png,{text}\n")
    run(csv_to_original, tmp_path / "a.csv", tmp_path / "b.csv", code=2)
    assert "a.csv, line 3: class is" in capsys.readouterr().err


def test_files_of_another_kind(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("path,mos\na.png,3\n")
    for module, says in ((csv_from_original, "no column 'File_names'"), (csv_to_original, "no column 'class'")):
        run(module, tmp_path / "a.csv", tmp_path / "b.csv", code=2)
        assert says in capsys.readouterr().err
        run(module, tmp_path / "absent.csv", tmp_path / "b.csv", code=2)
        assert "does not exist" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text("path,class\n")
    run(csv_to_original, tmp_path / "a.csv", tmp_path / "b.csv", code=2)
    assert "no rows" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()


def test_rows_are_not_kept(tmp_path):
    (tmp_path / "a.csv").write_text("path,class\n" + "".join(f"images/{i}.png,{i % 126}\n" for i in range(30_000)))
    labels_of.cache_clear()
    tracemalloc.start()
    try:
        run(csv_to_original, tmp_path / "a.csv", tmp_path / "b.csv")
        run(csv_from_original, tmp_path / "b.csv", tmp_path / "c.csv")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "b.csv").stat().st_size > 18e6 and peak < 3e6
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_the_file_that_is_read_is_not_written_over(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("path,class\na.png,3\n")
    run(csv_to_original, tmp_path / "a.csv", tmp_path / "a.csv", code=2)
    assert "name another file" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text() == "path,class\na.png,3\n"
