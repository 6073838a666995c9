"""Splits: groups stay whole, files come back as they were, and what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.evaluation.splits import (
    SIDES,
    Split,
    check_request,
    keep_rows,
    make_splits,
    official_split,
    read_splits,
    write_splits,
)

GROUPS = [f"bild {i // 3} ü" for i in range(60)]


def same(a, b):
    return all(np.array_equal(getattr(a, side), getattr(b, side)) for side in SIDES)


def test_groups_never_straddle_and_the_shares_are_right():
    rng = np.random.default_rng(0)
    groups = [str(group) for group in rng.integers(0, 200, 1000)]
    for split in make_splits(groups, 20, 5):
        sides = [{groups[i] for i in rows} for rows in (split.train, split.validation, split.test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sorted(np.concatenate([split.train, split.validation, split.test])) == list(range(1000))
        shares = [len(rows) / 1000 for rows in (split.train, split.validation, split.test)]
        np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.06)


def test_splits_depend_on_the_seed_and_differ_among_themselves():
    groups = [str(i // 2) for i in range(100)]
    first, again, other = (make_splits(groups, 4, seed) for seed in (0, 0, 1))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first, other, strict=True)) and not same(first[0], first[1])
    assert same(make_splits(groups, 1, 0)[0], first[0])


def test_too_few_groups_or_images_are_refused():
    with pytest.raises(UserError, match=r"^--scores: 4 groups .*; see --group-column"):
        make_splits(["a", "b", "c", "d"] * 30, 3, 0)
    with pytest.raises(UserError, match=r"^--images: 4 groups .*on two sides\)\.$"):
        make_splits(["a", "b", "c", "d"] * 30, 3, 0, "--images")
    with pytest.raises(UserError, match=r"^--images: .*add images"):
        make_splits([str(i) for i in range(12)], 3, 0, "--images")
    split = make_splits(["a", "b", "c", "d", "e"] * 4, 1, 0)[0]
    assert [len(rows) for rows in (split.train, split.validation, split.test)] == [12, 4, 4]


def test_a_file_gives_the_same_splits_again(tmp_path):
    path, splits = tmp_path / "splits.json", make_splits(GROUPS, 4, 7)
    write_splits(path, splits, GROUPS, {"data_set": "MINE", "seed": 7})
    assert all(same(a, b) for a, b in zip(read_splits(path, GROUPS), splits, strict=True))
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert (
        stored["seed"] == 7
        and set(stored["splits"][0]) == set(SIDES)
        and "bild 0 ü" in path.read_text(encoding="utf-8")
    )
    # another order of the images: the names decide
    order = np.random.default_rng(0).permutation(60)
    moved = read_splits(path, [GROUPS[i] for i in order])
    assert {GROUPS[order[i]] for i in moved[2].test} == {GROUPS[i] for i in splits[2].test}
    assert [file.name for file in tmp_path.iterdir()] == ["splits.json"]


def test_a_file_that_does_not_fit_is_one_sentence(tmp_path):
    path = tmp_path / "splits.json"
    write_splits(path, make_splits(GROUPS, 2, 0), GROUPS, {})
    whole = json.loads(path.read_text())
    with pytest.raises(UserError, match="lacks this data set's group 'new'"):
        read_splits(path, [*GROUPS, "new"])
    with pytest.raises(UserError, match="is not in this data set"):
        read_splits(path, GROUPS[:-3])

    def changed(change):
        stored = json.loads(json.dumps(whole))
        change(stored)
        path.write_text(json.dumps(stored))
        return path

    for change, says in [
        (lambda s: s["splits"][1]["test"].append(s["splits"][1]["train"][0]), "split 2 names the group .* twice"),
        (lambda s: s["splits"][0].pop("test"), "not a file of splits"),
        (lambda s: s.update(version=2), "not a file of splits"),
        (lambda s: s.update(splits=[]), "there is no split in it"),
        (lambda s: s.update(splits=7), "not a file of splits"),
        (lambda s: s.update(version=True), "not a file of splits"),
        (lambda s: s.update(seed=[0]), "not a file of splits"),
        (lambda s: s["splits"][0].update(test="abc"), "not a file of splits"),
        (lambda s: s["splits"][0].update(test=[1, 2, 3]), "not a file of splits"),
        (lambda s: s["splits"][0]["test"].append("\x1b[2J"), r"its group '\\x1b\[2J' is not in this"),
        (lambda s: s["splits"][0]["train"].extend(s["splits"][0].pop("test")) or s["splits"][0].update(test=[]), "0 images"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=says):
            read_splits(changed(change), GROUPS)
    for text in ("", "[1]", "{", "\x00", "[" * 100_000, '{"seed": 1, "seed": 1}', '{"seed": NaN}'):
        path.write_text(text)
        with pytest.raises(UserError, match="not a file of splits"):
            read_splits(path, GROUPS)
    with pytest.raises(UserError, match="cannot be read"):
        read_splits(tmp_path / "none.json", GROUPS)


def test_a_split_through_a_group_is_not_written_by_group(tmp_path):
    through = [Split(np.arange(31), np.arange(31, 40), np.arange(40, 60))]
    with pytest.raises(UserError, match="whole on one side"):
        write_splits(tmp_path / "s.json", through, GROUPS, {})
    images = [f"{i}.png" for i in range(60)]
    write_splits(tmp_path / "s.json", through, images, {})
    assert same(read_splits(tmp_path / "s.json", images)[0], through[0])


def test_an_official_split_comes_from_words():
    names = [str(i) for i in range(13)]
    split = official_split(["train"] * 5 + ["test"] * 4 + [""] + ["validation"] * 3, names)
    assert [len(getattr(split, side)) for side in SIDES] == [5, 3, 4] and list(split.test) == [5, 6, 7, 8]
    assert len(official_split(["train"] * 5 + ["test"] * 4, names[:9]).validation) == 0
    with pytest.raises(UserError, match="'val' is no side"):
        official_split(["train"] * 5 + ["val"] * 4, names[:9])
    with pytest.raises(UserError, match="to test on"):
        official_split(["train"] * 5, names[:5])


def test_an_official_split_does_not_train_on_what_it_tests():
    sides = ["train"] * 5 + ["validation"] * 4 + ["test"] * 4
    groups = [*"abcdt", *"efgu", *"tuhh"]
    split = official_split(sides, groups)
    assert [list(getattr(split, side)) for side in SIDES] == [[0, 1, 2, 3], [5, 6, 7], [9, 10, 11, 12]]
    with pytest.raises(UserError, match="2 images to train on"):
        official_split(sides, [*"abttt", *"efgu", *"tuhh"])


def test_a_file_that_contradicts_the_request_is_refused(tmp_path):
    path = tmp_path / "splits.json"
    write_splits(path, make_splits(GROUPS, 3, 2), GROUPS, {"seed": 2})
    for agrees in ((None, None), (3, None), (None, 2), (3, 2)):
        check_request(path, *agrees)
    with pytest.raises(UserError, match=r"--splits=7: .* has 3 splits"):
        check_request(path, 7, None)
    with pytest.raises(UserError, match=r"--seed=5: .* has the splits of seed 2"):
        check_request(path, 3, 5)
    write_splits(path, make_splits(GROUPS, 3, 2), GROUPS, {})  # made by something that had no seed
    check_request(path, 3, 5)


def test_unreadable_images_leave_the_splits_as_they_are():
    splits = make_splits(GROUPS, 2, 0)
    rows = [i for i in range(60) if i not in (0, 17, 59)]
    for old, new in zip(splits, keep_rows(splits, rows, 60), strict=True):
        for side in SIDES:
            assert [rows[i] for i in getattr(new, side)] == [i for i in getattr(old, side) if i in rows]
