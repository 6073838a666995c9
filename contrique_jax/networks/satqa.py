"""SaTQA's judge (arXiv 2312.06995): a frozen ViT's tokens through multi-stream blocks to a small grid, which a frozen
`GridEncoder`'s places ask; then a head.

Modules carry the original's names; `block.0`, `block.2` and `block.4` are stages of blocks, `block.1` and `block.3` halve the
map between them. Blocks have neither norms nor activations between streams.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, UInt32

from contrique_jax.networks.attention import dropped, gelu
from contrique_jax.networks.convolution import depthwise
from contrique_jax.networks.deformable import DeformableConv
from contrique_jax.networks.encoder import Linear
from contrique_jax.networks.layers import (
    BiasedConv,
    BiasedLinear,
    Conv,
    Map,
    kaiming_uniform,
    like_torch,
    parameter,
    zeros,
)
from contrique_jax.networks.vit import attend

SQUEEZE = 16  # channels to one between the channel attention's layers
TAPS = 9


class Size(NamedTuple):
    """What the network is."""

    tokens: int  # numbers in what the ViT gives of a square, all tapped blocks together
    width: int
    side: int  # squares along the image
    depths: tuple[int, int, int]  # blocks before, between and after the two halvings
    streams: tuple[tuple[int, int, int], ...]  # of each stage: channels of the deformable, pooled and attending stream
    heads: int
    grid: int  # numbers in each place of the encoder's grid
    dropout: float  # of the cross-attention's weights, in training
    dtype: str


def sides(side: int) -> tuple[int, int, int]:
    """Of the maps of the three stages."""
    half = -(-side // 2)
    return side, half, -(-half // 2)


class ChannelAttention(nnx.Module):
    """Each channel by a share that the maxima and the means of all channels say."""

    def __init__(self, width: int, *, dtype: jnp.dtype):
        self.fc = nnx.Module()
        setattr(self.fc, "0", Conv(width, max(width // SQUEEZE, 1), 1, dtype=dtype))
        setattr(self.fc, "2", Conv(max(width // SQUEEZE, 1), width, 1, dtype=dtype))

    def __call__(self, x: Map) -> Map:
        both = jnp.stack([jnp.max(x, (1, 2)), jnp.mean(x, (1, 2))], axis=1)[:, :, None]
        said = getattr(self.fc, "2")(jax.nn.relu(getattr(self.fc, "0")(both)))
        return x * jax.nn.sigmoid(jnp.sum(said, axis=1, keepdims=True).astype(jnp.float32))


class SpatialAttention(nnx.Module):
    """Each place by a share that the mean and the maximum of its and its neighbours' channels say."""

    def __init__(self, *, dtype: jnp.dtype):
        self.conv = Conv(2, 1, 3, dtype=dtype)

    def __call__(self, x: Map) -> Map:
        both = jnp.stack([jnp.mean(x, 3), jnp.max(x, 3)], axis=-1)
        return x * jax.nn.sigmoid(self.conv(both).astype(jnp.float32))


class Deforming(nnx.Module):
    """A deformable convolution whose offsets the map itself says."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype):
        self.conv = DeformableConv(inputs, outputs, bias=False, dtype=dtype)
        self.p_conv = BiasedConv(inputs, 2 * TAPS, 3, dtype=jnp.dtype("float32"))
        self.p_conv.weight = parameter((3, 3, inputs, 2 * TAPS), zeros)

    def __call__(self, x: Map) -> Map:
        offsets = self.p_conv(x)  # all taps' down, then all taps' right
        return self.conv(x, offsets.reshape(*x.shape[:3], 2, TAPS).swapaxes(3, 4).reshape(offsets.shape))


class DepthwiseConv(nnx.Module):
    """A 3x3 kernel and a bias a channel, both drawn as torch's."""

    def __init__(self, width: int, *, dtype: jnp.dtype):
        self.dtype = dtype
        draw = functools.partial(like_torch, TAPS)
        self.weight = parameter((3, 3, 1, width), draw)
        self.bias = parameter((width,), draw, decays=False)

    def __call__(self, x: Map) -> Map:
        kernel = self.weight[...].astype(self.dtype)
        return depthwise(x.astype(self.dtype), kernel, 1, ((1, 1), (1, 1))) + self.bias[...].astype(self.dtype)


class Pooled(nnx.Module):
    """Maxima of squares of four, a depthwise and a 1x1 convolution, each number twice along both sides."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype):
        self.depth_wise = DepthwiseConv(inputs, dtype=dtype)
        self.point_wise = BiasedConv(inputs, outputs, 1, dtype=dtype)

    def __call__(self, x: Map) -> Map:
        """A map of an odd side loses its last row and column."""
        n, height, width, channels = x.shape
        rows, columns = height // 2, width // 2
        squares = x[:, : 2 * rows, : 2 * columns].reshape(n, rows, 2, columns, 2, channels)
        x = self.point_wise(self.depth_wise(jnp.max(squares, (2, 4))))
        return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def small(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A third of `kaiming_uniform`: without norms the logits of nine blocks' attention would saturate."""
    return kaiming_uniform(generator, shape) / np.float32(3)


class Attention(nnx.Module):
    """Self-attention of several heads; query, key and value come from one matrix without bias."""

    def __init__(self, width: int, heads: int, *, dtype: jnp.dtype):
        self.heads, self.dtype = heads, dtype
        self.qkv = Linear(width, 3 * width, dtype=dtype)
        self.qkv.weight = parameter((width, 3 * width), small)
        self.proj = BiasedLinear(width, width, dtype=dtype)

    def __call__(self, x: Float[Array, "n l d"]) -> Float[Array, "n l d"]:
        qkv = self.qkv(x).astype(self.dtype).reshape(*x.shape[:2], 3, self.heads, -1)
        return self.proj(attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape))


class MultiStream(nnx.Module):
    """Three streams side by side, and the map by its attention shares added to them; float32 in and out."""

    def __init__(self, width: int, streams: tuple[int, int, int], side: int, heads: int, dtype: jnp.dtype):
        if sum(streams) != width:
            raise ValueError(f"streams of {streams} channels are not {width} together")
        deformed, pooled, attending = streams
        self.ca, self.sa = ChannelAttention(width, dtype=dtype), SpatialAttention(dtype=dtype)
        self.dconv = Deforming(width, deformed, dtype=dtype)
        self.dconv_proj = BiasedLinear(deformed, deformed, dtype=dtype)
        self.dwconv = Pooled(width, pooled, dtype=dtype)
        self.attn = Attention(width, heads, dtype=dtype)
        self.attn_proj = BiasedLinear(width, attending, dtype=dtype)
        if side % 2:  # what pooling has lost of an odd side comes back by a matrix over places
            self.ups_proj = BiasedLinear((side - 1) ** 2, side**2, dtype=dtype)

    def __call__(self, x: Map) -> Map:
        n, height, width, channels = x.shape
        pooled = self.dwconv(x).astype(jnp.float32)
        if hasattr(self, "ups_proj"):
            places = pooled.reshape(n, -1, pooled.shape[3]).swapaxes(1, 2)
            pooled = self.ups_proj(places).swapaxes(1, 2).reshape(n, height, width, -1)
        attending = self.attn_proj(self.attn(x.reshape(n, -1, channels))).reshape(n, height, width, -1)
        streams = jnp.concatenate([self.dconv_proj(self.dconv(x)), pooled, attending], axis=-1)
        return streams + self.sa(self.ca(x))


class Halving(nnx.Module):
    def __init__(self, width: int, *, dtype: jnp.dtype):
        self.down_conv = BiasedConv(width, width, 3, 2, dtype=dtype)

    def __call__(self, x: Map) -> Map:
        return self.down_conv(x).astype(jnp.float32)


class Judge(nnx.Module):
    """Tokens and the encoder's grid to a score."""

    def __init__(self, size: Size):
        dtype, width = jnp.dtype(size.dtype), size.width
        self.size = size
        self.feature_proj = Linear(size.tokens, width, dtype=dtype)
        self.block = nnx.Module()
        for stage, (depth, streams, side) in enumerate(zip(size.depths, size.streams, sides(size.side), strict=True)):
            blocks = nnx.Module()
            for i in range(depth):
                setattr(blocks, str(i), MultiStream(width, streams, side, size.heads, dtype))
            setattr(self.block, str(2 * stage), blocks)
            if stage:
                setattr(self.block, str(2 * stage - 1), Halving(width, dtype=dtype))
        self.fea_proj, self.ffn, self.fc = nnx.Module(), nnx.Module(), nnx.Module()
        setattr(self.fea_proj, "0", BiasedConv(size.grid, width, 1, dtype=dtype))
        self.W_Q, self.W_K, self.W_V = (Linear(width, width, dtype=dtype) for _ in range(3))
        setattr(self.ffn, "0", Linear(width, 4 * width, dtype=dtype))
        setattr(self.ffn, "2", Linear(4 * width, width, dtype=dtype))
        setattr(self.fc, "0", BiasedLinear(width, width, dtype=dtype))
        setattr(self.fc, "2", BiasedLinear(width, 1, dtype=dtype))

    def backbone(self, tokens: Float[Array, "n h w t"], remat: bool = False) -> Map:
        """The map of the last stage."""
        x = self.feature_proj(tokens)
        block = nnx.remat(MultiStream.__call__) if remat else MultiStream.__call__
        for stage, depth in enumerate(self.size.depths):
            if stage:
                x = getattr(self.block, str(2 * stage - 1))(x)
            for i in range(depth):
                x = block(getattr(getattr(self.block, str(2 * stage)), str(i)), x)
        return x

    def __call__(
        self,
        tokens: Float[Array, "n h w t"],
        grid: Float[Array, "n g g c"],
        keys: UInt32[Array, "n 2"] | None = None,
        remat: bool = False,
    ) -> Float[Array, " n"]:
        """Scores of images. `tokens`: of each square what all tapped blocks give, side by side. With `keys` dropout, each
        row's from its own."""
        places = self.backbone(tokens, remat).reshape(len(tokens), -1, self.size.width)
        asking = getattr(self.fea_proj, "0")(grid).reshape(len(grid), -1, self.size.width)
        query, key, value = self.W_Q(asking), self.W_K(places), self.W_V(places)
        logits = jnp.einsum("nqd,nkd->nqk", query, key, precision=lax.Precision.HIGHEST)
        weights = jax.nn.softmax(logits / jnp.sqrt(jnp.float32(self.size.width)), axis=-1)
        weights = dropped(weights, self.size.dropout, keys, 0)
        x = jnp.einsum("nqk,nkd->nqd", weights, value, precision=lax.Precision.HIGHEST)
        x = jnp.mean(x + gelu(getattr(self.ffn, "2")(gelu(getattr(self.ffn, "0")(x)))), axis=1)
        return getattr(self.fc, "2")(jax.nn.relu(getattr(self.fc, "0")(x)))[:, 0]
