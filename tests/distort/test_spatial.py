"""Types 20, 21 and 23 against plain loops."""

from __future__ import annotations

import decimal
import math

import jax
import numpy as np
import pytest

from contrique_jax.distort.spatial import block_places, patch_moves


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
