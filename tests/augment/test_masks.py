"""Noise on a student's input: what is left is the image's own, turned; as much is black as was asked for."""

from __future__ import annotations

import functools

import jax
import numpy as np

from contrique_jax.augment.masks import noisy

SIDE = 64
IMAGE = 0.1 + np.random.default_rng(0).random((SIDE, SIDE, 3)).astype(np.float32)
KEYS = np.array([[0, i] for i in range(40)], np.uint32)


def all_of(**settings):
    one = functools.partial(noisy, image=IMAGE, **({"turned": False, "cut": 0.0, "gridded": 0.0} | settings))
    return np.asarray(jax.jit(jax.vmap(one))(KEYS))


def test_without_noise_nothing_changes_and_turns_are_quarters():
    np.testing.assert_array_equal(all_of()[0], IMAGE)
    turns = [np.rot90(IMAGE, k) for k in range(4)]
    found = [[np.array_equal(x, turn) for turn in turns].index(True) for x in all_of(turned=True)]
    assert set(found) == {0, 1, 2, 3}


def test_squares_are_black_and_the_rest_is_as_it_was():
    for settings, shares in (({"cut": 0.25}, {0, 1 / 16}), ({"gridded": 1.0}, None)):
        black = (x := all_of(**settings)) == 0
        np.testing.assert_array_equal(np.where(black, IMAGE, x), np.broadcast_to(IMAGE, x.shape))
        found = set(black.mean((1, 2, 3)).tolist())
        assert found == shares if shares else 0.02 < min(found) <= max(found) < 0.25
