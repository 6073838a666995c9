"""The formulations of a depthwise convolution against each other, in value and gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from contrique_jax.networks.convolution import depthwise
from contrique_jax.networks.depthwise import LAX, TAPS
from contrique_jax.networks.lite0 import same_pads


def _operands(size: int, stride: int, height: int, width: int, dtype):
    r = np.random.default_rng(height * 100 + width)
    x = jnp.asarray(r.standard_normal((2, height, width, 6)), dtype)
    kernel = jnp.asarray(r.standard_normal((size, size, 1, 6)), dtype)
    pads = same_pads(height, size, stride), same_pads(width, size, stride)
    g = jnp.asarray(r.standard_normal((2, -(-height // stride), -(-width // stride), 6)), dtype)
    return x, kernel, g, pads


@pytest.mark.parametrize(
    ("height", "width", "dtype", "size", "stride"),
    [
        *((*small, jnp.float32, size, stride) for small in ((7, 10), (1, 2)) for size in (3, 5) for stride in (1, 2)),
        (9, 13, jnp.bfloat16, 3, 1),
        (9, 13, jnp.bfloat16, 5, 2),
    ],
)
def test_formulations_are_equal_in_value_and_gradients(height: int, width: int, dtype, size: int, stride: int):
    x, kernel, g, pads = _operands(size, stride, height, width, dtype)
    exact = [part.astype(jnp.float32) for part in (x, kernel, g)]

    def both(formulation, x, kernel, g):
        return formulation.value(x, kernel, stride, pads), *formulation.gradients(x, kernel, g, stride, pads)

    wanted = jax.jit(functools.partial(both, LAX))(*exact)
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2  # one rounding to bfloat16 is 2^-9
    found = jax.jit(functools.partial(both, TAPS))(x, kernel, g)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == dtype and ours.shape == theirs.shape
        scale = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, rtol=tolerance, atol=tolerance * scale)


def test_pads_of_any_kind():
    """Not only SAME: nothing around the map on one side, and more on another."""
    (x, kernel, _, _), pads = _operands(5, 2, 11, 14, jnp.float32), ((2, 0), (1, 4))
    y, pull = jax.vjp(lambda x, k: depthwise(x, k, 2, pads), x, kernel)
    wanted = LAX.value(x, kernel, 2, pads), *LAX.gradients(x, kernel, y, 2, pads)
    for ours, theirs in zip((y, *pull(y)), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_split_over_devices_its_gradients_are_the_sum():
    x, kernel, g, pads = _operands(3, 2, 8, 12, jnp.float32)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))

    def gradients(x, kernel, g):
        own = jax.lax.pcast(kernel, "data", to="varying")
        dx, dk = jax.vjp(lambda x, k: depthwise(x, k, 2, pads), x, own)[1](g)
        return dx, jax.lax.psum(dk, "data")

    split = jax.shard_map(gradients, mesh=mesh, in_specs=(P("data"), P(), P("data")), out_specs=(P("data"), P()))
    for ours, theirs in zip(jax.jit(split)(x, kernel, g), LAX.gradients(x, kernel, g, 2, pads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_each_platform_gets_its_own():
    def gradients(x, kernel):
        return jax.grad(lambda x, k: jnp.sum(depthwise(x, k, 1, ((1, 1), (1, 1))) ** 2), (0, 1))(x, kernel)

    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((2, 16, 16, 5), (3, 3, 1, 5))]
    count = {
        platform: export.export(jax.jit(gradients), platforms=[platform])(*shapes)
        .mlir_module()
        .count("stablehlo.convolution")
        for platform in ("cpu", "cuda", "tpu")
    }
    assert count == {"cpu": 0, "cuda": 3, "tpu": 3}
