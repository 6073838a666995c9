"""A few images are scored by the embedded model without jax, and get what the compiled network gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrique_jax import score
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.data.sizes import read_image
from contrique_jax.errors import run_verb
from contrique_jax.inference import few_images as module
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.few_images import few_images
from contrique_jax.inference.pretrained import choose_meter
from contrique_jax.inference.scores import score_files
from contrique_jax.networks.weights_file import DEFAULT
from tests.planted import read_csv

SIZES = ((96, 128), (75, 131), (1, 1), (2, 90))


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


@pytest.fixture(scope="module")
def compiled():
    """The same network as jax compiles it."""
    return open_extractor(DEFAULT, windows=True)


def test_features_of_images_and_windows_are_the_compiled_networks(images, compiled):
    paths = sorted(images.iterdir())
    few = few_images(DEFAULT, paths, 16.0, None, windows=True)
    assert (few.width, few.model_hash) == (compiled.width, compiled.model_hash)
    for ours, theirs in zip(few.stream(paths), compiled.stream(paths), strict=True):
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


def test_images_are_brought_to_the_size_that_is_asked_for(images, tmp_path):
    """As those that are of that size already."""
    path, megapixels = images / "0.png", 0.005
    for name, image in (("shorter", read_image(path, 16.0, 40)[0]), ("reduced", read_image(path, megapixels)[0])):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        shorter = name == "shorter"
        (ours,) = few_images(DEFAULT, [path], 16.0 if shorter else megapixels, 40 if shorter else None).stream([path])
        (same,) = few_images(DEFAULT, [path], 16.0, None).stream([tmp_path / f"{name}.png"])
        np.testing.assert_array_equal(ours.features, same.features)
        assert ours.reduced == (not shorter) and image.shape != (96, 128, 3)


def test_the_command_gives_the_scores_of_the_compiled_network_and_brings_no_jax(images, compiled, tmp_path):
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
    meter = choose_meter(None, None)
    paths = [Path(row[0]) for row in rows[:-1]]
    expected = score_files(compiled, meter.probe, paths, None, meter.scale, meter.faults)
    for one, (_, given, *_) in zip(expected, rows, strict=False):
        assert float(given) == pytest.approx(one.score, abs=1e-3)
        np.testing.assert_allclose(np.load(tmp_path / f"{one.path.name}.map.npy"), one.map, atol=0.02)
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
    assert [row[1] == "" for row in read_csv(tmp_path / "s.csv")[1:]] == [True, False, False, False, False]
