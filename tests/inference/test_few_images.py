"""A few images are scored by the embedded model without jax, and get what the compiled network gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import contrique_jax
from contrique_jax import score
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.errors import run_verb
from contrique_jax.inference import few_images as module
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.few_images import few_images
from contrique_jax.networks.weights_file import DEFAULT
from tests.planted import read_csv

SIZES = ((96, 128), (75, 131), (1, 1), (2, 300), (33, 64))


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Scenes of odd sizes, and a picture of one colour."""
    folder = tmp_path_factory.mktemp("few")
    scene = np.asarray(pristine_scene(0, 0))
    for i, (height, width) in enumerate(SIZES):
        Image.fromarray(np.resize(scene, (height, width, 3))).save(folder / f"{i}.png")
    Image.new("RGB", (70, 50), (9, 120, 240)).save(folder / "flat.png")
    return folder


def test_features_of_images_and_windows_are_the_compiled_networks(images):
    paths = sorted(images.iterdir())
    few = few_images(DEFAULT, paths, 16.0, None, windows=True)
    extractor = open_extractor(DEFAULT, windows=True)
    assert (few.width, few.model_hash) == (extractor.width, extractor.model_hash)
    for ours, theirs in zip(few.stream(paths), extractor.stream(paths), strict=True):
        assert ours.path == theirs.path and not ours.reduced
        np.testing.assert_allclose(ours.features, theirs.features, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(ours.windows, theirs.windows, rtol=1e-4, atol=3e-3)


def test_strips_change_no_number(images, monkeypatch):
    path = images / "1.png"
    (whole,) = few_images(DEFAULT, [path], 16.0, None).stream([path])
    monkeypatch.setattr("contrique_jax.networks.lite0.STRIP", 1)
    monkeypatch.setattr("contrique_jax.networks.lite0.CHUNK", 1)
    (rows,) = few_images(DEFAULT, [path], 16.0, None).stream([path])
    np.testing.assert_allclose(rows.features, whole.features, rtol=1e-4, atol=5e-5)


def test_images_are_brought_to_the_size_that_is_asked_for(images):
    path = images / "0.png"
    for limits in ({"shorter_side": 40}, {"max_megapixels": 0.07}):
        limits = {"max_megapixels": 16.0, "shorter_side": None} | limits
        (ours,) = few_images(DEFAULT, [path], **limits).stream([path])
        (theirs,) = open_extractor(DEFAULT, **limits).stream([path])
        np.testing.assert_allclose(ours.features, theirs.features, rtol=1e-4, atol=1e-4)
        assert ours.reduced == theirs.reduced


def test_the_command_gives_the_scores_of_the_python_interface_and_brings_no_jax(images, tmp_path):
    (tmp_path / "broken.png").write_bytes((images / "0.png").read_bytes()[:200])
    code = (
        "import sys; from contrique_jax import cli, errors; errors.run_verb(cli.main, sys.argv[1:]); "
        "sys.exit(9 if 'jax' in sys.modules else 0)"
    )
    line = [
        sys.executable,
        "-c",
        code,
        "score",
        images,
        tmp_path / "broken.png",
        "--out",
        tmp_path / "s.csv",
        "--map",
        tmp_path,
    ]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, *rows = read_csv(tmp_path / "s.csv")
    meter = contrique_jax.load()
    for path, given, *_ in rows[:-1]:
        assert float(given) == pytest.approx(meter.score(path), abs=1e-3)
        heat = np.load(tmp_path / f"{Path(path).name}.map.npy")
        np.testing.assert_allclose(heat, meter.map(path), atol=0.02)
    assert rows[-1][1] == "" and "broken.png" in done.stderr


@pytest.mark.parametrize(
    "case", ["many pixels", "many images", "a clip", "another model", "no headers", "no megapixels"]
)
def test_others_go_through_the_compiled_network(case, images, tmp_path, monkeypatch):
    model, paths, megapixels = DEFAULT, [images / "0.png"], 16.0
    if case == "many pixels":
        monkeypatch.setattr(module, "MOST_MEGAPIXELS", 0.012)
    elif case == "many images":
        paths = [images / "2.png"] * (module.MOST_IMAGES + 1)
    elif case == "a clip":
        paths = [tmp_path / "clip.mp4"]
    elif case == "another model":
        model = f"random:{DEFAULT}"
    elif case == "no headers":
        (tmp_path / "text.png").write_text("no image")
        paths = [tmp_path / "text.png"] * 3
    else:
        megapixels = float("nan")
    assert few_images(model, paths, megapixels, None) is None
    assert few_images(DEFAULT, [images / "1.png"], 16.0, None) is not None or case == "many pixels"


def test_memory_that_does_not_suffice_breaks_one_image(images, tmp_path, capsys, monkeypatch):
    few = module.Lite0OnHost.stages

    def stages(self, image):
        if image.shape[:2] == SIZES[0]:
            raise MemoryError
        return few(self, image)

    monkeypatch.setattr(module.Lite0OnHost, "stages", stages)
    assert run_verb(score.main, [str(images), "--out", str(tmp_path / "s.csv")]) == 0
    assert "0.png: there is not enough memory for an image of 128 x 96 pixels" in capsys.readouterr().err
    assert [row[1] == "" for row in read_csv(tmp_path / "s.csv")[1:]] == [True, False, False, False, False, False]
