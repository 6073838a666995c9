"""Photographs and compiled distortions for the tests of the bank."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
import skimage.transform

from contrique_jax.distort import bank


@functools.cache
def photograph(name: str, height: int, width: int) -> np.ndarray:
    """One of scikit-image's photographs, uint8 [height, width, 3]."""
    image = skimage.transform.resize(getattr(skimage.data, name)(), (height, width), anti_aliasing=True)
    return np.floor(255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)


@functools.cache
def _compiled(type: int) -> Callable[..., jax.Array]:
    return jax.jit(bank.get(type).apply)


@functools.cache
def _whole_bank() -> Callable[..., jax.Array]:
    return jax.jit(bank.distort, static_argnames=("types", "minmax"))


class Bank:
    """What the tests call: one type on floats, and the bank on bytes, each compiled once a size."""

    def __call__(self, type: int, level: int, image: np.ndarray, seed: int = 0) -> np.ndarray:
        return np.asarray(_compiled(type)(jax.random.key(seed), jnp.asarray(image, jnp.float32), np.int32(level)))

    def distort(self, image: np.ndarray, class_id: int, seed: int = 0, **options: object) -> np.ndarray:
        key_data = np.asarray(jax.random.key_data(jax.random.key(seed)))
        return np.asarray(_whole_bank()(key_data, image, np.int32(class_id), **options))


@pytest.fixture(scope="session")
def run() -> Bank:
    return Bank()


@pytest.fixture(scope="session")
def photo() -> Callable[[str, int, int], np.ndarray]:
    return photograph


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """A photograph as float64 in [0, 1], of a size that nothing divides."""
    return photograph("coffee", 75, 93) / 255.0
