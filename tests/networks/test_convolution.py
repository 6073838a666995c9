"""The platform's formulations against torch and against XLA's own, in value and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from contrique_jax.networks.convolution import convolve, max_pool

CASES = [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)]


def _operands(size: int, height: int, width: int, channels: int = 5) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(height * 100 + width)
    x = r.standard_normal((2, height, width, channels), np.float32)
    return x, r.standard_normal((size, size, channels, 6), np.float32)


@pytest.mark.parametrize(("size", "stride"), CASES)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 12), (1, 7)])
def test_convolution_equals_torch_in_value_and_gradient(torch, size: int, stride: int, height: int, width: int):
    x, kernel = _operands(size, height, width)
    padding = (size - 1) // 2
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    tk = torch.tensor(kernel.transpose(3, 2, 0, 1), requires_grad=True)
    ty = torch.nn.functional.conv2d(tx, tk, stride=stride, padding=padding)
    g = np.random.default_rng(0).standard_normal(ty.shape).astype(np.float32)
    ty.backward(torch.tensor(g))

    y, pull = jax.vjp(jax.jit(lambda x, k: convolve(x, k, stride, padding)), x, kernel)
    dx, dk = pull(jnp.asarray(g.transpose(0, 2, 3, 1)))
    for ours, theirs in ((y, ty.detach().permute(0, 2, 3, 1)), (dx, tx.grad.permute(0, 2, 3, 1))):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dk, tk.grad.permute(2, 3, 1, 0).numpy(), rtol=1e-4, atol=1e-4)


# the stem's kernel sees three channels only
@pytest.mark.parametrize(
    ("size", "stride", "channels"), [*((*case, 3) for case in CASES), *((*case, 17) for case in CASES[:-1])]
)
def test_convolution_equals_xla_own_in_value_and_gradient(size: int, stride: int, channels: int):
    x, kernel = _operands(size, 10, 13, channels)
    padding = (size - 1) // 2

    def own(x, kernel):
        pads = [(padding, padding)] * 2
        return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    y, pull = jax.vjp(lambda x, k: convolve(x, k, stride, padding), x, kernel)
    wanted, wanted_pull = jax.vjp(own, x, kernel)
    for ours, theirs in zip((y, *pull(wanted)), (wanted, *wanted_pull(wanted)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4 * float(jnp.max(jnp.abs(theirs))))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 12), (1, 7)])
def test_max_pool_equals_torch_ties_included(torch, height: int, width: int):
    r = np.random.default_rng(3)
    x = np.maximum(r.integers(-3, 4, (2, height, width, 4)), 0).astype(np.float32)
    tx = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    ty = torch.nn.functional.max_pool2d(tx, 3, 2, 1)
    g = r.standard_normal(ty.shape).astype(np.float32)
    ty.backward(torch.tensor(g))

    y, pull = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(y, ty.detach().permute(0, 2, 3, 1).numpy())
    (dx,) = pull(jnp.asarray(g.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(dx, tx.grad.permute(0, 2, 3, 1).numpy(), rtol=1e-6, atol=1e-6)


def _gradients(x, kernel):
    return jax.grad(lambda x, k: jnp.sum(max_pool(convolve(x, k, 2, 0)) ** 2), (0, 1))(x, kernel)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_accelerators_get_xla_own_operations_from_a_cpu_host(platform: str):
    shapes = [jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((2, 16, 16, 5), (1, 1, 5, 6))]
    text = export.export(jax.jit(_gradients), platforms=[platform])(*shapes).mlir_module()
    assert text.count("stablehlo.convolution") == 3 and "stablehlo.dot" not in text
    # on a GPU it took 8.4 ms where reading and writing its maps takes 1.2 (docs/gpu.md)
    assert ("stablehlo.select_and_scatter" in text) == (platform == "tpu")

    here = export.export(jax.jit(_gradients), platforms=["cpu"])(*shapes).mlir_module()
    assert "stablehlo.convolution" not in here and "stablehlo.select_and_scatter" not in here
