"""Reading opinion scores: what is understood, and every mistake in one sentence that names the row."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.iqa_sets.ratings import merged_groups, shared_files
from contrique_jax.errors import UserError
from contrique_jax.evaluation.splits import split_names


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


@pytest.mark.parametrize(
    "text",
    [
        "path;mos\na.png;1,5\nb.png;2\n",
        "sep=;\npath;mos\na.png;1.5\nb.png;2\n",
        "path\tmos\na.png\t1.5\nb.png\t2\n",
        '# lower is better; 0 to 1, "as it is\n\npath,mos\na.png,1.5\nb.png,2\n',
        '"# higher is better; 0 to 1",\npath,mos\na.png,1.5\n,\nb.png,2\n',
        '"path", "mos"\n"a.png", "1.5"\n"b.png",2\n',
        "path,mos,,\r\na.png,15e-1,,\r\n,,,\r\nb.png,+2.,\r\n".replace("2.,", "2.,,"),
        "\ufeffpath,note,note,mos\na.png,x,y,1.5\nb.png,x,y,2,,\n",
    ],
)
def test_other_ways_to_write_a_table(folder, text):
    images = read_scores(write(folder, text))
    assert [path.name for path in images.paths] == ["a.png", "b.png"] and images.scores.tolist() == [1.5, 2]


def test_columns_of_other_names_are_named_by_flags(folder):
    path = write(folder, "image_name,MOS,path\na.png,1,x\nb.png,2,x\n")
    images = read_scores(path, path_column="image_name", score_column="MOS")
    assert [path.name for path in images.paths] == ["a.png", "b.png"] and images.scores.tolist() == [1, 2]
    with pytest.raises(UserError, match="no column 'img' for --path-column"):
        read_scores(path, path_column="img", score_column="MOS")


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
        ("path,mos\na.png,1_0\nb.png,2\n", "line 2: mos is '1_0'; give a number"),
        ('path,mos\na.png,"1,5"\nb.png,2\n', "line 2: mos is '1,5'; write numbers with a point"),
        ("path\tmos\na.png\t1,5\nb.png\t2\n", "line 2: mos is '1,5'; write numbers with a point"),
        ("path;mos\na.png;1,5\nb.png;2.5\n", "line 3: mos is '2.5' and others have a decimal comma"),
        ("path;mos\na.png;1.234,5\nb.png;2\n", "line 2: mos is '1.234,5' and others"),
        ("path,mos,mos\na.png,1,2\nb.png,2,9\n", r"2 columns are called 'mos' \(columns 2 and 3\); rename all but one"),
        ("path,mos,path\na.png,1,b.png\n", "2 columns are called 'path'"),
        ("path,mos,group,group\na.png,1,x,y\n", "2 columns are called 'group'"),
        ("path,score,MOS\na.png,1,2\nb.png,2,9\n", r"several columns of scores \(score, MOS\)"),
        ("image_name,mos\na.png,1\n", "is it 'image_name'[?] say --path-column 'image_name'"),
        ("file,ref,name,mos\na.png,r.png,b,1\n", "say with --path-column which of 'file', 'name' it is"),
        ("path,MOS\na.png,1\n", "is it 'MOS'[?] say --score-column 'MOS'"),
        ("path,mos\na.png,1\nx.png,2\ny.png,2\n", r"line 3: path 'x.png' is no file in .* \(and 1 more\)"),
        ("path,mos\na.png,1\n,2\n", "line 3: path '' is no file"),
        ("path,mos\na.png,1\n.\\b.png,2\n", r"line 3: path '.*b.png' is no file in .*; write / for "),
        ("path,mos\na.png,1\n./a.png,2\n", "lines 2 and 3: a.png is listed twice"),
        ("path,mos\na.png,1,3\n", "line 2: 3 values for 2 columns"),
        ("path,mos,group\na.png,1,\nb.png,2,x\n", "line 2: the column 'group' is empty"),
        ("path,mos\n", "no rows"),
        ("", "columns found: none"),
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


def test_equal_files_are_named_and_share_a_group(folder, capsys):
    for copy in "be":
        (folder / f"{copy}.png").write_bytes(b"a")
    path = write(folder, "path,mos\na.png,1\nc.png,3\nb.png,2\ne.png,4\n")
    images = read_scores(path)
    said = f"note: {path}: the same image: a.png (line 2), b.png (line 4), e.png (line 5)\n"
    assert images.groups == [str(folder / name) for name in ("a.png", "c.png", "a.png", "a.png")]
    assert split_names(images) == ["a.png", "c.png", "a.png", "a.png"] and capsys.readouterr().err == said
    apart = read_scores(path, keep_duplicates_apart=True)
    assert len(set(apart.groups)) == 4 and "may test on an image" in capsys.readouterr().err
    assert len(read_scores(write(folder, "path,mos,group\na.png,1,x\nc.png,3,y\nb.png,2,x\n"))) == 3
    assert capsys.readouterr().err == ""


def test_groups_that_share_files_are_one_with_all_their_images():
    assert merged_groups(list("abcda"), [(0, 1), (2, 3), (1, 2)]) == ["a"] * 5
    assert merged_groups(list("abc"), [(0, 2), (2, 0)]) == ["a", "b", "a"]


def test_files_that_differ_in_one_byte_are_different(folder):
    for name, end in (("a", b"x"), ("b", b"y"), ("c", b"x")):
        (folder / f"{name}.png").write_bytes(b"0" * 100_000 + end)
    assert len(read_scores(write(folder, "path,mos\na.png,1\nb.png,2\n"))) == 2
    assert len(set(read_scores(write(folder, "path,mos\nb.png,2\na.png,1\nc.png,3\n")).groups)) == 2


def test_biq2021_is_read(shared):
    images = read_scores(shared / "data" / "biq2021" / "scores.csv")
    assert len(images) == 1800 and set(images.subsets) == {"ss01", "ss02", "ss03"} and images.higher_is_better
    assert images.name == "biq2021" and 0 <= images.scores.min() < images.scores.max() <= 1
    assert np.isfinite(images.scores).all() and 5 < len(set(images.groups)) < 1800
