"""Batches of images of many sizes."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.inference.batching import MOST_SHAPES, MOST_WASTE, Canvases, batch_images


def two_scales(sizes):
    return [size for height, width in sizes for size in ((height, width), (max(height // 2, 1), max(width // 2, 1)))]


@pytest.mark.parametrize("pixels", [1, 1 << 18, 1 << 23])
def test_every_image_is_in_one_batch_and_fits(pixels):
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(1, 900, (300, 2)).tolist()] + [(481, 321)] * 70
    canvases = Canvases()
    for part in (sizes[:100], sizes[100:]):  # one list after another: no more shapes for it
        batches, left = canvases.plan(part, pixels)
        assert sorted([i for batch in batches for i in batch.places] + left) == list(range(len(part)))
        for batch in batches:
            assert len(batch.places) <= batch.slots and batch.slots & (batch.slots - 1) == 0
            assert batch.slots == 1 or batch.slots * batch.height * batch.width <= pixels
            for i in batch.places:
                height, width = part[i]
                assert height <= batch.height and width <= batch.width
                assert batch.padded or (height, width) == (batch.height, batch.width)
    assert len(canvases.slots) <= MOST_SHAPES


def test_a_frequent_size_keeps_its_shape():
    batches, _ = Canvases().plan([(481, 321)] * 100, 1 << 20)
    assert {(batch.height, batch.width, batch.slots, batch.padded) for batch in batches} == {(481, 321, 4, False)}


@pytest.mark.parametrize("least, most", [(150, 400), (300, 1200), (900, 1100)])
def test_a_folder_of_many_sizes_needs_few_shapes_and_wastes_little(least, most):
    sizes = two_scales(map(tuple, np.random.default_rng(1).integers(least, most + 1, (200, 2)).tolist()))
    canvases = Canvases()
    canvases.choose(sizes)
    batches, left = canvases.plan(sizes, 1)
    padded = sum(batch.height * batch.width for batch in batches)
    assert not left and len({(batch.height, batch.width, batch.padded) for batch in batches}) <= MOST_SHAPES
    assert 1 - sum(height * width for height, width in sizes) / padded <= MOST_WASTE + 0.02


def test_what_no_canvas_holds_is_left_or_always_gets_one():
    sizes = [(32 * i, 32 * (MOST_SHAPES + 1 - i)) for i in range(1, MOST_SHAPES + 1)]
    for always in (False, True):
        canvases = Canvases(always)
        for size in sizes:
            canvases.choose([size])
        _, left = canvases.plan([(2000, 2000)], 1)
        assert left == ([] if always else [0])


def test_stacking_keeps_each_image_in_its_corner():
    images = [np.full((3, 5, 3), 7, np.uint8), np.full((40, 2, 3), 9, np.uint8)]
    (batch,), _ = Canvases().plan([(40, 20)] * 2, 1 << 20)
    stacked, valid = batch_images(images, batch)
    assert stacked.shape == (2, 64, 32, 3) and valid.tolist() == [[3, 5], [40, 2]]
    assert stacked[0, :3, :5].min() == 7 and stacked[0].sum() == 7 * 45 and stacked[1].sum() == 9 * 240


def test_fixed_shapes_are_all_there_will_be():
    """So no size that a stranger sends has a program compiled."""
    canvases = Canvases()
    canvases.fix([(32 * i, 64 * i) for i in range(1, 20)])
    before = list(canvases.slots)
    assert len(before) == MOST_SHAPES and not any(canvas.exact for canvas in before)
    sizes = [(20, 30)] * 9 + [(384, 768), (384, 769), (3, 5000)]
    batches, left = canvases.plan(sizes, 1 << 20)
    assert list(canvases.slots) == before and left == [10, 11]
    assert {(batch.height, batch.width) for batch in batches} == {(32, 64), (384, 768)}
