"""Rotation about the centre."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from contrique_jax.augment.rotation import rotated


def test_quarter_turns_are_numpys_and_the_corners_are_filled():
    image = np.random.default_rng(0).random((9, 9, 3)).astype(np.float32)
    for turns in range(-1, 3):
        found = rotated(jnp.asarray(image), jnp.float32(turns * np.pi / 2), 0.5)
        np.testing.assert_array_equal(found, np.rot90(image, turns))
    found = np.asarray(rotated(jnp.ones((9, 9, 1)), jnp.float32(np.pi / 4), 0.5))[:, :, 0]
    assert found[0, 0] == found[8, 8] == 0.5 and found[4, 4] == found[0, 4] == 1
