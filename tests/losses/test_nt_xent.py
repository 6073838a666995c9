"""The loss: the original's numbers, the dense reference, any number of devices."""

from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.lib.npyio import NpzFile
from scipy.special import logsumexp

from contrique_jax.losses.denominators import log_denominators
from contrique_jax.losses.nt_xent import dense_nt_xent, nt_xent, nt_xent_of_patches
from contrique_jax.training import mesh as runtime
from contrique_jax.training.accumulation import value_and_gradient
from contrique_jax.training.step import init_state, make_step
from tests.reference_weights import REFERENCE_DATA
from tests.tiny_config import get_config

SYNTHETIC = 126


def original_case(data, case: int) -> tuple[np.ndarray, np.ndarray]:
    """(z [2 x rows, d], classes [2 x rows]) of a stored case; authentic images are classes of their own."""
    z = np.concatenate([data[f"case{case}/z_i"], data[f"case{case}/z_j"]])
    synthetic, patches = data[f"case{case}/synthetic_class"], int(data[f"case{case}/patches"])
    images = np.concatenate([synthetic, SYNTHETIC + np.arange(len(synthetic))])
    return z, np.tile(np.repeat(images, patches), 2)


@pytest.mark.parametrize("case", [0, 2])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_original(case, temperature):
    loss_equals(np.load(REFERENCE_DATA / "loss.npz"), case, temperature)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_original_in_a_larger_batch(shared, temperature):
    loss_equals(np.load(shared / "reference" / "loss.npz"), 1, temperature)


def loss_equals(data: NpzFile, case: int, temperature: float) -> None:
    z, classes = original_case(data, case)

    def loss(z):
        return nt_xent(z, jnp.asarray(classes), num_classes=SYNTHETIC + len(z), temperature=temperature, block_size=40)

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(z))
    stored = np.concatenate([data[f"case{case}/t{temperature}/grad_i"], data[f"case{case}/t{temperature}/grad_j"]])
    np.testing.assert_allclose(value, data[f"case{case}/t{temperature}/loss"], rtol=1e-5)
    assert np.linalg.norm(gradient - stored) <= 1e-4 * np.linalg.norm(stored)


@pytest.fixture(scope="module")
def satqa(shared):
    with np.load(shared / "systems" / "reference" / "satqa_parts.npz") as data:
        return {name: data[name] for name in data.files if name.startswith("loss")}


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_without_lone_anchors_it_is_satqas(satqa, case, temperature):
    """Of the original's rows, all distorted ones before their references; some classes have one member."""
    z = np.concatenate([satqa[f"loss{case}/z_i"], satqa[f"loss{case}/z_j"]])
    classes = satqa[f"loss{case}/class"]
    members = np.bincount(classes)
    assert (members == 1).any() and members.max() > 1

    def loss(z):
        return nt_xent(
            z, classes, num_classes=len(members), temperature=temperature, block_size=13, skip_lone=True
        )  # fmt: skip

    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    stored = np.concatenate([satqa[f"loss{case}/t{temperature}/grad_{side}"] for side in "ij"])
    np.testing.assert_allclose(value, satqa[f"loss{case}/t{temperature}/loss"], rtol=1e-5)
    assert np.linalg.norm(gradient - stored) <= 1e-4 * np.linalg.norm(stored)


LONE = np.array(
    [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 3, 9, 10, 11, 12]
)  # of four shares the first and last have no pair inside


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("classes", [LONE, np.arange(16)], ids=["some", "all"])
def test_lone_anchors_are_left_out_on_any_number_of_devices(devices, classes):
    """As the dense sum over those that are left; with none left there is nothing to learn, and no NaN."""
    z = np.random.default_rng(5).standard_normal((16, 6)).astype(np.float32)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    loss = functools.partial(nt_xent, num_classes=16, temperature=0.3, block_size=5, axis="data", skip_lone=True)
    sharded = jax.shard_map(loss, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())
    value, gradient = jax.jit(jax.value_and_grad(sharded))(z, jnp.asarray(classes))
    expected, expected_gradient = jax.value_and_grad(dense_nt_xent)(z, classes, 0.3, skip_lone=True)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    if len(set(classes)) == len(classes):
        assert value == 0 and not np.any(gradient)
        return
    unit = z.astype(np.float64) / np.linalg.norm(z, axis=1, keepdims=True)
    s, same = unit @ unit.T / 0.3, classes[:, None] == classes[None, :]
    off = ~np.eye(16, dtype=bool)
    left = [i for i in range(16) if (same & off)[i].any()]
    by_hand = [logsumexp(s[i][off[i]]) - s[i][(same & off)[i]].mean() for i in left]
    np.testing.assert_allclose(value, np.mean(by_hand), rtol=1e-6)


def test_micro_batches_leave_out_the_same_anchors():
    """Who is alone is known of the whole batch only."""
    rows = {"x": np.random.default_rng(6).standard_normal((16, 5)).astype(np.float32), "classes": jnp.asarray(LONE)}
    params = np.random.default_rng(7).standard_normal((5, 6)).astype(np.float32)
    found = []
    for devices, parts in ((1, 1), (4, 2)):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
        loss = functools.partial(nt_xent, num_classes=16, temperature=0.3, block_size=8, axis="data", skip_lone=True)
        split = jax.shard_map(loss, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())

        def step(params, rows, split=split, mesh=mesh, parts=parts):
            def forward(params, rows, *, axis=None):
                return jnp.matmul(rows["x"], params, precision="highest"), {}

            def objective(z):
                return split(z, rows["classes"]), {}

            value, _, _, gradient = value_and_gradient(
                forward, objective, params, rows, parts, together=1, mesh=mesh, axis="data"
            )
            return value, gradient

        placed = jax.device_put(rows, NamedSharding(mesh, P("data")))
        found.append(jax.device_get(jax.jit(step)(jax.device_put(params, NamedSharding(mesh, P())), placed)))
    for value, gradient in found[1:]:
        np.testing.assert_allclose(value, found[0][0], rtol=1e-6)
        np.testing.assert_allclose(gradient, found[0][1], rtol=1e-4, atol=1e-6)


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


def split_over(mesh, *, images: int, block_size: int):
    """The loss as a training step calls it: rows split over the mesh's devices."""
    loss = functools.partial(
        nt_xent_of_patches,
        axis="data",
        num_classes=126 + images,
        shared_classes=126,
        temperature=0.1,
        block_size=block_size,
    )
    return jax.shard_map(loss, mesh=mesh, in_specs=(P(None, "data"), P("data")), out_specs=P())


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_any_number_of_devices_gives_the_same_value_and_gradient(devices):
    z, classes = random_case(16, 4, 32)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])

    def sharded(z):
        return split_over(mesh, images=16, block_size=48)(z, jnp.asarray(classes))

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


def test_weights_of_the_anchors_reach_the_gradient():
    """Through the denominators alone, with any cotangent, at sizes that blocks do not divide."""
    generator = np.random.default_rng(0)
    z, weights = generator.standard_normal((37, 5)).astype(np.float32), generator.standard_normal(37).astype(np.float32)
    off = ~np.eye(37, dtype=bool)

    def dense(z):
        return jax.nn.logsumexp(jnp.matmul(z, z.T, precision="highest") / 0.7, axis=1, where=off) @ weights

    ours = jax.value_and_grad(lambda z: log_denominators(z, 0.7, 10, None) @ weights)(z)
    theirs = jax.value_and_grad(dense)(z)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.002, 100.0])
def test_extreme_temperatures_stay_finite_and_exact(temperature):
    """At 0.002, exp(similarity) reaches e^500; sums of it that are not taken relative to their largest term fail."""
    z, classes = random_case(8, 4, 16)
    rows, labels = z.reshape(-1, 16), np.tile(np.repeat(classes, 4), 2)
    loss = functools.partial(nt_xent, num_classes=200, temperature=temperature, block_size=13)
    value, gradient = jax.value_and_grad(lambda z: loss(z, labels))(rows)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    similarity, off = unit @ unit.T / temperature, ~np.eye(len(rows), dtype=bool)
    positives = (labels[:, None] == labels) & off
    denominators = logsumexp(np.where(off, similarity, -np.inf), axis=1)
    expected = np.mean(denominators - (similarity * positives).sum(1) / positives.sum(1))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()


def array_sizes(text: str) -> set[int]:
    """Elements of every array that a compiled text names."""
    shapes = re.findall(r"\b(?:pred|[a-z]+\d+)\[([\d,]+)\]", text)
    return {math.prod(map(int, shape.split(","))) for shape in shapes}


def test_the_dense_loss_would_be_seen():
    loss = jax.grad(lambda z: dense_nt_xent(z, np.arange(96) // 2, 0.1))
    assert 96 * 96 in array_sizes(jax.jit(loss).lower(jax.ShapeDtypeStruct((96, 8), jnp.float32)).compile().as_text())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_the_compiled_step_holds_no_array_of_all_pairs(devices):
    """The real training step, with so many images that all pairs (a device's rows x all) outnumber any other array."""
    images, config = 16384, get_config()
    config.data.batch_size = images
    mesh = runtime.start(images, devices=devices)
    state = jax.eval_shape(lambda: init_state(config, 6))
    views = jax.ShapeDtypeStruct((images, 2, 64, 64, 3), jnp.uint8)
    batch = views, jax.ShapeDtypeStruct((images,), jnp.int32)
    text = make_step(config, mesh, 6).lower(state, batch).compile().as_text()
    total = 2 * images * config.model.patches**2
    block, sizes = config.loss.block_size, array_sizes(text)
    assert block * block in sizes and total * config.model.projection_dim in sizes
    assert f"f32[{block},{block}]" in text
    assert max(sizes) < total // devices * total
    assert max(sizes) >= views.size // devices  # those of the network are seen
    # and the loss alone, where nothing is larger than the projections and a tile
    z = jax.ShapeDtypeStruct((2, images, 4, config.model.projection_dim), jnp.float32)
    loss = split_over(mesh.mesh, images=images // 2, block_size=block)
    text = jax.jit(jax.value_and_grad(loss)).lower(z, batch[1]).compile().as_text()
    assert max(array_sizes(text)) <= max(z.size, (126 + images // 2) * z.shape[-1], block * block)
