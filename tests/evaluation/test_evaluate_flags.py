"""What the flags of `evaluate` ask for reaches every csv, and what cannot be meant is refused in a sentence."""

from __future__ import annotations

import json

import pytest

from contrique_jax import evaluate
from contrique_jax.errors import UserError, run_verb
from contrique_jax.evaluation.flags import parse_flags, read_images, read_others
from contrique_jax.probe import load_probe
from tests.planted import read_csv, tiny_model, write_csv, write_images


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with model/, images/ and other/, both with scores.csv (a column sd beside the planted ones),,
    damage.csv (path, score: low is good) and quality.csv (path, quality)."""
    folder = tmp_path_factory.mktemp("flags")
    tiny_model(folder / "model")
    for name, count, size in (("images", 48, 64), ("other", 24, 48)):
        path = write_images(folder / name, count=count, size=size)
        head, *rows = read_csv(path)
        write_csv(path, [[*head, "sd"], *([*row, "0.01"] for row in rows)])
        write_csv(folder / name / "damage.csv", [["path", "score"], *([r[0], str(5 - float(r[1]))] for r in rows)])
        write_csv(folder / name / "quality.csv", [["path", "quality"], *(r[:2] for r in rows)])
    return folder


def line(place, csv, *more):
    return ["--model", str(place / "model"), "--scores", str(place / "images" / csv), *map(str, more)]


def both(place, csv, *more):
    flags = parse_flags(line(place, csv, *more))
    own = read_images(flags)
    return own, read_others(flags, own)


def run(place, tmp_path, csv, *more):
    out = tmp_path / "r.json"
    arguments = line(
        place, csv, "--no-control", "--splits", 3, "--features-cache", place / "cache", "--out", out, *more
    )
    assert run_verb(evaluate.main, arguments) == 0
    return json.loads(out.read_text())


def test_direction_and_column_hold_for_the_other_csv_too(place, tmp_path):
    plain = run(place, tmp_path, "scores.csv", "--cross", place / "other" / "scores.csv")["cross"][0]["srocc"]
    damage = run(place, tmp_path, "damage.csv", "--lower-is-better", "--cross", place / "other" / "damage.csv")
    named = ("--score-column", "quality", "--cross", place / "other" / "quality.csv")
    quality = run(place, tmp_path, "quality.csv", *named)
    assert plain > 0.6 and damage["cross"][0]["srocc"] == pytest.approx(plain, abs=0.1)
    assert quality["cross"][0]["srocc"] == pytest.approx(plain, abs=0.1)


def test_columns_are_taken_where_the_other_csv_has_them(place):
    own, (other, plain) = both(
        place, "scores.csv", "--group-column", "subset", "--deviation-column", "sd", "--shorter-side", 32,
        "--cross", place / "other" / "scores.csv", place / "other" / "damage.csv",
    )  # fmt: skip
    assert set(own.groups) == {"a", "b"} == set(other.groups) and len(set(plain.groups)) == 24
    assert own.deviations[0] == 0.01 == other.deviations[0] and plain.deviations is None
    assert own.shorter_side == other.shorter_side == plain.shorter_side == 32


def test_an_unclear_direction_is_refused(place):
    with pytest.raises(UserError, match="--lower-is-better: 'score' measures damage, and whether 'mos' of"):
        both(place, "damage.csv", "--lower-is-better", "--cross", place / "other" / "scores.csv")


def test_deviations_and_the_shorter_side_reach_the_numbers_and_the_probe(place, tmp_path):
    plain, probe = run(place, tmp_path, "scores.csv"), tmp_path / "p.npz"
    found = run(place, tmp_path, "scores.csv", "--deviation-column", "sd", "--shorter-side", 16, "--probe", probe)
    assert "opinions" in found["outlier_rule"] and "residuals" in plain["outlier_rule"]
    assert found["spread"]["outlier_ratio"]["median"] > 0.5 > plain["spread"]["outlier_ratio"]["median"]
    assert found["srocc"] != plain["srocc"] and load_probe(probe).shorter_side == 16


def test_images_on_both_sides_are_said(place, capsys):
    head, *rows = read_csv(place / "other" / "scores.csv")
    (place / "other" / "copied.png").write_bytes((place / "images" / "image0_0.png").read_bytes())
    write_csv(place / "other" / "mixed.csv", [head, *rows, ["copied.png", *rows[0][1:]]])
    both(place, "scores.csv", "--cross", place / "other" / "scores.csv")
    assert capsys.readouterr().err == ""
    mixed, own = place / "other" / "mixed.csv", place / "images" / "scores.csv"
    both(place, "scores.csv", "--dataset", "MINE", "--cross", mixed, own)
    assert capsys.readouterr().err.splitlines() == [
        f"warning: --cross {mixed}: 1 of its 25 images is also in MINE; its result is not of unseen images.",
        f"warning: --cross {own}: 48 of its 48 images are also in MINE; its result is not of unseen images.",
    ]


def biq2021(place, folder, twice):
    """A folder as of BIQ2021 in which the first `twice` test images are training images too."""
    (folder / "Images").mkdir(parents=True)
    _, *rows = read_csv(place / "images" / "scores.csv")
    tables = {"Train": [], "Test": []}
    for i, row in enumerate([*rows, *rows[:twice]]):
        name, part = f"ss0{1 + i % 3} ({i}).png", "Train" if i < 36 else "Test"
        (folder / "Images" / name).write_bytes((place / "images" / row[0]).read_bytes())
        tables[part].append([name, str(float(row[1]) / 5), "", ""])
    for part, listed in tables.items():
        write_csv(folder / f"{part} (Images and MOS).csv", [["Image Name", "MOS", "", ""], *listed])
    return ["--model", str(place / "model"), "--dataset", "biq2021", "--images", str(folder), "--no-control"]


def test_an_official_split_leaves_out_of_training_what_it_tests_and_says_so(place, tmp_path, capsys):
    flags = biq2021(place, tmp_path / "biq", 10)
    assert run_verb(evaluate.main, [*flags, "--out", str(tmp_path / "r.json")]) == 0
    found, said = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    where = "the official split (10 images that are also on its test side left out of training)"
    assert found["split_source"] == where and where in said
    assert [(s["train"], s["validation"], s["test"]) for s in found["splits"]] == [(26, 0, 22)]
    assert "BIQ2021: 58 of 12,000 images, 48 groups" in said and (found["images"], found["full_size"]) == (58, 12000)


def test_flags_for_a_csv_stand_beside_a_named_set_where_a_csv_is_crossed(place, tmp_path, capsys):
    folder = biq2021(place, tmp_path / "biq", 0)
    with pytest.raises(UserError, match="--shorter-side: it is for a csv"):
        parse_flags([*folder, "--shorter-side", "32", "--cross", "clive=there"])
    crossed = ["--cross", str(place / "other" / "quality.csv"), "--score-column", "quality", "--lower-is-better"]
    flags = parse_flags([*folder, *crossed])
    own = read_images(flags)
    (other,) = read_others(flags, own)
    assert own.higher_is_better and not other.higher_is_better and other.score_column == "quality"
    assert run_verb(evaluate.main, [*folder, "--splits", "2", "--seed", "1", "--reference-column", "x", *crossed]) == 2
    assert "no pristine images" in capsys.readouterr().err


def test_few_groups_of_a_named_set_are_told_by_its_flag(place, tmp_path, capsys):
    flags = biq2021(place, tmp_path / "biq", 0)
    for part in ("Train", "Test"):
        table = tmp_path / "biq" / f"{part} (Images and MOS).csv"
        write_csv(table, read_csv(table)[:3])
    assert run_verb(evaluate.main, [*flags, "--splits", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: --images: 4 groups cannot be split")


def test_a_number_or_seed_that_the_file_of_splits_contradicts_is_refused(place, tmp_path, capsys):
    kept = ("--splits-file", tmp_path / "s.json")
    assert run(place, tmp_path, "scores.csv", *kept, "--seed", 2)["split_source"].startswith("3 random splits")
    capsys.readouterr()
    for more, says in [(("--splits", 7), "--splits=7: "), (("--seed", 0), "--seed=0: ")]:
        assert run_verb(evaluate.main, line(place, "scores.csv", *kept, *more)) == 2
        assert capsys.readouterr().err.startswith(f"error: {says}{tmp_path / 's.json'} has ")
    assert parse_flags(line(place, "scores.csv", *kept, "--splits", 3, "--seed", 2)).seed == 2
    assert parse_flags(line(place, "scores.csv", *kept)).seed == 0


def test_the_images_column_is_named_for_all_csv_files_and_equal_files_are_one_group(place, tmp_path, capsys):
    header, *rows = read_csv(place / "images" / "scores.csv")
    twin = place / "images" / "twin.png"
    twin.write_bytes((place / "images" / rows[0][0]).read_bytes())
    table = place / "images" / "named.csv"
    write_csv(table, [["image_name", "MOS"], *[[row[0], row[header.index("mos")]] for row in rows], ["twin.png", "3"]])
    columns = ["--path-column", "image_name", "--score-column", "MOS"]
    argv = ["--model", "random:resnet18", "--scores", str(table), *columns, "--cross", str(table)]
    images = read_images(flags := parse_flags(argv))
    assert images.groups[-1] == images.groups[0] and f"(line {len(rows) + 2})" in capsys.readouterr().err
    assert len(read_others(flags, images)[0]) == len(images)
    apart = read_images(parse_flags([*argv, "--keep-duplicates-apart"]))
    assert len(set(apart.groups)) == len(set(images.groups)) + 1
    twin.unlink()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--cross", "koniq10k"), "--cross: koniq10k is no file; give a csv, or a public data set as NAME=FOLDER."),
        (("--cross", "AVA=there"), "--cross: there is no data set 'AVA'"),
        (("--shorter-side", "0"), "--shorter-side=0: it is a number of pixels, at least 1."),
        (("--splits", "100000000"), "--splits 100000000: it must be between 1 and 10000."),
        (("--shorter-side", "small"), "argument --shorter-side: invalid int value"),
        (("--deviation-column", "std"), "has no column 'std' for --deviation-column"),
        (("--deviation-column", "path"), "line 2: path is 'image0_0.png'; give a number"),
    ],
)
def test_mistakes_are_one_sentence(place, more, says):
    with pytest.raises(UserError) as caught:
        both(place, "scores.csv", *more)
    assert says in str(caught.value) and "\n" not in str(caught.value)
