"""The command `distort`: names, bytes, restarts, the manifest, mistakes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from contrique_jax import distort
from contrique_jax.data import distort_folder
from contrique_jax.data.distorted_set import photographs, seed_of
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError, run_verb


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    photo = skimage.data.astronaut()
    return [np.ascontiguousarray(photo[:size:4, 100:484:4]) for size in (256, 256, 288)]  # 64 x 96 and 72 x 96


@pytest.fixture
def folder(images, tmp_path) -> Path:
    """a.png, sub/A.png, sub/b.png and two that are no use."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for image, name in zip(images, ("a.png", "sub/A.png", "sub/b.png"), strict=True):
        Image.fromarray(image).save(place / name)
    (place / "cut.png").write_bytes((place / "a.png").read_bytes()[:500])
    Image.fromarray(images[0][:40]).save(place / "low.png")
    return place


def run(*arguments: object, code: int = 0) -> None:
    assert run_verb(distort_folder.main, list(map(str, arguments))) == code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_set(folder, images, tmp_path, capsys):
    out = tmp_path / "set"
    run(folder, out, "--type", "7,11", "--level", 5, "--level", 1, "--pristine", "--seed", 3, "--workers", 2)
    said = capsys.readouterr()
    assert "cut.png" in said.err and "low.png" in said.err and "2 of 5 photographs broken" in said.out
    rows = manifest(out)
    assert len(rows) == 3 * 5
    shapes = {"a.png": images[0], "sub/A.png": images[1], "sub/b.png": images[2]}
    for row in rows:
        type, level = int(row["type"]), int(row["level"])
        got = np.asarray(Image.open(out / row["path"]))
        image = shapes[row["source"]]
        if not type:
            assert row["class"] == "125" and row["path"].endswith("_00_00.png")
            np.testing.assert_array_equal(got, image)
            continue
        assert int(row["class"]) == distort.class_id(type, level)
        assert row["path"].endswith(f"_{type:02}_{level:02}.png")
        want = distort.apply(image, type, level, seed=seed_of(3, row["source"], type, level))
        np.testing.assert_array_equal(got, want)
    # stems that differ in case only are told apart, the one that is alone stays
    stems = {row["path"][:-10] for row in rows}
    assert len({stem.casefold() for stem in stems}) == 3 and "b" in stems and "a" not in stems
    assert {path.name for path in out.iterdir()} == {row["path"] for row in rows} | {"manifest.csv", "distort.json"}


def test_training_reads_the_manifest(folder, tmp_path):
    out = tmp_path / "set"
    run(folder / "sub", out, "--type", 7, "--pristine")
    source = open_source(str(out / "manifest.csv"), role="pristine", field="config.data.pristine")
    assert len(source) == 12
    assert sorted(source.classes.tolist()) == sorted([125, 30, 31, 32, 33, 34] * 2)
    for i in range(len(source)):
        assert source.load(i).shape[2] == 96


def test_what_is_there_is_kept_and_what_is_missing_comes_out_the_same(folder, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "set"
    flags = ["--type", "11", "--level", "2,4"]
    run(folder / "sub", whole, *flags, "--workers", 1)
    run(folder / "sub", out, *flags, "--workers", 3)
    assert contents(out) == contents(whole)
    (out / "b_11_04.png").unlink()
    (out / "manifest.csv").unlink()
    before = (out / "b_11_02.png").stat().st_mtime_ns
    run(folder / "sub", out, *flags)
    assert contents(out) == contents(whole) and (out / "b_11_02.png").stat().st_mtime_ns == before
    # further types join the set
    run(folder / "sub", out, "--type", 17, "--level", 1)
    assert {row["type"] for row in manifest(out)} == {"11", "17"} and len(manifest(out)) == 6


def test_other_settings_need_another_folder(folder, tmp_path, capsys):
    out = tmp_path / "set"
    run(folder / "a.png", out, "--type", 17, "--level", 1)
    before = contents(out)
    for flags in (["--seed", 1], ["--no-minmax"], ["--size", "64x96"]):
        run(folder / "a.png", out, "--type", 17, "--level", 1, *flags, code=2)
        assert "name another folder" in capsys.readouterr().err
    (out / "distort.json").unlink()
    run(folder / "a.png", out, "--type", 17, "--level", 1, code=2)
    assert "no distort.json says how" in capsys.readouterr().err
    assert before == contents(out) | {"distort.json": before["distort.json"]}


def test_one_size_for_all(folder, tmp_path):
    run(folder, tmp_path / "set", "--type", 17, "--level", 3, "--size", "56x64")
    rows = manifest(tmp_path / "set")
    assert len(rows) == 4  # also the low one
    assert {Image.open(tmp_path / "set" / row["path"]).size for row in rows} == {(64, 56)}


def test_many_sizes_are_pointed_out(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distort_folder, "MANY_SIZES", 2)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.fromarray(images[2][: 50 + number]).save(tmp_path / "photos" / f"{number}.png")
    run(tmp_path / "photos", tmp_path / "set", "--type", 21, "--level", 1)
    assert "3 photographs of 3 sizes" in capsys.readouterr().err


def test_names_depend_on_the_source_alone(folder, images, tmp_path):
    out = tmp_path / "set"
    assert [each.name for each in photographs(str(folder), out)] == [
        "a.png",
        "cut.png",
        "low.png",
        "sub/A.png",
        "sub/b.png",
    ]
    assert [each.name for each in photographs(str(folder / "sub"), out)] == ["A.png", "b.png"]
    assert [each.name for each in photographs(str(folder / "*" / "b.*"), out)] == ["sub/b.png"]
    assert [(each.name, each.stem) for each in photographs(str(folder / "a.png"), out)] == [("a.png", "a")]
    odd = [" edge .png", "line\nbreak.png", "l" * 240 + ".png", "..hidden.png", "b:c.png", os.fsdecode(b"caf\xe9.png")]
    (folder / "odd").mkdir()
    for name in odd:
        Image.fromarray(images[0]).save(folder / "odd" / name)
    found = photographs(str(folder / "odd" / "*"), out) + photographs(str(folder / "odd" / "..hidden.png"), out)
    assert len({each.stem for each in found}) == len(odd)
    for each in found:
        assert each.stem.isprintable() and not each.stem.startswith((" ", ".")) and len(each.stem.encode()) <= 160
    run(folder / "odd", out, "--type", 17, "--level", 1)
    source = open_source(str(out / "manifest.csv"), role="pristine", field="f")
    assert len(source) == len(odd) - 1
    for i in range(len(source)):
        source.load(i)


def test_results_below_the_source_are_not_distorted_again(folder, tmp_path):
    out = folder / "set"
    for _ in range(2):
        run(folder, out, "--type", 17, "--level", 1)
        assert len(manifest(out)) == 3
    with pytest.raises(UserError, match="name another folder"):
        photographs(str(out), out)


def test_mistakes_are_one_sentence(folder, tmp_path, capsys):
    out = tmp_path / "set"
    (tmp_path / "file").write_text("")
    for arguments, says in [
        ([folder, out], "--all, or --type"),
        ([folder, out, "--all", "--type", 1], "--all, or --type"),
        ([folder, out, "--type", "1,26"], "--type 26"),
        ([folder, out, "--type", 1, "--level", 6], "--level 6"),
        ([folder, out, "--type", 1, "--size", "40x512"], "--size 40x512"),
        ([folder, out, "--type", 1, "--size", "512"], "--size 512"),
        ([folder, out, "--type", 1, "--workers", 0], "--workers 0"),
        ([folder / "absent", out, "--type", 1], "absent"),
        ([folder, tmp_path / "file", "--type", 1], "cannot be made"),
    ]:
        run(*arguments, code=2)
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
        assert not out.exists()
    run(folder / "cut.png", out, "--type", 17, code=2)
    assert "none of the 1 images" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_run_again_as_a_process(folder, tmp_path):
    """Ends with what a run in one go has, with nothing half written under its own name."""
    command = [sys.executable, "-m", "contrique_jax.distort", str(folder / "sub")]
    flags = ["--type", "7,13,17,18", "--workers", "1"]
    run(folder / "sub", tmp_path / "whole", *flags)
    killed = subprocess.Popen([*command, str(tmp_path / "set"), *flags])
    deadline = time.monotonic() + 100
    while len(list(tmp_path.glob("set/*.png"))) < 5 and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    subprocess.run([*command, str(tmp_path / "set"), *flags], check=True, capture_output=True, timeout=120)
    got = {name: data for name, data in contents(tmp_path / "set").items() if not name.startswith(".")}
    assert got == contents(tmp_path / "whole")
