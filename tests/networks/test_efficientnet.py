"""EfficientNet-Lite0: padding, padded batches, initialisation, features of all stages; and one step of training."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict
from jax import lax

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.losses.nt_xent import dense_nt_xent
from contrique_jax.networks.encoder import (
    Contrique,
    Variables,
    decays,
    encode,
    feature_width,
    init_model,
    project,
    scaled,
)
from contrique_jax.networks.layers import BatchNorm
from contrique_jax.networks.lite0 import STAGE_WIDTHS, same_pads
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.networks.pooling import adaptive_statistics, global_statistics

LITE = ModelConfig("efficientnet_lite0", projection_dim=8, compute_dtype="float32", input_scaling="centred")
STAGES = dataclasses.replace(LITE, features="stages")


@pytest.fixture(scope="module")
def variables() -> Variables:
    """Random weights, with running statistics that leave something of a map."""
    drawn, rng = init_model(LITE, 0), np.random.default_rng(1)
    move = lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)  # noqa: E731
    return drawn | {"batch_stats": jax.tree.map(move, drawn["batch_stats"])}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_pads_are_same(size: int, stride: int):
    for side in range(1, 20):
        assert [same_pads(side, size, stride)] == lax.padtype_to_pads((side,), (size,), (stride,), "SAME")


@pytest.mark.slow
@pytest.mark.parametrize("model", [LITE, STAGES], ids=["pooled", "stages"])
def test_padded_images_of_mixed_sizes_equal_each_alone(model: ModelConfig, variables: Variables):
    sizes = [(64, 64), (63, 50), (41, 97), (70, 33), (1, 5)]
    images = np.random.default_rng(2).uniform(size=(len(sizes), 80, 100, 3)).astype(np.float32)
    described = jax.jit(lambda images, valid=None: encode(model, variables, images, valid))
    together = described(images, np.array(sizes))
    for i, (height, width) in enumerate(sizes[:3]):
        alone = described(images[i : i + 1, :height, :width])[0]
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(alone))))
    assert together.shape == (len(sizes), feature_width(model)) and np.isfinite(together).all()


def test_centred_bytes_are_less_127_over_128(variables: Variables):
    image = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    shifted = (image.astype(np.float32) - 127) / 128
    plain = dataclasses.replace(LITE, input_scaling="unit")
    wanted = scaled(plain, shifted)
    np.testing.assert_allclose(scaled(LITE, image), wanted, atol=1e-6)
    np.testing.assert_allclose(scaled(LITE, image.astype(np.float32) / 255), wanted, atol=1e-6)
    assert len({content_hash(model, variables) for model in (LITE, plain, STAGES)}) == 3


def test_widths():
    assert feature_width(LITE) == 1280 and feature_width(STAGES) == 2 * sum(STAGE_WIDTHS) == 1568
    assert feature_width(ModelConfig("resnet50", features="stages")) == 2 * (256 + 512 + 1024 + 2048)
    with pytest.raises(UserError, match=r"model\.base_width"):
        dataclasses.replace(LITE, base_width=32).validate()
    with pytest.raises(UserError, match=r"model\.features"):
        dataclasses.replace(LITE, features="all").validate()


def test_kernels_are_drawn_by_their_own_fan_out():
    params = init_model(LITE, 0)["params"]["encoder"]["blocks"]["5"]["1"]
    assert params["conv_dw"]["weight"].shape == (5, 5, 1, 1152)
    assert np.std(params["conv_dw"]["weight"]) == pytest.approx(np.sqrt(2 / 25), rel=0.02)
    assert np.std(params["conv_pwl"]["weight"]) == pytest.approx(np.sqrt(2 / 192), rel=0.02)


@pytest.mark.parametrize("model", [LITE, ModelConfig("resnet18", base_width=4), ModelConfig("resnet50", base_width=4)])
def test_weight_decay_spares_the_batchnorms_of_the_graph(model: ModelConfig):
    network = nnx.eval_shape(lambda: Contrique(model))
    norms = {tuple(map(str, path)) for path, part in nnx.iter_modules(network) if isinstance(part, BatchNorm)}
    assert {path[:-1] for path, touched in flatten_dict(decays(model)).items() if not touched} == norms


def _by_numpy(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x.mean((0, 1)), np.sqrt(x.var((0, 1)) + 1e-6)])


def test_statistics_equal_numpy_inside_the_image_and_by_cells():
    rng = np.random.default_rng(4)
    maps = [
        rng.standard_normal((2, 8, 12, 3)).astype(np.float32) + 5,
        rng.standard_normal((2, 4, 6, 5)).astype(np.float32),
    ]
    valid = [np.array([(8, 12), (5, 7)]), np.array([(4, 6), (3, 4)])]
    found = global_statistics(list(zip(map(jnp.asarray, maps), map(jnp.asarray, valid), strict=True)))
    for i in range(2):
        inside = [x[i, : size[i][0], : size[i][1]].astype(np.float64) for x, size in zip(maps, valid, strict=True)]
        np.testing.assert_allclose(found[i], np.concatenate([_by_numpy(x) for x in inside]), rtol=1e-5, atol=1e-6)

    cells = adaptive_statistics([jnp.asarray(x) for x in maps], 2)
    for p, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        parts = [
            _by_numpy(x[0, row * h : (row + 1) * h, column * w : (column + 1) * w])
            for x, (h, w) in zip(maps, [(4, 6), (2, 3)], strict=True)
        ]
        wanted = np.concatenate([part / np.linalg.norm(part) for part in parts]) / np.sqrt(2)
        np.testing.assert_allclose(cells[0, p], wanted, rtol=1e-5, atol=1e-6)


def test_a_constant_map_has_a_finite_gradient():
    gradient = jax.grad(lambda x: jnp.sum(adaptive_statistics([x], 1)))(jnp.ones((1, 4, 4, 3)))
    assert np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("features", ["pooled", "stages"])
def test_a_step_of_training_has_finite_gradients(features: str):
    model = dataclasses.replace(LITE, features=features, compute_dtype="bfloat16")
    drawn = init_model(model, 0)
    views = np.random.default_rng(5).integers(0, 256, (4, 2, 64, 64, 3), dtype=np.uint8)

    @jax.jit
    def step(params):
        def loss(params):
            z, stats = project(model, {"params": params, "batch_stats": drawn["batch_stats"]}, views, remat=True)
            assert z.shape == (2, 4, 4, 8)
            return dense_nt_xent(z.reshape(-1, 8), jnp.tile(jnp.repeat(jnp.arange(4), 4), 2), 0.1), stats

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, stats), gradients = step(drawn["params"])
    assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves([gradients, stats]))
    head = float(jnp.max(jnp.abs(gradients["encoder"]["conv_head"]["weight"])))
    assert (head > 0) == (features == "pooled")
    assert float(jnp.max(jnp.abs(gradients["encoder"]["conv_stem"]["weight"]))) > 0
    moved = stats["encoder"]["bn1"]["running_var"] - 1
    assert float(jnp.max(jnp.abs(moved))) > 0
