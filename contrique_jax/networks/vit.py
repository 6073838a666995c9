"""A Vision Transformer up to its last tapped block, with timm's names and layouts (`vit_base_patch8_224` and its kin).

The image is cut into squares of `patch` pixels; each becomes a token, a class token stands before them, and a learned
position is added to each. Blocks are pre-norm: x + attention(norm1(x)), x + mlp(norm2(x)), exact GELU, a hidden width of four
times the width. The final norm and the classifier, which follow the last block, are left out.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.layers import BiasedConv, BiasedLinear, LayerNorm, parameter

EPSILON = 1e-6  # of every LayerNorm: timm's
DEVIATION = 0.02  # of the normal distribution that weights are drawn from

Tokens = Float[Array, "n l d"]  # the class token first, then the image's squares row by row


class Size(NamedTuple):
    """What a ViT is: `side` is the number of squares along the images that its positions were learned on."""

    patch: int
    width: int
    heads: int
    side: int
    taps: tuple[int, ...]  # the blocks whose outputs are wanted, counted from 0


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """timm's rule for linear layers and positions."""
    return generator.standard_normal(shape, np.float32) * np.float32(DEVIATION)


def attend(
    query: Float[Array, "n q heads d"], key: Float[Array, "n k heads d"], value: Float[Array, "n k heads d"]
) -> Float[Array, "n q heads d"]:
    """softmax(query key' / sqrt(d)) value; float32 operands are multiplied in full float32 on every platform."""
    exact = query.dtype == jnp.float32
    with jax.default_matmul_precision("float32") if exact else contextlib.nullcontext():
        return nnx.dot_product_attention(query, key, value)


class Attention(nnx.Module):
    """Self-attention of several heads; query, key and value of all heads come from one matrix."""

    def __init__(self, width: int, heads: int, *, dtype: jnp.dtype):
        self.heads, self.dtype = heads, dtype
        self.qkv = BiasedLinear(width, 3 * width, dtype=dtype, draw=normal)
        self.proj = BiasedLinear(width, width, dtype=dtype, draw=normal)

    def __call__(self, x: Tokens) -> Tokens:
        qkv = self.qkv(x).astype(self.dtype).reshape(*x.shape[:2], 3, self.heads, -1)
        return self.proj(attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape))


class Mlp(nnx.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, width: int, hidden: int, *, dtype: jnp.dtype):
        self.fc1 = BiasedLinear(width, hidden, dtype=dtype, draw=normal)
        self.fc2 = BiasedLinear(hidden, width, dtype=dtype, draw=normal)

    def __call__(self, x: Tokens) -> Tokens:
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class Block(nnx.Module):
    """Attention, then MLP, each on the normalised tokens and added to them."""

    def __init__(self, width: int, heads: int, *, dtype: jnp.dtype):
        self.norm1 = LayerNorm(width, epsilon=EPSILON)
        self.attn = Attention(width, heads, dtype=dtype)
        self.norm2 = LayerNorm(width, epsilon=EPSILON)
        self.mlp = Mlp(width, 4 * width, dtype=dtype)

    def __call__(self, x: Tokens) -> Tokens:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Patches(nnx.Module):
    """A matrix for the pixels of a square: a convolution whose stride is its size."""

    def __init__(self, width: int, patch: int, *, dtype: jnp.dtype):
        self.proj = BiasedConv(3, width, patch, patch, dtype=dtype)
        self.proj.padding = 0

    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n a b d"]:
        return self.proj(images)


class ViT(nnx.Module):
    """The blocks up to the last tapped one. Tokens are float32 between blocks, matrix products in `dtype`.

    `cls_token` [d, 1, 1] and `pos_embed` [d, 1 + side^2, 1] are timm's with their axes in reverse, as model folders keep them.
    """

    def __init__(self, size: Size, dtype: jnp.dtype):
        self.size = size
        self.cls_token = parameter((size.width, 1, 1), normal, decays=False)
        self.pos_embed = parameter((size.width, 1 + size.side**2, 1), normal, decays=False)
        self.patch_embed = Patches(size.width, size.patch, dtype=dtype)
        self.blocks = nnx.Module()
        for i in range(max(size.taps) + 1):
            setattr(self.blocks, str(i), Block(size.width, size.heads, dtype=dtype))

    def __call__(self, images: Float[Array, "n h w 3"]) -> list[Tokens]:
        """Tokens after each tapped block, in the order of `taps`. `images` as the weights expect them, of any size from one
        square on: positions are resized to their grid. Pixels beyond the last whole square are not seen."""
        x = self.tokens(images)
        found = {}
        for i in range(max(self.size.taps) + 1):
            x = getattr(self.blocks, str(i))(x)
            found[i] = x
        return [found[i] for i in self.size.taps]

    def tokens(self, images: Float[Array, "n h w 3"]) -> Tokens:
        """What the first block is given."""
        height, width = (side // self.size.patch for side in images.shape[1:3])
        squares = self.patch_embed(images).astype(jnp.float32).reshape(len(images), height * width, -1)
        first = jnp.broadcast_to(self.cls_token[...].T, (len(images), 1, self.size.width))
        return jnp.concatenate([first, squares], axis=1) + positions(self.pos_embed[...].T, (height, width))


def positions(table: Float[Array, "1 m d"], grid: tuple[int, int]) -> Float[Array, "1 l d"]:
    """Learned positions, the class token's first and then those of a square grid, for another grid: as timm resizes them,
    bicubic (a = -1/2), averaging where the grid is coarser."""
    side = round((table.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return table
    square = table[:, 1:].reshape(1, side, side, -1)
    exact = jax.lax.Precision.HIGHEST
    resized = jax.image.resize(square, (1, *grid, square.shape[-1]), "cubic", antialias=True, precision=exact)
    return jnp.concatenate([table[:, :1], resized.reshape(1, grid[0] * grid[1], -1)], axis=1)


def as_map(tokens: Tokens, grid: tuple[int, int]) -> Float[Array, "n h w d"]:
    """The squares' tokens as a map; the class token is dropped."""
    return tokens[:, 1:].reshape(len(tokens), *grid, tokens.shape[-1])
