"""Strips: the numbers of whole maps, less memory, and a gradient."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from contrique_jax.config import ModelConfig
from contrique_jax.networks import strips
from contrique_jax.networks.encoder import encode, init_model

STAGES = ModelConfig("efficientnet_lite0", projection_dim=0, compute_dtype="float32", features="stages")
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="strips are a CPU's")


@pytest.fixture(scope="module")
def variables():
    return init_model(STAGES, 0)


def compiled(variables, images, valid, elements, monkeypatch):
    monkeypatch.setattr(strips, "ELEMENTS", elements)
    return jax.jit(lambda images, valid: encode(STAGES, variables, images, valid)).lower(images, valid).compile()


@pytest.mark.parametrize(
    "valid",
    [
        pytest.param(None, id="whole", marks=pytest.mark.slow),
        pytest.param([[97, 131]], id="odd", marks=pytest.mark.slow),
        pytest.param([[64, 130]], id="even"),
    ],
)
def test_strips_change_no_number_and_need_less_memory(variables, valid, monkeypatch):
    images = np.random.default_rng(0).uniform(size=(1, 97, 131, 3)).astype(np.float32)
    sizes = None if valid is None else np.array(valid, np.int32)
    whole = compiled(variables, images, sizes, 1 << 40, monkeypatch)
    split = compiled(variables, images, sizes, 40_000, monkeypatch)
    wanted = np.asarray(whole(images, sizes))
    np.testing.assert_allclose(split(images, sizes), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert split.memory_analysis().temp_size_in_bytes < 0.7 * whole.memory_analysis().temp_size_in_bytes


def test_a_layer_of_several_parts_gets_the_rows_it_needs(monkeypatch):
    """Sums of three rows of one map, and every second row of another."""
    monkeypatch.setattr(strips, "ELEMENTS", 30)
    one, two = np.arange(9.0).reshape(1, 9, 1, 1), np.arange(14.0).reshape(1, 14, 1, 1)
    layer = lambda a, b: a[:, :-2] + a[:, 1:-1] + a[:, 2:] + b[:, ::2]  # noqa: E731
    made = strips.by_strips(layer, [strips.Part(one, 1, 3), strips.Part(two, 2, 2)], 7, 10)
    np.testing.assert_array_equal(np.ravel(made), [3 * (i + 1) + 2 * i for i in range(7)])
