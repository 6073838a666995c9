"""Deformable convolution against torchvision's formula, and what offsets mean."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from contrique_jax.networks.convolution import convolve
from contrique_jax.networks.deformable import deformable_convolve
from tests.reference_weights import close


def _nhwc(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array.transpose(0, 2, 3, 1))


def test_value_and_gradients_are_torchvisions_far_outside_too(shared: Path):
    with np.load(shared / "systems/reference/ahiq_parts.npz") as data:
        part = {name.removeprefix("deform_conv/"): data[name] for name in data if name.startswith("deform_conv/")}

    def loss(x: jax.Array, offsets: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = deformable_convolve(x, offsets, kernel) + part["bias"]
        return jnp.sum(jnp.square(y)), y

    operands = _nhwc(part["x"]), _nhwc(part["offset"]), jnp.asarray(part["weight"].transpose(2, 3, 1, 0))
    gradients, y = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*operands)
    close(y.transpose(0, 3, 1, 2), part["y"], 1e-5)
    close(gradients[0].transpose(0, 3, 1, 2), part["grad_x"], 1e-5)
    close(gradients[1].transpose(0, 3, 1, 2), part["grad_offset"], 1e-5)
    close(gradients[2].transpose(3, 2, 0, 1), part["grad_weight"], 1e-5)


def test_no_offset_is_a_convolution_a_whole_one_shifts_and_a_huge_one_sees_nothing():
    r = np.random.default_rng(0)
    x, kernel = (jnp.asarray(r.standard_normal(shape), jnp.float32) for shape in ((2, 7, 6, 3), (3, 3, 3, 4)))
    none = jnp.zeros((2, 7, 6, 18))
    found = jax.jit(deformable_convolve)
    plain = convolve(x, kernel, 1, 1)
    close(found(x, none, kernel), plain, 1e-6)
    down_and_left = none.at[..., 0::2].set(1).at[..., 1::2].set(-2)
    close(found(x, down_and_left, kernel)[:, :-2, 3:], plain[:, 1:-1, 1:-2], 1e-6)
    np.testing.assert_array_equal(found(x, none.at[..., 0::2].set(-3e12), kernel), 0)
