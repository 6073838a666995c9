"""Shards without Beam: what paths name, what is written of each shard, and that each is done once."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from contrique_jax import cli
from contrique_jax.errors import BrokenImage, UserError, run_verb
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.scores import score_files
from contrique_jax.networks.model_folder import load_model
from contrique_jax.probe import FULL_REFERENCE, load_probe
from contrique_jax.shards import plan, results, run
from contrique_jax.shards.contents import contents
from contrique_jax.shards.listing import find, split
from contrique_jax.shards.place import Place
from contrique_jax.shards.plan import Counts
from contrique_jax.shards.scoring import Job, Scorer
from tests.planted import probe_of, tiny_model, write_csv, write_images

BROKEN = {"cut.png": "damaged or cut off", "empty.png": "the file is empty", "text.png": "not an image"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of images with three broken ones, a model and its probe."""
    folder = tmp_path_factory.mktemp("bulk")
    write_images(folder / "images", 6)
    whole = (folder / "images" / "sharp0.png").read_bytes()
    for name, data in zip(BROKEN, (whole[: len(whole) // 2], b"", b"no image"), strict=True):
        (folder / "images" / name).write_bytes(data)
    extractor = Extractor(*load_model(tiny_model(folder / "model", 0)))
    probe_of(extractor, np.random.default_rng(0)).save(folder / "probe.npz")
    return folder


@pytest.fixture(scope="module")
def job(place):
    return Job("", str(place / "model"), str(place / "probe.npz"), 16.0, kind="csv", features=True)


@pytest.fixture(scope="module")
def scorer(place, job):
    """One for all tests of this module, which compile its network once."""
    return Scorer(job, 1)


def begun(scorer, out, paths, shard_images=4, **changes):
    """The scorer with another place of results, and how many shards it has."""
    out.mkdir(exist_ok=True)
    scorer = copy.copy(scorer)
    scorer.job = dataclasses.replace(scorer.job, out=str(out), **changes)
    scorer.place = Place(str(out))
    plan.begin(scorer.place, scorer.about())
    return scorer, plan.add(scorer.place, find([str(path) for path in paths], None, shard_images), shard_images)


def all_rows(out, pattern):
    return [row for file in sorted(out.glob(pattern)) for row in csv.DictReader(file.read_text().splitlines())]


def png(value):
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


def test_every_image_stands_in_the_results_once_with_the_score_of_score(place, scorer, tmp_path):
    """And its size, hash, interval and features; broken ones with their reasons; counts add up."""
    mine, count = begun(scorer, tmp_path / "out", [place / "images"])
    total = sum((mine.score(number) for number in range(count)), Counts())
    assert (count, total) == (3, Counts(12, 9, 3)) and plan.done(mine.place).keys() == {0, 1, 2}
    rows, broken = all_rows(tmp_path / "out", "scores-*.csv"), all_rows(tmp_path / "out", "broken-*.csv")
    names = sorted(str(path) for path in (place / "images").glob("*.png"))
    assert sorted(row["path"] for row in (*rows, *broken)) == names
    for row in broken:
        assert BROKEN[row["path"].rpartition("/")[2]] in row["reason"]
    paths = [path for path in sorted((place / "images").glob("*.png")) if path.name not in BROKEN]
    expected = {
        str(score.path): score for score in score_files(mine.extractor, mine.meter.probe, paths)
    }  # of `contrique-jax score`
    for row in rows:
        score = expected[row["path"]]
        assert float(row["score"]) == pytest.approx(score.score, rel=1e-4)
        assert float(row["low"]) <= np.clip(score.score, 1, 5) <= float(row["high"])
        assert (row["width"], row["height"], row["reduced"]) == ("64", "64", "false") and row[
            "model"
        ] == mine.extractor.model_hash
        assert len(row["content"]) == 32 and int(row["bytes"]) > 1000
    with np.load(tmp_path / "out" / "features-00001.npz") as stored:
        assert stored["features"].shape == (len(stored["path"]), mine.extractor.width)


def test_new_images_become_further_shards_and_old_ones_stay(place, scorer, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images")
    mine, count = begun(scorer, tmp_path / "out", [tmp_path / "images"])
    before = [plan.read_part(mine.place, number) for number in range(count)]
    (tmp_path / "images" / "a_new.png").write_bytes(png(7))
    (tmp_path / "images" / "cut.png").unlink()
    again, more = begun(scorer, tmp_path / "out", [tmp_path / "images"])
    assert more == count + 1 and [plan.read_part(again.place, number) for number in range(count)] == before
    assert plan.read_part(again.place, count)["files"] == [str(tmp_path / "images" / "a_new.png")]


def test_stored_features_take_a_new_probe_without_the_network(place, scorer, tmp_path):
    mine, count = begun(scorer, tmp_path / "first", [place / "images"], 100)
    assert mine.score(0) == Counts(12, 9, 3) and count == 1
    probe = probe_of(mine.extractor, np.random.default_rng(1))
    probe.save(tmp_path / "new.npz")
    (tmp_path / "second").mkdir()
    known = Scorer(
        Job(str(tmp_path / "second"), mine.job.model, str(tmp_path / "new.npz"), 16.0, kind="csv",
            known=str(tmp_path / "first"))
    )  # fmt: skip
    assert not isinstance(known.extractor, Extractor)
    assert known.score(0) == Counts(12, 9, 3)
    first, second = (all_rows(tmp_path / name, "scores-*.csv") for name in ("first", "second"))
    with np.load(tmp_path / "first" / "features-00000.npz") as stored:
        expected = probe.predict(stored["features"])
    np.testing.assert_allclose([float(row["score"]) for row in second], expected, rtol=1e-5)
    for name in ("path", *results.SIDE):
        assert [row[name] for row in first] == [row[name] for row in second]
    assert all_rows(tmp_path / "first", "broken-*.csv") == all_rows(tmp_path / "second", "broken-*.csv")


def test_a_parquet_table_says_what_its_columns_are(tmp_path):
    pa = pytest.importorskip("pyarrow.parquet")
    row = results.Row("a\udcff.png", 1.0, None, None, None, None, "none", 0.0, 0.5, 4, 3, True, 99, "ab", "m")
    found = results.Results([row], [("b", "why")], [np.ones(3, np.float32)])
    results.write(Place(str(tmp_path)), 7, found, "parquet", {"model": "m"})
    table = pa.read_table(tmp_path / "scores-00007.parquet")
    assert table.schema.metadata[b"model"] == b"m" and table.column_names == list(results.COLUMNS)
    assert table.to_pylist() == [vars(row) | {"path": "a\\xff.png"}]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "broken-00007.csv", "features-00007.npz", "scores-00007.parquet"
    ]  # fmt: skip


def read_all(part):
    """Name -> bytes, or the reason why there are none."""
    found = {}
    for given in contents(part):
        try:
            found[given.name] = given.read()
        except BrokenImage as error:
            found[given.name] = error.why
    return found


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_files_in_webdatasets_layout(tmp_path, mode):
    path = tmp_path / ("shard.tar.gz" if mode == "w:gz" else "shard.tar")
    with tarfile.open(path, mode) as archive:
        for name, data in (("a/1.png", png(1)), ("a/1.json", b"{}"), ("a/2.PNG", png(2)), ("._x.png", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (part,) = find([str(tmp_path / "shard*")], None, 100).archives
    assert read_all(part) == {f"{path}/a/1.png": png(1), f"{path}/a/2.PNG": png(2)}
    whole = path.read_bytes()
    path.write_bytes(whole[: 2600 if mode == "w" else 100])
    cut = read_all(part)
    assert re.search(f"damaged or cut off after {len(cut) - 1} images?", cut[str(path)])
    assert len(cut) == (2 if mode == "w" else 1)
    path.unlink()
    with pytest.raises(UserError, match="it was there and has gone; bring it back"):
        read_all(part)


def test_odd_members_of_a_tar_file_are_all_there(tmp_path):
    """Scored or named, whatever their paths are; of links, devices, other formats and giants it is said."""
    path, kinds = (
        tmp_path / "odd.tar",
        {"hard.png": tarfile.LNKTYPE, "soft.png": tarfile.SYMTYPE, "fifo.png": tarfile.FIFOTYPE},
    )
    with tarfile.open(path, "w") as archive:
        for name in ("./a.png", "/abs/a.png", "../up.png", "x\ny.png", "./a.png", *kinds, "b.cr2", "c.jxl", "d.txt"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kinds.get(name, tarfile.REGTYPE), "a.png"
            info.size = 0 if name in kinds else len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
        info = tarfile.TarInfo("giant.png")
        info.size = 1 << 35  # in a file of some kilobytes
        archive.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
    part = {"tar": str(path)}
    found = {name.removeprefix(f"{path}/"): what for name, what in read_all(part).items()}
    images = ["./a.png", "/abs/a.png", "../up.png", "x\ny.png", "./a.png#2"]
    said = {
        "hard.png": "a link to 'a.png'",
        "soft.png": "a link to",
        "fifo.png": "a device or a pipe",
        "b.cr2": "raw file",
    }
    said |= {
        "c.jxl": "in a format that is not read",
        "giant.png": "too many for one image",
        str(path): "after 11 images",
    }
    assert list(found) == [*images, *said] and [found[name] for name in images] == [png(1)] * 5
    for name, why in said.items():
        assert why in found[name]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:2560], "after 1 image (its end mark is missing)"),
        (lambda data: data[:2560] + b"x" * 512 + data[3072:], "after 1 image (invalid header)"),
        (lambda data: data[:-10240] + bytes(10240), "the tar file holds no images"),
        (lambda data: b"", "after 0 images (empty file)"),
    ],
)
def test_a_tar_file_whose_rest_is_lost_says_so(tmp_path, damage, says):
    """tarfile itself would take the first two for whole ones."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("1.png", "2.png"):
            info = tarfile.TarInfo(name)
            info.size = 2048
            archive.addfile(info, io.BytesIO(png(1) + bytes(2048)))
    path.write_bytes(damage(path.read_bytes()))
    assert says in read_all({"tar": str(path)})[str(path)]


def test_parquet_tables_name_images_or_hold_them(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "1.png").write_bytes(png(1))
    pq.write_table(pa.table({"path": ["1.png", "gs://b/2.png"]}), tmp_path / "names.parquet")
    found = find([str(tmp_path / "names.parquet")], None, 100)
    assert list(found.files) == [str(tmp_path / "1.png"), "gs://b/2.png"] and not found.archives
    cells = [{"bytes": png(i), "path": None} for i in range(5)] + [{"bytes": None, "path": "x"}]
    held = tmp_path / "held.parquet"
    pq.write_table(pa.table({"image": cells, "raw": [png(0)] * 6, "n": range(6)}), held, row_group_size=2)
    parts = find([str(held)], None, 4).archives
    assert [part["rows"] for part in parts] == [4, 2]
    read = read_all(parts[0]) | read_all(parts[1])
    assert read == {f"{held}#{i}": png(i) for i in range(5)} | {f"{held}#5": "the cell holds no bytes"}
    assert read_all(find([str(held)], "raw", 100).archives[0])[f"{held}#5"] == png(0)
    for column, says in (("n", "holds int64; images are bytes"), ("other", "has no column 'other'")):
        with pytest.raises(UserError, match=says):
            find([str(held)], column, 4)
    for changed in ({"image": cells[:2]}, {"other": [b""] * 6}):  # since it was looked at
        pq.write_table(pa.table(changed), held)
        assert (
            list(read_all(parts[1])) == [str(held)]
            and "rows from row group 2 on could be read" in read_all(parts[1])[str(held)]
        )
    twice = pa.Table.from_arrays([pa.array([b""]), pa.array([b""])], ["image", "image"])
    pq.write_table(twice, held)
    with pytest.raises(UserError, match="2 columns are called 'image'"):
        find([str(held)], None, 4)
    held.unlink()
    with pytest.raises(UserError, match="it was there and has gone"):
        read_all(parts[1])
    held.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"held\.parquet cannot be read as a Parquet table"):
        find([str(held)], None, 4)


def test_lists_and_globs_name_each_image_once(place, tmp_path):
    images = place / "images"
    table = write_csv(tmp_path / "list.csv", [["path"], [str(images / "sharp0.png")], ["gs://b/x.png"], ["gone.png"]])
    found = find([str(table), str(images), str(images / "sharp*.png")], None, 4)
    assert len(found.files) == 12 + 2 and len(list(split(found.files.items(), 4))) == 4
    assert list(found.files)[:3] == [str(images / "sharp0.png"), "gs://b/x.png", str(tmp_path / "gone.png")]
    (tmp_path / "list.txt").write_text(f"gs://b/x.png\n{images}/../images/sharp0.png\n")
    found = find([str(table), str(tmp_path / "list.txt")], None, 4)
    assert list(found.files) == [str(images / "sharp0.png"), "gs://b/x.png", str(tmp_path / "gone.png")]


def test_a_glob_of_tar_files_takes_images_and_folders_too_and_nothing_else(place, tmp_path):
    for name in ("a.tar", "README.md", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    shutil.copy(place / "images" / "sharp0.png", tmp_path / "x.png")
    found = find([f"{tmp_path}/*", f"{tmp_path}/../{tmp_path.name}/a.tar"], None, 4)
    assert list(found.files) == [str(tmp_path / "x.png")] and found.archives == [{"tar": str(tmp_path / "a.tar")}]


def test_only_what_we_wrote_is_swept_away(tmp_path):
    ours, others = (
        (".scores-00001.csv.77.part", ".bulk.json.7.part"),
        (".film.mkv.part", ".film.1.part", "a/.00001.json.7.part"),
    )
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with Place(str(tmp_path)).alone():
        assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob(".*")} == set(others)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("-", "a list on stdin is gone"),
        ("{place}/nothing", "matches no image"),
        ("{place}/nothing.tar", "does not exist"),
        ("{place}/nothing*.tar", "matches no file"),
        ("{place}/nothing.csv", "does not exist"),
        ("s3://bucket/x", "only gs://BUCKET/PATH is understood"),
        ("{place}/web.csv", r"web\.csv: https://b/x\.png: of addresses only gs://BUCKET/PATH is understood"),
    ],
)
def test_paths_that_name_nothing_are_one_sentence(place, path, says):
    write_csv(place / "web.csv", [["path"], ["https://b/x.png"]])
    with pytest.raises(UserError, match=says):
        find([path.format(place=place)], None, 4)


def test_a_source_that_vanishes_ends_the_shard_and_one_image_does_not(place, scorer, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images")
    mine, _ = begun(scorer, tmp_path / "out", [tmp_path / "images"], 100)
    (tmp_path / "images" / "sharp0.png").unlink()
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"images: it was there and has gone; bring it back"):
        mine.score(0)
    assert plan.done(mine.place) == {} and not list((tmp_path / "out").glob("*-00000*"))
    (tmp_path / "elsewhere").rename(tmp_path / "images")
    assert mine.score(0) == Counts(12, 8, 4)


def test_a_shard_appears_whole_or_not_at_all(place, scorer, tmp_path, monkeypatch):
    """Its mark comes last, and what was begun is taken away."""
    mine, _ = begun(scorer, tmp_path / "out", [place / "images"], 100)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "_write_csv", full)
    with pytest.raises(UserError, match=r"no space left to write"):
        mine.score(0)
    assert plan.done(mine.place) == {}
    assert [path.name for path in (tmp_path / "out").glob("*00000*")] == ["features-00000.npz"]
    assert not list((tmp_path / "out").rglob(".*"))


def test_an_image_to_be_skipped_is_not_touched_and_others_go_one_by_one(place, scorer, tmp_path):
    mine, _ = begun(scorer, tmp_path / "out", [place / "images"], 100)
    names = plan.read_part(mine.place, 0)["files"]
    said = []
    assert mine.score(0, {names[3]: "it brought the process down"}, said.append) == Counts(12, 8, 4)
    assert said == names
    rows = all_rows(tmp_path / "out", "broken-*.csv")
    assert rows[2] == {"path": names[3], "reason": "it brought the process down"}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("bulk.json", '{"form": 1, "model": "other"}', "it was begun with --features None, this is True"),
        ("done/00000.json", '{"found": 3, "scored": 1, "broken": 1}', "its counts do not add up"),
        ("done/00000.json", '{"found": "12", "scored": "1", "broken": "2"}', "its counts do not add up"),
        ("plan/00000.json", '{"files": 5}', "is no shard's list"),
        ("plan/00002.json", "{}", r"00001\.json is missing"),
        ("plan/00000.json", "{", "cannot be read"),
    ],
)
def test_other_files_in_the_results_place_are_one_sentence(place, scorer, tmp_path, name, text, says):
    mine, _ = begun(scorer, tmp_path / "out", [place / "images"], 100)
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(UserError, match=says):
        plan.begin(mine.place, mine.about())
        plan.done(mine.place)
        plan.add(mine.place, find([str(place / "images")], None, 4), 4)


def test_in_a_bucket_it_is_the_same(gcs, place, scorer, tmp_path, monkeypatch):
    """Listed, read and written there, in a stand-in for Google's server; a bucket that fails ends the shard."""
    for path in (place / "images").glob("*.png"):
        gcs.put("bucket", f"photos/{path.name}", path.read_bytes())
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(place / "images" / "sharp1.png", "1.png")
    gcs.put("bucket", "tars/a.tar", stream.getvalue())
    mine, count = begun(scorer, tmp_path / "unused", [])
    mine.place = Place("gs://bucket/out")
    plan.begin(mine.place, mine.about())
    found = find(["gs://bucket/photos", "gs://bucket/tars/*.tar"], None, 4)
    count = plan.add(mine.place, found, 100)
    del gcs.buckets["bucket"]["photos/sharp0.png"]
    assert [mine.score(number) for number in range(count)] == [Counts(12, 8, 4), Counts(1, 1, 0)]
    assert plan.add(mine.place, found, 100) == 2 and list(plan.done(mine.place)) == [0, 1]
    text = gcs.get("bucket", "out/broken-00000.csv").decode()
    assert "gs://bucket/photos/sharp0.png,the file does not exist" in text
    rows = list(csv.DictReader(io.StringIO(gcs.get("bucket", "out/scores-00001.csv").decode())))
    assert [row["path"] for row in rows] == ["gs://bucket/tars/a.tar/1.png"]
    assert json.loads(gcs.get("bucket", "out/done/00001.json")) == {"found": 1, "scored": 1, "broken": 0}
    plan.write_part(mine.place, 2, {"files": ["gs://secret/1.png"], "roots": []})
    with pytest.raises(UserError, match=r"gs://secret/1\.png"):
        mine.score(2)


def test_a_probe_that_needs_a_reference_is_refused(place, job, tmp_path):
    dataclasses.replace(load_probe(str(job.probe)), feature_name=FULL_REFERENCE).save(tmp_path / "pairs.npz")
    with pytest.raises(UserError, match="score --reference"):
        Scorer(dataclasses.replace(job, probe=str(tmp_path / "pairs.npz")))


def test_without_beam_it_is_one_sentence(place, capsys, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    assert run_verb(cli.main, ["bulk", str(place / "images"), "--out", str(place / "out")]) == 2
    assert "pip install 'contrique-jax[beam]'" in capsys.readouterr().err and not (place / "out").exists()
