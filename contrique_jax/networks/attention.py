"""Attention and encoder blocks, of Flax NNX's layers, each of which says how it starts and whether weight decay touches it.

Sequences are [n, l, c]. Maps of weights and biases start as torch's linear layers do, uniform within 1 / sqrt(inputs), biases
decay no more than norms. Dropout is drawn for each row by its own key, the same on any number of devices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, UInt32

from contrique_jax.networks.layers import ones, zeros

Sequence = Float[Array, "n l c"]
Keys = UInt32[Array, "n 2"]


def within(inputs: int, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def _said(inputs: int, decays: bool = True) -> dict[str, Any]:
    return {"draw": functools.partial(within, inputs), "decays": decays}


def _unused() -> nnx.Rngs:
    """Flax wants one to build a layer; how it starts is what `layers.drawn` draws."""
    return nnx.Rngs(0)


NO_DECAY = {"draw": zeros, "decays": False}


def linear(inputs: int, outputs: int, *, dtype: Any = jnp.float32) -> nnx.Linear:
    """x @ kernel + bias, in `dtype`."""
    return nnx.Linear(
        inputs, outputs, dtype=dtype, precision=_precision(dtype), rngs=_unused(),
        kernel_metadata=_said(inputs), bias_metadata=_said(inputs, decays=False),
    )  # fmt: skip


def layer_norm(width: int, *, epsilon: float = 1e-5, dtype: Any = jnp.float32) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        width, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=_unused(),
        scale_metadata={"draw": ones, "decays": False}, bias_metadata=NO_DECAY,
    )  # fmt: skip


def attention(width: int, heads: int, *, dtype: Any = jnp.float32) -> nnx.MultiHeadAttention:
    """Multi-head attention with one output of the same width; its kernels are query, key, value [c, heads, c / heads] and out
    [heads, c / heads, c]. Called with (queries, keys, mask=...), of which True is looked at."""
    return nnx.MultiHeadAttention(
        heads, width, dtype=dtype, precision=_precision(dtype), rngs=_unused(), keep_rngs=False,
        deterministic=True, decode=False,
        kernel_metadata=_said(width), out_kernel_metadata=_said(width),
        bias_metadata=NO_DECAY, out_bias_metadata=NO_DECAY,
    )  # fmt: skip


def _precision(dtype: Any) -> lax.Precision | None:
    return lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


def dropped(x: Float[Array, "n *rest"], rate: float, keys: Keys | None, place: int) -> Float[Array, "n *rest"]:
    """Dropout, of each row by its key and the `place` in the network; without keys, or at rate 0, x as it is."""
    if keys is None or rate == 0:
        return x
    layer = nnx.Dropout(rate)

    def one(row: Array, key: Array) -> Array:
        return layer(row, deterministic=False, rngs=jax.random.fold_in(jax.random.wrap_key_data(key), place))

    return jax.vmap(one)(x, keys)


def gelu(x: Array) -> Array:
    """The exact one, as torch's."""
    return jax.nn.gelu(x, approximate=False)


class Block(nnx.Module):
    """Self-attention, then two linear layers with an activation between, each added to its input.

    `pre_norm`: LayerNorm before each of the two; else after each sum, as in the first transformer. Dropout falls on what is
    added and on the hidden layer, not on attention weights.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, pre_norm: bool = True, activation: Callable[[Array], Array] = gelu,
        dropout: float = 0.0, epsilon: float = 1e-5, dtype: Any = jnp.float32,
    ):  # fmt: skip
        self.pre_norm, self.activation, self.dropout = pre_norm, activation, dropout
        self.attention = attention(width, heads, dtype=dtype)
        self.norm1, self.norm2 = (layer_norm(width, epsilon=epsilon, dtype=dtype) for _ in range(2))
        self.linear1, self.linear2 = (
            linear(width, hidden, dtype=dtype),
            linear(hidden, width, dtype=dtype),
        )

    def __call__(
        self, x: Sequence, present: Bool[Array, "n l"] | None = None, keys: Keys | None = None, place: int = 0
    ) -> Sequence:
        """`present`: which of the sequence there are; the others are not looked at. `place`: of the block among several, so
        that their dropout differs."""
        mask = None if present is None else present[:, None, None, :]
        first, hidden, second = (
            functools.partial(dropped, rate=self.dropout, keys=keys, place=3 * place + i) for i in range(3)
        )
        y = self.norm1(x) if self.pre_norm else x
        x = x + first(self.attention(y, mask=mask))
        x = x if self.pre_norm else self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + second(self.linear2(hidden(self.activation(self.linear1(y)))))
        return x if self.pre_norm else self.norm2(x)


class Encoder(nnx.Module):
    """So many blocks, named "0", "1", ...; behind those with norms before, one more norm."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int, **settings: Any):
        self.depth = depth
        for i in range(depth):
            setattr(self, str(i), Block(width, heads, hidden, **settings))
        if settings.get("pre_norm", True):
            self.norm = layer_norm(
                width, epsilon=settings.get("epsilon", 1e-5), dtype=settings.get("dtype", jnp.float32)
            )

    def __call__(self, x: Sequence, present: Bool[Array, "n l"] | None = None, keys: Keys | None = None) -> Sequence:
        for i in range(self.depth):
            x = getattr(self, str(i))(x, present, keys, i)
        return self.norm(x) if hasattr(self, "norm") else x


def sine_positions(height: int, width: int, channels: int) -> Float[np.ndarray, "h w c"]:
    """Sines and cosines of row (the first half of the channels) and column, by the first transformer's wavelengths; for maps of
    any size. `channels`: a multiple of 4."""
    quarter = channels // 4
    rates = 1 / 10_000 ** (np.arange(quarter) / quarter)
    angles = [np.arange(length)[:, None] * rates for length in (height, width)]
    down, across = (np.concatenate([np.sin(angle), np.cos(angle)], axis=1) for angle in angles)
    both = [np.repeat(down[:, None], width, 1), np.repeat(across[None], height, 0)]
    return np.concatenate(both, axis=2).astype(np.float32)
