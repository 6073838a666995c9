"""The network against the original's numbers, torch's operations and its own promises."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.config import ModelConfig
from contrique_jax.networks import encoder as contrique
from contrique_jax.networks.encoder import encode, feature_width, init_model, project
from contrique_jax.networks.layers import RUNNING, BatchNorm, Statistics, normalised
from contrique_jax.networks.model_folder import to_flat
from contrique_jax.networks.pooling import adaptive_average_pool, normalise
from contrique_jax.networks.resnet import ResNet
from tests.reference_weights import REFERENCE_MODEL, our_name, reference_variables

SMALL = ModelConfig("resnet18", base_width=8, projection_dim=16, compute_dtype="float32")
SMALL_50 = ModelConfig("resnet50", base_width=8, projection_dim=16, compute_dtype="float32")


@functools.cache
def _variables(encoder: str = "resnet18"):
    """Small weights with running statistics that are not 0 and 1."""
    model = SMALL if encoder == "resnet18" else SMALL_50
    variables = init_model(model, 3)
    views = np.random.default_rng(5).random((4, 1, 64, 64, 3), np.float32)
    _, variables["batch_stats"] = jax.jit(functools.partial(project, model))(variables, views)
    return variables


@pytest.fixture(scope="module")
def reference(shared: Path):
    return reference_variables(shared)


def _relative_error(ours, theirs) -> float:
    return float(np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("i", [0, 3])  # the others, padded to one shape: `tests/convert/test_torch.py`
def test_features_and_patches_equal_the_original(shared: Path, reference, i: int):
    wanted = np.load(shared / "reference" / "model_eval.npz")
    image, half = wanted[f"image{i}"][None], wanted[f"half{i}"][None]

    @jax.jit
    def everything(variables, images):
        network = contrique._bind(REFERENCE_MODEL, variables)
        images = images.astype(jnp.float32) / 255
        return network.patch_features(images, RUNNING)[0], network.projections(images, RUNNING)[0]

    features = [jax.jit(functools.partial(encode, REFERENCE_MODEL))(reference, x)[0] for x in (image, half)]
    patches, projections = everything(reference, image)
    assert _relative_error(np.concatenate(features), wanted[f"feature{i}"]) <= 1e-4
    assert _relative_error(patches, wanted[f"patch_feature_full{i}"]) <= 1e-4
    assert _relative_error(projections, wanted[f"patch_projection{i}"]) <= 1e-4


def test_training_forwards_equal_the_original(shared: Path, reference):
    wanted = np.load(shared / "reference" / "train_step.npz")
    views = np.stack([wanted["view_i"], wanted["view_j"]], axis=1)
    z, stats = jax.jit(functools.partial(project, REFERENCE_MODEL))(reference, views)
    assert z.shape == (2, 6, 4, 128) and z.dtype == jnp.float32
    for ours, view in zip(z, ("i", "j"), strict=True):
        assert _relative_error(ours.reshape(24, 128), wanted[f"z_{view}_patch"]) <= 1e-4
    ours = to_flat({"params": {}, "batch_stats": stats})
    # The projector's are left out: the original also moves them with global vectors that enter no loss.
    names = [name.removeprefix("running/") for name in wanted.files if name.startswith("running/encoder")]
    assert names
    for name in names:
        assert _relative_error(ours[our_name(name)], wanted[f"running/{name}"]) <= 1e-4, name


@pytest.mark.parametrize(
    ("encoder", "parameters", "width"),
    [("resnet18", 11_176_512, 512), ("resnet34", 21_284_672, 512), ("resnet50", 23_508_032, 2048)],
)
def test_encoders_have_torchvision_sizes(encoder: str, parameters: int, width: int):
    model = ModelConfig(encoder)
    shapes = jax.eval_shape(lambda: init_model(model, 0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["encoder"])) == parameters
    assert feature_width(model) == width
    assert feature_width(ModelConfig(encoder, base_width=16)) == width // 4


def test_a_seed_names_the_weights_and_the_scale_is_torch_s():
    first, again, other = init_model(SMALL, 7), init_model(SMALL, 7), init_model(SMALL, 8)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), first, again))
    kernels = [v["params"]["encoder"]["layer4"]["1"]["conv2"]["weight"] for v in (first, other)]
    assert not jnp.array_equal(*kernels)
    assert float(jnp.std(kernels[0])) == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    linear = first["params"]["projector"]["3"]["weight"]
    assert float(jnp.max(jnp.abs(linear))) == pytest.approx(1 / np.sqrt(64), rel=0.05)


def test_batch_norm_moves_as_torch_does(torch):
    x = np.random.default_rng(1).normal(3, 2, (3, 5, 4, 6)).astype(np.float32)
    ours, theirs = BatchNorm(6), torch.nn.BatchNorm2d(6)
    for _ in range(2):
        y = ours(jnp.asarray(x), Statistics(1))
        ty = theirs(torch.tensor(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(y, ty.detach().permute(0, 2, 3, 1).numpy(), atol=2e-5)
    np.testing.assert_allclose(ours.running_mean[...], theirs.running_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours.running_var[...], theirs.running_var.numpy(), rtol=1e-5)
    theirs.eval()
    ty = theirs(torch.tensor(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(ours(jnp.asarray(x), RUNNING), ty.detach().permute(0, 2, 3, 1).numpy(), atol=2e-5)


def test_batch_norm_in_bfloat16_is_float64s_of_the_same_values():
    """One pass gives mean and variance there: far from zero too, nothing is lost beyond the rounding of the result."""
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(3, 0.5, (6, 5, 7, 4)), jnp.bfloat16)
    pull = jnp.asarray(generator.normal(size=x.shape), jnp.bfloat16)
    weight, bias = (jnp.asarray(generator.normal(size=4), jnp.float32) for _ in range(2))
    (y, mean, variance), back = jax.vjp(lambda *given: normalised(*given, Statistics(2), 1e-5), x, weight, bias)
    of_x, of_weight, of_bias = back((pull, jnp.zeros_like(mean), jnp.zeros_like(variance)))

    def plain(x, weight, bias):
        views = x.reshape(3, 2, 5, 7, 4)
        centred = views - jnp.mean(views, (0, 2, 3), keepdims=True)
        root = jax.lax.rsqrt(jnp.mean(centred**2, (0, 2, 3), keepdims=True) + 1e-5)
        return (centred * root * weight + bias).reshape(x.shape)

    with jax.enable_x64(True):
        given = [jnp.asarray(np.asarray(part, np.float64)) for part in (x, weight, bias, pull)]
        exact, pulled = jax.vjp(plain, *given[:3])
        exact_pulls = pulled(given[3])
        views = np.asarray(given[0]).reshape(3, 2, 5, 7, 4)
    np.testing.assert_allclose(mean, views.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(variance, views.var((0, 2, 3)), rtol=2e-5)
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(np.asarray(of_x, np.float64), exact_pulls[0], rtol=5e-3, atol=5e-3)
    np.testing.assert_allclose(of_weight, exact_pulls[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(of_bias, exact_pulls[2], rtol=1e-5, atol=1e-5)


def test_batches_in_turn_are_normalised_as_if_each_came_alone():
    x = np.random.default_rng(2).normal(3, 2, (2, 5, 4, 3, 6)).astype(np.float32)
    x[1] *= 3
    apart, together = BatchNorm(6), BatchNorm(6)
    expected = np.stack([apart(jnp.asarray(batch), Statistics(1)) for batch in x])
    y = together(jnp.asarray(x.swapaxes(0, 1).reshape(10, 4, 3, 6)), Statistics(2))
    np.testing.assert_allclose(np.reshape(y, (5, 2, 4, 3, 6)).swapaxes(0, 1), expected, atol=1e-6)
    np.testing.assert_allclose(together.running_mean[...], apart.running_mean[...], rtol=1e-6)
    np.testing.assert_allclose(together.running_var[...], apart.running_var[...], rtol=1e-6)


FEW_SIZES, MORE_SIZES = (
    [(33, 65), (64, 31), (1, 1)],
    [(32, 32), (63, 64), (61, 59), (2, 67), (67, 3), (37, 41), (65, 67)],
)


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (SMALL, FEW_SIZES),
        pytest.param(SMALL, MORE_SIZES, marks=pytest.mark.slow),
        pytest.param(SMALL_50, [(67, 30)], marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing(model: ModelConfig, sizes: list[tuple[int, int]]):
    variables, r = _variables(model.encoder), np.random.default_rng(2)
    batch = r.random((len(sizes), 67, 67, 3), np.float32)  # what lies outside an image is noise, not zero
    features = jax.jit(functools.partial(encode, model))
    padded = features(variables, batch, np.array(sizes, np.int32))
    for i, (height, width) in enumerate(sizes):
        alone = features(variables, batch[i : i + 1, :height, :width])[0]
        np.testing.assert_allclose(padded[i], alone, atol=2e-6, err_msg=f"{height}x{width}")


def test_padding_carries_no_gradient():
    variables = _variables()
    batch, valid = np.full((1, 48, 48, 3), 0.5, np.float32), np.array([[33, 40]], np.int32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(encode(SMALL, variables, x, valid))))(batch)
    assert float(jnp.max(jnp.abs(gradient[0, :33, :40]))) > 0
    assert not gradient[0, 33:].any() and not gradient[0, :, 40:].any()


def test_bytes_and_floats_are_the_same_image():
    variables, r = _variables(), np.random.default_rng(4)
    images = r.integers(0, 256, (2, 40, 33, 3)).astype(np.uint8)
    features = encode(SMALL, variables, images)
    np.testing.assert_allclose(features, encode(SMALL, variables, images.astype(np.float32) / 255), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("size", "patches"), [((8, 8), 2), ((7, 5), 2), ((5, 9), 3), ((1, 1), 2), ((3, 4), 1)])
def test_patches_are_torch_s_adaptive_pool(torch, size: tuple[int, int], patches: int):
    x = np.random.default_rng(0).random((2, *size, 3), np.float32)
    wanted = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(x.transpose(0, 3, 1, 2)), patches)
    ours = adaptive_average_pool(jnp.asarray(x), patches)
    np.testing.assert_allclose(ours, wanted.permute(0, 2, 3, 1).reshape(2, -1, 3).numpy(), atol=1e-6)


def test_normalise_leaves_zero_alone_in_value_and_gradient():
    zero = jnp.zeros((1, 4))
    assert not normalise(zero).any()
    assert jnp.isfinite(jax.grad(lambda x: jnp.sum(normalise(x)))(zero)).all()


@pytest.mark.slow
def test_bfloat16_agrees_and_keeps_float32_parameters():
    half = dataclasses.replace(SMALL, compute_dtype="bfloat16")
    variables = _variables()
    images = np.random.default_rng(6).random((4, 64, 64, 3), np.float32)
    full_features, half_features = (jax.jit(functools.partial(encode, m))(variables, images) for m in (SMALL, half))
    assert half_features.dtype == jnp.float32
    assert float(jnp.min(jnp.sum(full_features * half_features, axis=1))) >= 0.999

    def loss(params):
        z, stats = project(half, {**variables, "params": params}, images.reshape(2, 2, 64, 64, 3))
        return jnp.sum(z * z[::-1]), (z, stats)

    gradients, (z, stats) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert z.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, stats))} == {jnp.dtype(jnp.float32)}
    assert jax.tree.structure(stats) == jax.tree.structure(variables["batch_stats"])


@pytest.mark.slow
def test_gradient_is_the_slope_of_the_loss():
    variables = _variables()
    views = np.random.default_rng(8).random((2, 2, 64, 64, 3), np.float32)
    weights = np.random.default_rng(9).standard_normal((2, 2, 4, 16)).astype(np.float32)

    @jax.jit
    def slope_and_gradient(params):
        loss = lambda params: jnp.sum(project(SMALL, {**variables, "params": params}, views)[0] * weights)  # noqa: E731
        gradient = jax.grad(loss)(params)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradient)))
        up = loss(jax.tree.map(lambda p, g: p + 1e-4 * g / norm, params, gradient))
        down = loss(jax.tree.map(lambda p, g: p - 1e-4 * g / norm, params, gradient))
        return (up - down) / 2e-4, norm

    slope, norm = slope_and_gradient(variables["params"])
    assert float(slope) == pytest.approx(float(norm), rel=0.02)


def test_the_map_is_a_thirty_second_of_the_image():
    network = ResNet("resnet18", 8, dtype=jnp.dtype("float32"))
    shape = jax.eval_shape(lambda x: network(x, RUNNING)[0], jax.ShapeDtypeStruct((1, 75, 100, 3), jnp.float32)).shape
    assert shape == (1, 3, 4, 64)
