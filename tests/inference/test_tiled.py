"""Images in tiles, and what happens where memory does not suffice."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from contrique_jax.config import ModelConfig
from contrique_jax.data.sizes import limited_size
from contrique_jax.errors import UserError
from contrique_jax.inference import runner
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.tiled import map_bytes
from contrique_jax.training.load import random_weights
from tests.planted import TINY

SIZES = [(301, 134)]  # more than one tile down and across, odd and even at different depths
LITE = ModelConfig(encoder="efficientnet_lite0", features="stages", projection_dim=0, input_scaling="centred")
BOTTLENECKS = dataclasses.replace(TINY, encoder="resnet50", features="stages")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(TINY, id="basic blocks"),
        pytest.param(BOTTLENECKS, id="bottlenecks", marks=pytest.mark.slow),
        pytest.param(LITE, id="lite", marks=pytest.mark.slow),
    ],
)
def test_tiles_change_no_number(model, monkeypatch):
    rng, weights = np.random.default_rng(0), random_weights(model)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    whole = Extractor(model, weights, windows=True)
    wanted = [whole.with_windows(image) for image in images]
    monkeypatch.setitem(runner.TILED_FROM, "cpu", 0)
    monkeypatch.setitem(runner.TILED_FROM, "other", 0)
    tiled = Extractor(model, weights, windows=True)
    for image, (features, windows) in zip(images, wanted, strict=True):
        found, parts = tiled.with_windows(image)
        np.testing.assert_allclose(found, features, atol=2e-6 * np.abs(features).max())
        np.testing.assert_allclose(parts, windows, atol=2e-6 * np.abs(windows).max())


def test_what_maps_take_is_known(monkeypatch):
    """The largest maps of a ResNet-50: the last of its first layer, in whose place the next is made."""
    model = ModelConfig(encoder="resnet50")
    assert map_bytes(model, random_weights(model), 3000, 4000) == 750 * 1000 * 256 * 4


def test_an_image_that_memory_cannot_hold_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    extractor = Extractor(TINY, random_weights(TINY))
    for i, size in enumerate([(40, 40), (40, 300), (40, 40)]):
        Image.fromarray(np.full((*size, 3), 50 * i, np.uint8)).save(tmp_path / f"{i}.png")
    whole = extractor._runner._encode

    def fails(variables, images, valid):
        if images.shape[2] > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")
        return whole(variables, images, valid)

    def no_tiles(*arguments):
        raise MemoryError

    monkeypatch.setattr(extractor._runner, "_encode", fails)
    monkeypatch.setattr(extractor._runner, "_run_tile", no_tiles)
    kept, _, broken = extractor.from_files(sorted(tmp_path.iterdir()))
    assert [path.name for path in kept] == ["0.png", "2.png"]
    assert [error.why for error in broken] == ["there is not enough memory for an image of 300 x 40 pixels"]
    with pytest.raises(UserError, match="image 0: there is not enough memory"):
        extractor.features([np.zeros((40, 300, 3), np.uint8)])


def test_a_small_budget_scales_images_down():
    weights = random_weights(TINY)
    assert Extractor(TINY, weights, memory=100).max_megapixels == 16
    assert Extractor(TINY, weights, memory=0.01).max_megapixels < 1
    with pytest.raises(UserError, match="--memory -1"):
        Extractor(TINY, weights, memory=-1)


@pytest.mark.parametrize("size", [(3000, 4000), (1, 8_000_000), (8_000_000, 1), (70, 300_000), (5000, 5000), (1, 1)])
def test_pixels_are_limited_as_the_network_sees_them(size):
    height, width = limited_size(*size, 16)
    assert max(height, 256) * max(width, 256) <= 16e6 * 1.01
    if max(size[0], 256) * max(size[1], 256) <= 16e6:
        assert (height, width) == size
    elif min(height, width) > 1:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.05)
