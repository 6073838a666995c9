"""Quality maps: one pass, a mean that is the image's score, the fault where it is, and files that are whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import contrique_jax
from contrique_jax import score
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.errors import run_verb
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.quality_map import MapFolder
from contrique_jax.networks.host_pooling import WINDOWS
from contrique_jax.networks.pooling import global_statistics, window_means, window_statistics
from contrique_jax.training.load import load_network
from tests.planted import probe_of, read_csv, tiny_model


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene, and the same with a blurred lower right corner, in folders a/ and b/ under one name; a tiny model, a probe."""
    folder = tmp_path_factory.mktemp("maps")
    scene = Image.fromarray(np.asarray(pristine_scene(0, 3))[:256, :320])
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    scene.save(folder / "a" / "scene.png")
    faulty = scene.copy()
    faulty.paste(scene.crop((200, 160, 320, 256)).filter(ImageFilter.GaussianBlur(4)), (200, 160))
    faulty.save(folder / "b" / "scene.png")
    extractor = Extractor(*load_network(str(tiny_model(folder / "model"))))
    probe_of(extractor, np.random.default_rng(0)).save(folder / "p.npz")
    return folder


def test_windows_are_shares_of_the_image_whatever_surrounds_it():
    """By loops over pixels, in an array larger than the image."""
    rng = np.random.default_rng(0)
    maps, valid = rng.normal(size=(2, 32, 48, 3)).astype(np.float32), np.array([[32, 48], [16, 32]], np.int32)
    found = np.asarray(window_means(maps, valid))
    statistics = np.asarray(window_statistics([(maps, valid)]))
    for n, (height, width) in enumerate(valid):
        for i, j in ((0, 0), (12, 12), (4, 8)):
            top, left = i * height // 16, j * width // 16
            part = maps[n, top : top + height // 4, left : left + width // 4].reshape(-1, 3)
            np.testing.assert_allclose(found[n, i, j], part.mean(0), atol=1e-5)
            np.testing.assert_allclose(statistics[n, i, j], [*part.mean(0), *part.std(0)], atol=1e-5)


def test_one_window_over_all_would_be_the_image():
    """A map that is the same everywhere has in every window what it has as a whole."""
    flat = np.full((1, 9, 7, 4), 3.0, np.float32)
    np.testing.assert_allclose(window_means(flat, None)[0], np.full((13, 13, 4), 3.0), atol=1e-5)
    whole = global_statistics([(flat, None)])[0]
    np.testing.assert_allclose(window_statistics([(flat, None)])[0], np.broadcast_to(whole, (13, 13, 8)), atol=1e-5)


def test_the_mean_of_a_map_is_the_score(place):
    meter = contrique_jax.load()
    path = place / "a" / "scene.png"
    found = meter.map(path)
    assert found.shape == (WINDOWS, WINDOWS) and found.dtype == np.float32 and found.std() > 0.1
    assert 0 < found.mean() < 100 and found.mean() == pytest.approx(meter.score([path])[0], abs=1e-3)
    np.testing.assert_allclose(meter.map(np.asarray(Image.open(path))), found, atol=1e-3)


def test_the_blurred_corner_is_the_worst_of_the_map(place):
    found = contrique_jax.load().map(place / "b" / "scene.png")
    worst = np.unravel_index(found.argmin(), found.shape)
    assert worst[0] >= 8 and worst[1] >= 8, "windows that begin in the lower right half"
    assert found.mean() - found.min() > 3


def test_score_writes_a_picture_and_an_array_for_each_image(place, tmp_path):
    line = [str(place / "a"), str(place / "b"), "--model", str(place / "model"), "--probe", str(place / "p.npz")]
    assert run_verb(score.main, [*line, "--out", str(tmp_path / "plain.csv")]) == 0
    assert run_verb(score.main, [*line, "--out", str(tmp_path / "s.csv"), "--map", str(tmp_path / "new" / "maps")]) == 0
    rows, plain = read_csv(tmp_path / "s.csv")[1:], read_csv(tmp_path / "plain.csv")[1:]
    names = [f"scene.png{count}.map.{kind}" for count in ("", "-2") for kind in ("npy", "png")]
    assert sorted(os.listdir(tmp_path / "new" / "maps")) == sorted(names)
    for row, before, count in zip(rows, plain, ("", "-2"), strict=True):
        scores = np.load(tmp_path / "new" / "maps" / f"scene.png{count}.map.npy")
        assert scores.mean() == pytest.approx(float(row[1]), abs=1e-3)
        assert float(row[1]) == pytest.approx(float(before[1]), rel=1e-4), "a map changes no score"
        assert Image.open(tmp_path / "new" / "maps" / f"scene.png{count}.map.png").size == (320, 256)


def test_maps_have_names_of_their_own_that_do_not_change_when_some_are_there_already(tmp_path):
    """An interrupted command goes on with the images that are left."""
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "c/x.png-2", f"{'n' * 250}.png", f"{'é' * 120}.png")]
    whole, rest = MapFolder(str(tmp_path), paths), MapFolder(str(tmp_path), paths)
    for path in paths[:1]:
        whole.write(path, np.zeros((13, 13)), Image.new("RGB", (1, 1)))
    for path in paths[1:]:
        rest.write(path, np.ones((13, 13)), Image.new("RGB", (1, 1)))
    assert len(list(tmp_path.glob("*.map.npy"))) == len(list(tmp_path.glob("*.map.png"))) == len(paths)
    assert np.load(tmp_path / "x.png.map.npy").max() == 0 and (tmp_path / "x.png-2.map.npy").exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(place, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = [str(place / "a"), "--out", str(tmp_path / "s.csv")]
    for folder in (tmp_path / "file", tmp_path / "file" / "maps", "/proc/maps_of_ours"):
        assert run_verb(score.main, [*line, "--map", str(folder)]) == 2
        assert f"--map: {folder} cannot be written to" in capsys.readouterr().err
    assert (
        run_verb(score.main, [*line, "--map", str(tmp_path / "m"), "--reference", str(place / "a" / "scene.png")]) == 2
    )
    assert "leave --reference or --map out" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["file"]
