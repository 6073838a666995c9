"""Reading opinion scores: what is understood, and every mistake in one sentence that names the row."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.iqa_sets.ratings import shared_files
from contrique_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in "abcdr":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    return tmp_path


def write(folder, text):
    path = folder / "scores.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_plain_case(folder):
    images = read_scores(write(folder, "path,mos\na.png,1.5\n\nb.png, 2\n"))
    assert [path.name for path in images.paths] == ["a.png", "b.png"] and images.scores.tolist() == [1.5, 2]
    assert len(set(images.groups)) == 2 and images.subsets is None and images.references is None
    assert images.higher_is_better and images.name == folder.name and images.score_column == "mos"


def test_columns_are_found_by_name_and_dmos_is_lower_is_better(folder):
    path = write(folder, "\ufeffdmos,group,path,subset\n1,x,a.png,s\n2,x,b.png,t\n")
    images = read_scores(path, name="MINE")
    assert images.groups == ["x", "x"] and images.subsets == ["s", "t"] and images.name == "MINE"
    assert not images.higher_is_better
    part = images.subset([1])
    assert len(part) == 1 and part.subsets == ["t"] and part.scores.tolist() == [2]


def test_named_columns_win(folder):
    path = write(folder, "path,mos,dmos,quality,scene,kind\na.png,1,9,5,x,k\nb.png,2,8,7,y,k\n")
    images = read_scores(path, score_column="quality", group_column="scene", subset_column="kind", lower_is_better=True)
    assert images.scores.tolist() == [5, 7] and images.groups == ["x", "y"] and images.subsets == ["k", "k"]
    assert not images.higher_is_better
    with pytest.raises(UserError, match=r"several columns of scores \(mos, dmos\); name one with --score-column"):
        read_scores(path)


def test_references_group_the_images_and_are_read_only_when_named(folder):
    path = write(folder, "path,mos,reference\na.png,1,r.png\nb.png,2,r.png\nc.png,3,d.png\n")
    assert read_scores(path).groups == ["r.png", "r.png", "d.png"] and read_scores(path).references is None
    images = read_scores(path, reference_column="reference")
    assert [reference.name for reference in images.references] == ["r.png", "r.png", "d.png"]
    assert images.groups == ["r.png", "r.png", "d.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,mos\na.png,1\n", "no column 'path'"),
        ("path,quality\na.png,1\n", "no column of scores"),
        ("path,mos\na.png,1\nb.png,\n", "line 3: mos is ''"),
        ("path,mos\na.png,1\nb.png,nan\n", "line 3: mos is 'nan'"),
        ("path,mos\na.png,good\nb.png,1\n", "line 2: mos is 'good'"),
        ("path,mos\na.png,1\nb.png,inf\n", "line 3: mos is 'inf'"),
        ("path,mos\na.png,1\nb.png,1.0\n", "every mos is 1"),
        ("path,mos\na.png,3.9\n", "only one image, and one mos is nothing to learn from"),
        ("path;mos\na.png;1\nb.png;2\n", "separated by semicolons; separate the columns by commas"),
        ("path\tmos\na.png\t1,5\nb.png\t2\n", "separated by tabs; separate the columns by commas"),
        ("path,mos\na.png,1\nx.png,2\ny.png,2\n", r"line 3: path 'x.png' is no file in .* \(and 1 more\)"),
        ("path,mos\na.png,1\n,2\n", "line 3: path '' is no file"),
        ("path,mos\na.png,1\n./a.png,2\n", "lines 2 and 3: a.png is listed twice"),
        ("path,mos\na.png,1,3\n", "line 2: 3 values for 2 columns"),
        ("path,mos,group\na.png,1,\nb.png,2,x\n", "line 2: the column 'group' is empty"),
        ("path,mos\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_mistakes_name_the_row(folder, text, says):
    with pytest.raises(UserError, match=says):
        read_scores(write(folder, text))


def test_deviations_of_opinions_come_from_their_column(folder):
    path = write(folder, "path,mos,sd\na.png,1,0.5\nb.png,2,1e-3\n")
    images = read_scores(path, deviation_column="sd", shorter_side=32)
    assert images.deviations.tolist() == [0.5, 1e-3] and images.shorter_side == 32
    assert images.subset([1]).deviations.tolist() == [1e-3] and read_scores(path).deviations is None
    for wrong, says in (("0", "sd is '0'; a standard"), ("-1", "above 0"), ("", "sd is ''"), ("nan", "sd is 'nan'")):
        with pytest.raises(UserError, match=f"line 3: .*{says}"):
            read_scores(write(folder, f"path,mos,sd\na.png,1,0.5\nb.png,2,{wrong}\n"), deviation_column="sd")


def test_shared_files_are_counted_by_their_bytes(folder):
    (folder / "again.png").write_bytes(b"a")
    a, b, c, again = (folder / f"{name}.png" for name in ("a", "b", "c", "again"))
    assert shared_files([a, b], [c]) == 0 and shared_files([a, b], [again, c, b]) == 2
    assert shared_files([a], [a, again]) == 2 and shared_files([a, again], [c]) == 0


def test_missing_columns_and_files_are_named(folder):
    path = write(folder, "path,mos\na.png,1\nb.png,2\n")
    for flag in ("group", "subset", "reference", "deviation", "score"):
        with pytest.raises(UserError, match=f"no column 'nope' for --{flag}-column"):
            read_scores(path, **{f"{flag}_column": "nope"})
    with pytest.raises(UserError, match="does not exist"):
        read_scores(folder / "absent.csv")
    with pytest.raises(UserError, match=r"^--cross: .* does not exist"):
        read_scores(folder / "absent.csv", field="--cross")
    (folder / "scores.csv").write_bytes(b"path,mos\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="UTF-8"):
        read_scores(folder / "scores.csv")


def test_equal_files_in_different_groups_are_refused(folder):
    (folder / "b.png").write_bytes(b"a")
    with pytest.raises(UserError, match=r"lines 2 and 4: a.png and b.png are the same image in different groups"):
        read_scores(write(folder, "path,mos\na.png,1\nc.png,3\nb.png,2\n"))
    assert len(read_scores(write(folder, "path,mos,group\na.png,1,x\nc.png,3,y\nb.png,2,x\n"))) == 3


def test_files_that_differ_in_one_byte_are_different(folder):
    for name, end in (("a", b"x"), ("b", b"y"), ("c", b"x")):
        (folder / f"{name}.png").write_bytes(b"0" * 100_000 + end)
    assert len(read_scores(write(folder, "path,mos\na.png,1\nb.png,2\n"))) == 2
    with pytest.raises(UserError, match=r"lines 3 and 4: a.png and c.png are the same image in different groups"):
        read_scores(write(folder, "path,mos\nb.png,2\na.png,1\nc.png,3\n"))


def test_biq2021_is_read(shared):
    images = read_scores(shared / "data" / "biq2021" / "scores.csv")
    assert len(images) == 1800 and set(images.subsets) == {"ss01", "ss02", "ss03"} and images.higher_is_better
    assert images.name == "biq2021" and 0 <= images.scores.min() < images.scores.max() <= 1
    assert np.isfinite(images.scores).all() and 5 < len(set(images.groups)) < 1800
