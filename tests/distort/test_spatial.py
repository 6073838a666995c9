"""Types 19, 20, 21 and 23 against plain loops, and 19 against SciPy."""

from __future__ import annotations

import decimal
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from skimage.metrics import peak_signal_noise_ratio

from contrique_jax.distort import random_numbers
from contrique_jax.distort.spatial import JITTERS, block_places, patch_moves, shifted


def jitter_shifts(seed: int, shape: tuple[int, ...], amount: float) -> list[np.ndarray]:
    """The shifts of the five turns, as the operation draws them."""
    keys = [jax.random.fold_in(jax.random.key(seed), i) for i in range(JITTERS)]
    return [amount * np.asarray(random_numbers.normal(key, (2, *shape[:2])), np.float64) for key in keys]


def by_keys(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution in double precision."""
    height, width = image.shape[:2]
    place = np.indices((height, width)) - shift
    first = np.floor(place).astype(int) - 1
    total = np.zeros_like(image)
    for i in range(4):
        for j in range(4):
            t, s = np.abs(place - first - np.array([i, j])[:, None, None])
            near, far = (lambda t: 1.5 * t**3 - 2.5 * t**2 + 1), (lambda t: -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2)
            weight = np.where(t <= 1, near(t), far(t)) * np.where(s <= 1, near(s), far(s))
            rows, columns = np.clip(first[0] + i, 0, height - 1), np.clip(first[1] + j, 0, width - 1)
            total += weight[..., None] * image[rows, columns]
    return total


resampled = jax.jit(shifted)


def test_no_jitter_is_no_change(image):
    image = image.astype(np.float32)
    np.testing.assert_array_equal(resampled(jnp.asarray(image), jnp.zeros((2, *image.shape[:2]))), image)


@pytest.mark.parametrize("down, across", [(3, -2), (-5, 0), (0, 7), (500, -500)])
def test_whole_shifts_move_the_image_and_repeat_its_border(image, down, across):
    height, width = image.shape[:2]
    shift = np.broadcast_to(np.array([down, across], np.float32)[:, None, None], (2, height, width))
    rows, columns = np.arange(height) - down, np.arange(width) - across
    want = image[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    np.testing.assert_allclose(resampled(jnp.asarray(image, jnp.float32), jnp.asarray(shift)), want, atol=1e-6)


@pytest.mark.parametrize("level, amount", list(enumerate((0.05, 0.1, 0.2, 0.5, 1), 1)))
def test_jitter_is_keys_cubic(run, image, level, amount):
    want, turned = image, jnp.asarray(image, jnp.float32)
    for shift in jitter_shifts(level, image.shape, amount):
        want, turned = by_keys(want, shift), resampled(turned, jnp.asarray(shift, jnp.float32))
    np.testing.assert_allclose(turned, want, atol=1e-4)
    # the far tails of the normal numbers depend on how they are compiled
    apart = np.abs(run(19, level, image, level) - want)
    assert (apart > 1e-4).mean() < 1e-3 and apart.max() < 0.01


def test_resampling_is_near_scipys_splines(photo):
    """One turn at the strongest level; a spline is a little sharper than Keys' cubic."""
    for name in ("astronaut", "coffee", "chelsea"):
        source = photo(name, 384, 512) / 255.0
        shift, *_ = jitter_shifts(0, source.shape, 1.0)
        place = np.indices(source.shape[:2]) - shift
        planes = [scipy.ndimage.map_coordinates(source[..., c], place, order=3, mode="nearest") for c in range(3)]
        got = resampled(jnp.asarray(source, jnp.float32), jnp.asarray(shift, jnp.float32))
        assert peak_signal_noise_ratio(np.stack(planes, -1), np.asarray(got, np.float64), data_range=1) >= 45, name


def test_jitter_draws_normal_shifts_of_its_own_for_each_turn_and_axis():
    shifts = np.stack(jitter_shifts(3, (96, 128), 1.0)).reshape(2 * JITTERS, -1)
    np.testing.assert_allclose(np.cov(shifts), np.eye(2 * JITTERS), atol=0.06)


@pytest.mark.parametrize("level, count", list(enumerate((20, 40, 60, 80, 100), 1)))
def test_patches_are_copied_one_after_another(run, image, level, count):
    image = image.astype(np.float32)
    sources, targets = (np.asarray(part) for part in patch_moves(jax.random.key(level), *image.shape[:2]))
    want = image.copy()
    for (row, column), (to_row, to_column) in zip(sources[:count], targets[:count], strict=True):
        want[to_row : to_row + 16, to_column : to_column + 16] = want[row : row + 16, column : column + 16].copy()
    np.testing.assert_array_equal(run(20, level, image, level), want)
    assert (want != image).any()


def test_patches_come_from_the_whole_inside_and_move_a_little():
    moves = [patch_moves(jax.random.key(seed), 96, 128) for seed in range(60)]
    sources = np.concatenate([np.asarray(source) for source, _ in moves])
    steps = np.concatenate([np.asarray(target - source) for source, target in moves])
    assert sources.min(0).tolist() == [15, 15] and sources.max(0).tolist() == [96 - 48 + 15, 128 - 48 + 15]
    counts = np.unique(steps, return_counts=True)
    assert counts[0].tolist() == list(range(-8, 9))
    middle = counts[1][1:-1].mean()
    assert 0.35 < counts[1][0] / middle < 0.65 and 0.35 < counts[1][-1] / middle < 0.65  # the ends half as likely


def shrunk_and_back(length: int, strength: str) -> list[int]:
    """Which pixel is seen where: nearest neighbour, by the scale down, by the ratio of the lengths up, exactly."""
    with decimal.localcontext(prec=50):
        scale = decimal.Decimal("0.95") - decimal.Decimal(strength) ** decimal.Decimal("0.6")
        small = math.ceil(scale * length)
        down = [math.floor((decimal.Decimal(i) + decimal.Decimal("0.5")) / scale) for i in range(small)]
    return [min(down[(2 * i + 1) * small // (2 * length)], length - 1) for i in range(length)]


@pytest.mark.parametrize("level, strength", list(enumerate(("0.01", "0.05", "0.1", "0.2", "0.5"), 1)))
def test_pixelate(run, image, level, strength):
    image = image.astype(np.float32)
    rows, columns = (shrunk_and_back(length, strength) for length in image.shape[:2])
    np.testing.assert_array_equal(run(21, level, image), image[rows][:, columns])


@pytest.mark.parametrize("level, count", list(enumerate((2, 4, 6, 8, 10), 1)))
def test_colour_blocks_lie_one_over_another(run, image, level, count):
    want = image.astype(np.float32)
    corners, colours = (np.asarray(part) for part in block_places(jax.random.key(level), *image.shape[:2]))
    for (row, column), colour in zip(corners[:count], colours[:count], strict=True):
        want[row : row + 32, column : column + 32] = colour
    np.testing.assert_array_equal(run(23, level, image, level), want)


def test_colour_blocks_reach_everywhere_in_every_colour():
    places = [block_places(jax.random.key(seed), 96, 128) for seed in range(200)]
    corners = np.concatenate([np.asarray(corner) for corner, _ in places])
    colours = np.concatenate([np.asarray(colour) for _, colour in places])
    assert corners.min(0).tolist() == [0, 0] and corners.max(0).tolist() == [96 - 32 - 1, 128 - 32 - 1]
    assert np.abs(colours.mean(0) - 0.5).max() < 0.03 and colours.min() < 0.01 and colours.max() > 0.99
