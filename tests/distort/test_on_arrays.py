"""`contrique_jax.distort.apply`, what people who import the package call."""

from __future__ import annotations

import functools
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from contrique_jax import distort
from contrique_jax.distort import bank, on_arrays
from contrique_jax.errors import UserError


@pytest.fixture(scope="module")
def source(photo) -> np.ndarray:
    return photo("astronaut", 96, 128)


def test_the_package_shows_the_table_the_ids_and_the_call():
    assert distort.BANK is bank.BANK and distort.class_id(10, 3) == 47
    assert set(distort.__all__) == {"BANK", "apply", "class_id"}


@pytest.mark.parametrize("type", [1, 7, 11, 20])
def test_bytes_are_those_of_training(run, source, type):
    for level, seed in ((2, 0), (5, 7)):
        got = distort.apply(source, type, level, seed=seed)
        assert got.dtype == np.uint8 and got.shape == source.shape
        want = run.distort(source, distort.class_id(type, level), seed, types=(1, 7, 11, 20))
        assert np.abs(got.astype(int) - want).max() <= 1 and (got != want).mean() < 0.001


@pytest.mark.parametrize("type, minmax", [(7, True), (7, False), (11, True), (11, False)])
def test_floats_are_the_bytes_before_rounding(source, type, minmax):
    got = distort.apply(source / 255.0, type, 5, seed=3, minmax=minmax)
    assert got.dtype == np.float32 and got.min() >= 0 and got.max() <= 1
    rounded, want = np.floor(255 * got + 0.5), distort.apply(source, type, 5, seed=3, minmax=minmax)
    assert np.abs(rounded - want).max() <= 1 and (rounded != want).mean() < 0.001
    assert len(np.unique(got)) > 256


def test_the_seed_decides(source):
    first = distort.apply(source, 11, 4, seed=2**40 + 1)
    np.testing.assert_array_equal(first, distort.apply(source, 11, 4, seed=2**40 + 1))
    assert (first != distort.apply(source, 11, 4, seed=1)).any()  # all 64 bits count
    np.testing.assert_array_equal(distort.apply(source, 7, 1, seed=1), distort.apply(source, 7, 1, seed=2))


def test_the_argument_may_be_anything_like_an_image_and_stays(source):
    before = source.copy()
    flipped = np.asarray(distort.apply(source[:, ::-1], 7, 2))
    np.testing.assert_array_equal(flipped[:, ::-1], distort.apply(jax.numpy.asarray(source), np.int64(7), 2))
    np.testing.assert_array_equal(source, before)


@pytest.mark.parametrize(
    "image, type, level, says",
    [
        (None, 0, 1, "type 0"),
        (None, 26, 1, "type 26"),
        (None, 3, 6, "type 3, level 6"),
        (None, 3, 0, "type 3, level 0"),
        (None, "ten", 1, "type 'ten'"),
        (None, 3, 1.5, "level 1.5"),
        (
            np.zeros((96, 128), np.uint8),
            20,
            1,
            r"distortion 20 \(non-eccentricity patch\): the image is uint8 \[96, 128\]",
        ),
        (np.zeros((96, 128, 4), np.uint8), 1, 1, r"\[96, 128, 4\], but it takes RGB"),
        (np.zeros((47, 128, 3), np.uint8), 20, 1, "at least 48 x 48"),
        (np.zeros((96, 128, 3), np.int32), 1, 1, "uint8 or floats"),
        (np.full((96, 128, 3), 1.01), 8, 1, r"distortion 8 \(saturation in Lab\): .* from 1.01 to 1.01"),
        (np.full((96, 128, 3), -0.5, np.float32), 1, 1, "from -0.5 to -0.5"),
        (np.full((96, 128, 3), np.inf, np.float32), 1, 1, "from inf to inf"),
        (np.full((96, 128, 3), np.nan), 1, 1, "not a number"),
        ("photo.png", 1, 1, "but it takes RGB"),
    ],
)
def test_mistakes_are_one_sentence(source, image, type, level, says):
    with pytest.raises(UserError, match=says) as raised:
        distort.apply(source if image is None else image, type, level)
    assert "\n" not in str(raised.value)


def test_seeds_out_of_range(source):
    for seed in (-1, 2**64, 0.5):
        with pytest.raises(UserError, match="seed"):
            distort.apply(source, 7, 1, seed=seed)


def test_threads_may_call_it_at_once(photo):
    image = photo("coffee", 50, 57)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: distort.apply(image, 17, 3), range(8)))
    assert all((result == results[0]).all() for result in results)


def test_sizes_unused_for_longest_are_forgotten(photo, monkeypatch):
    monkeypatch.setattr(on_arrays, "_compiled", functools.lru_cache(maxsize=1)(on_arrays._compiled.__wrapped__))
    distort.apply(photo("coffee", 50, 57), 17, 3)
    first = weakref.ref(on_arrays._compiled(17, (50, 57, 3), True, True).__wrapped__)
    distort.apply(photo("coffee", 57, 50), 17, 3)
    gc.collect()
    assert first() is None


def test_the_smallest_image(photo):
    small = photo("chelsea", 48, 48)
    for type in (10, 20, 23):
        assert distort.apply(small, type, 5).shape == (48, 48, 3)
