"""The loss: the original's numbers, the dense reference, any number of devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from scipy.special import logsumexp

from contrique_jax.loss import dense_nt_xent, nt_xent, sharded_nt_xent

SYNTHETIC = 126


def original_case(data, case: int) -> tuple[np.ndarray, np.ndarray]:
    """(z [2 x rows, d], classes [2 x rows]) of a stored case; authentic images are classes of their own."""
    z = np.concatenate([data[f"case{case}/z_i"], data[f"case{case}/z_j"]])
    synthetic, patches = data[f"case{case}/synthetic_class"], int(data[f"case{case}/patches"])
    images = np.concatenate([synthetic, SYNTHETIC + np.arange(len(synthetic))])
    return z, np.tile(np.repeat(images, patches), 2)


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_original(shared, case, temperature):
    data = np.load(shared / "reference" / "loss.npz")
    z, classes = original_case(data, case)

    def loss(z):
        return nt_xent(z, jnp.asarray(classes), num_classes=SYNTHETIC + len(z), temperature=temperature, block_size=40)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(z))
    stored = np.concatenate([data[f"case{case}/t{temperature}/grad_i"], data[f"case{case}/t{temperature}/grad_j"]])
    np.testing.assert_allclose(value, data[f"case{case}/t{temperature}/loss"], rtol=1e-5)
    assert np.linalg.norm(gradient - stored) <= 1e-4 * np.linalg.norm(stored)


def random_case(images: int, patches: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    half = images // 2
    classes = np.stack([generator.integers(0, 7, half), SYNTHETIC + np.arange(half)], axis=1).reshape(-1)
    return generator.standard_normal((2, images, patches, width)).astype(np.float32), classes.astype(np.int32)


@pytest.mark.parametrize("block_size", [1, 13, 64, 10_000])
def test_blocks_do_not_change_the_value_or_gradient(block_size):
    z, classes = random_case(8, 4, 16)
    rows, labels = z.reshape(-1, 16), np.tile(np.repeat(classes, 4), 2)

    def blockwise(z):
        return nt_xent(z, labels, num_classes=200, temperature=0.1, block_size=block_size)

    dense = jax.value_and_grad(lambda z: dense_nt_xent(z, labels, 0.1))(rows)
    block = jax.value_and_grad(blockwise)(rows)
    np.testing.assert_allclose(block[0], dense[0], rtol=1e-6)
    np.testing.assert_allclose(block[1], dense[1], atol=1e-6)


def test_dense_reference_is_the_textbook_sum():
    z, classes = random_case(4, 1, 5)
    rows, labels = z.reshape(-1, 5).astype(np.float64), np.tile(classes, 2)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    anchors = []
    for i in range(len(unit)):
        others = [k for k in range(len(unit)) if k != i]
        positives = [k for k in others if labels[k] == labels[i]]
        similarity = unit @ unit[i] / 0.1
        anchors.append(logsumexp(similarity[others]) - similarity[positives].mean())
    np.testing.assert_allclose(dense_nt_xent(rows.astype(np.float32), labels, 0.1), np.mean(anchors), rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_any_number_of_devices_gives_the_same_value_and_gradient(devices):
    z, classes = random_case(16, 4, 32)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def sharded(z):
        return sharded_nt_xent(
            z, jnp.asarray(classes), mesh=mesh, axis="data", num_classes=126 + 16, temperature=0.1, block_size=48
        )

    def dense(z):
        return dense_nt_xent(z.reshape(-1, 32), np.tile(np.repeat(classes, 4), 2), 0.1)

    value, gradient = jax.jit(jax.value_and_grad(sharded))(z)
    expected, expected_gradient = jax.value_and_grad(dense)(z)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


def test_a_zero_projection_gives_finite_gradients():
    z = np.zeros((8, 4), np.float32)
    gradient = jax.grad(lambda z: nt_xent(z, np.arange(8) // 2, num_classes=4, temperature=0.1, block_size=8))(z)
    assert np.isfinite(gradient).all()


def test_no_square_array_is_compiled():
    rows, block = 512, 32
    labels = np.arange(rows) // 2
    loss = jax.grad(lambda z: nt_xent(z, labels, num_classes=rows, temperature=0.1, block_size=block))
    text = jax.jit(loss).lower(jax.ShapeDtypeStruct((rows, 16), jnp.float32)).compile().as_text()
    assert f"[{rows},{block}]" in text
    assert f"[{rows},{rows}]" not in text
