"""Batches of images of many sizes."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.inference.batching import batch_images, plan_batches


@pytest.mark.parametrize("pixels", [1, 1 << 18, 1 << 23])
def test_every_image_is_in_one_batch_and_fits(pixels):
    rng = np.random.default_rng(0)
    sizes = [tuple(size) for size in rng.integers(1, 900, (300, 2)).tolist()] + [(481, 321)] * 70
    batches = plan_batches(sizes, pixels)
    assert sorted(i for batch in batches for i in batch.places) == list(range(len(sizes)))
    for batch in batches:
        assert len(batch.places) <= batch.slots and batch.slots & (batch.slots - 1) == 0
        assert batch.slots == 1 or batch.slots * batch.height * batch.width <= pixels
        for i in batch.places:
            height, width = sizes[i]
            assert height <= batch.height and width <= batch.width
            assert batch.padded or (height, width) == (batch.height, batch.width)
            assert batch.height < max(1.51 * height, height + 128) and batch.width < max(1.51 * width, width + 128)


def test_frequent_sizes_keep_their_shape_and_many_sizes_share_few():
    same = plan_batches([(481, 321)] * 100, 1 << 20)
    assert {(batch.height, batch.width, batch.slots, batch.padded) for batch in same} == {(481, 321, 4, False)}
    rng = np.random.default_rng(1)
    ragged = plan_batches([tuple(size) for size in rng.integers(300, 1200, (500, 2)).tolist()], 1 << 20)
    assert len({(batch.height, batch.width) for batch in ragged}) <= 36


def test_stacking_keeps_each_image_in_its_corner():
    images = [np.full((3, 5, 3), 7, np.uint8), np.full((40, 2, 3), 9, np.uint8)]
    (batch,) = plan_batches([(40, 20)] * 2, 1 << 20)
    stacked, valid = batch_images(images, batch)
    assert stacked.shape == (2, 128, 128, 3) and valid.tolist() == [[3, 5], [40, 2]]
    assert stacked[0, :3, :5].min() == 7 and stacked[0].sum() == 7 * 45 and stacked[1].sum() == 9 * 240
