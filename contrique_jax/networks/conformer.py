"""IQA-Conformer's trained half (arXiv 2204.12819): Conformer blocks over the maps of a frozen network.

With a reference an encoder sees the difference of features, and a decoder the reference's features with cross-attention to what
the encoder made of it. Without one, both blocks see the image's own features, in turn, and there is no cross-attention.

Names are the original's (`encoder.blocks.0.ff_module1.layers.1`), numbered as in its torch.nn.Sequential.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.attention import Keys, dropped
from contrique_jax.networks.convolution import depthwise
from contrique_jax.networks.layers import (
    BatchNorm,
    BiasedConv,
    BiasedLinear,
    LayerNorm,
    Map,
    Statistics,
    like_torch,
    parameter,
)
from contrique_jax.networks.vit import attend

PLACES = 8  # of dropout in a block


class Widths(NamedTuple):
    """Of everything; the defaults are the paper's, on Inception-ResNet-v2's maps of 192 x 192 pixels."""

    inputs: int = 1920  # channels of the frozen network's maps
    grid: int = 21  # their side, which the learned positions are for
    width: int = 128
    heads: int = 4
    hidden: int = 512
    blocks: int = 1  # of the encoder and of the decoder
    dropout: float = 0.1
    paired: bool = True  # a reference is looked at too
    kernel: int = 7  # side of the depthwise convolution, odd
    plain: bool = False  # transformer blocks in place of Conformer blocks (`plain_transformer`)


class Dropped(NamedTuple):
    """Where dropout is drawn from: each row's key, none in evaluation, and the next place of so many."""

    rate: float
    keys: Keys | None
    place: int = 0

    def at(self, place: int) -> Dropped:
        return self._replace(place=self.place + place)

    def __call__(self, x: Array) -> Array:
        return dropped(x, self.rate, self.keys, self.place)


OFF = Dropped(0.0, None)


class FeedForward(nnx.Module):
    """LayerNorm, Linear, Swish, Linear; `plain`: ReLU, and no dropout in the middle."""

    def __init__(self, width: int, hidden: int, dtype: jnp.dtype, plain: bool = False):
        self.plain, self.layers = plain, nnx.Module()
        setattr(self.layers, "0", LayerNorm(width))
        setattr(self.layers, "1", BiasedLinear(width, hidden, dtype=dtype))
        setattr(self.layers, "4", BiasedLinear(hidden, width, dtype=dtype))

    def __call__(self, x: Map, drop: Dropped) -> Map:
        norm, wide, narrow = (getattr(self.layers, name) for name in ("0", "1", "4"))
        x = wide(norm(x))
        return drop.at(1)(narrow(jax.nn.relu(x) if self.plain else drop(jax.nn.silu(x))))


class Heads(nnx.Module):
    """Attention of all positions to all: queries of one map, keys and values of another."""

    def __init__(self, width: int, heads: int, dtype: jnp.dtype):
        self.heads, self.dtype = heads, dtype
        self.query_layer, self.key_layer = (BiasedLinear(width, width, dtype=dtype) for _ in range(2))
        self.value_layer, self.output_layer = (BiasedLinear(width, width, dtype=dtype) for _ in range(2))

    def __call__(self, query: Map, memory: Map) -> Map:
        def heads(layer: BiasedLinear, x: Map) -> Float[Array, "n l heads d"]:
            return layer(x).astype(self.dtype).reshape(len(x), -1, self.heads, x.shape[-1] // self.heads)

        keys, values = heads(self.key_layer, memory), heads(self.value_layer, memory)
        return self.output_layer(attend(heads(self.query_layer, query), keys, values).reshape(query.shape))


class Attention(nnx.Module):
    """LayerNorm of the queries, attention: to the same map, or to another as it is."""

    def __init__(self, width: int, heads: int, dtype: jnp.dtype):
        self.norm, self.attention = LayerNorm(width), Heads(width, heads, dtype)

    def __call__(self, x: Map, drop: Dropped, memory: Map | None = None) -> Map:
        x = self.norm(x)
        return drop(self.attention(x, x if memory is None else memory))


class Depthwise(nnx.Module):
    """A convolution of each channel alone, padded so that the map keeps its size, with a bias."""

    def __init__(self, width: int, kernel: int, dtype: jnp.dtype):
        draw = functools.partial(like_torch, kernel**2)
        self.dtype, self.pads = dtype, ((kernel // 2,) * 2,) * 2
        self.weight = parameter((kernel, kernel, 1, width), draw)
        self.bias = parameter((width,), draw, decays=False)

    def __call__(self, x: Map) -> Map:
        return depthwise(x.astype(self.dtype), self.weight[...].astype(self.dtype), 1, self.pads) + self.bias[...]


class Convolution(nnx.Module):
    """LayerNorm, 1x1 to twice the width, GLU, depthwise, BatchNorm, Swish, 1x1."""

    def __init__(self, width: int, kernel: int, dtype: jnp.dtype):
        self.layers = nnx.Module()
        for number, layer in {
            "0": LayerNorm(width),
            "1": BiasedConv(width, 2 * width, 1, dtype=dtype),
            "3": Depthwise(width, kernel, dtype),
            "4": BatchNorm(width),
            "6": BiasedConv(width, width, 1, dtype=dtype),
        }.items():
            setattr(self.layers, number, layer)

    def __call__(self, x: Map, statistics: Statistics, drop: Dropped) -> Map:
        norm, wide, deep, batch_norm, last = (getattr(self.layers, name) for name in "01346")
        x = deep(jax.nn.glu(wide(norm(x)), axis=-1))
        return drop(last(jax.nn.silu(batch_norm(x.astype(jnp.float32), statistics))))


class Block(nnx.Module):
    """Half a feed-forward, attention, attention to another map if `crossed`, convolution, half a feed-forward, norm."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, crossed: bool, dtype: jnp.dtype):
        self.ff_module1 = FeedForward(width, hidden, dtype)
        self.self_att_module = Attention(width, heads, dtype)
        if crossed:
            self.cross_attention_module = Attention(width, heads, dtype)
        self.conv_module = Convolution(width, kernel, dtype)
        self.ff_module2 = FeedForward(width, hidden, dtype)
        self.norm = LayerNorm(width)

    def __call__(self, x: Map, statistics: Statistics, drop: Dropped = OFF, memory: Map | None = None) -> Map:
        x = x + self.ff_module1(x, drop) / 2
        x = x + self.self_att_module(x, drop.at(2))
        if hasattr(self, "cross_attention_module"):
            x = x + self.cross_attention_module(x, drop.at(3), memory)
        x = x + self.conv_module(x, statistics, drop.at(4))
        x = x + self.ff_module2(x, drop.at(5)) / 2
        return self.norm(x)


class Stack(nnx.Module):
    """Dropout, then so many blocks."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int, kernel: int, crossed: bool, dtype: jnp.dtype):
        self.depth, self.blocks = depth, nnx.Module()
        for i in range(depth):
            setattr(self.blocks, str(i), Block(width, heads, hidden, kernel, crossed, dtype))

    def __call__(self, x: Map, statistics: Statistics, drop: Dropped = OFF, memory: Map | None = None) -> Map:
        x = drop(x)
        for i in range(self.depth):
            x = getattr(self.blocks, str(i))(x, statistics, drop.at(1 + PLACES * i), memory)
        return x


def standard_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """torch's rule for embeddings."""
    return generator.standard_normal(shape, np.float32)


class Vectors(nnx.Module):
    """So many learned vectors; [channels, vectors], as model folders keep matrices."""

    def __init__(self, count: int, width: int):
        self.weight = parameter((width, count), standard_normal, decays=False)

    def __call__(self) -> Float[Array, "n c"]:
        return self.weight[...].T


class Conformer(nnx.Module):
    """What is trained of the system. Maps are float32 between blocks, products in `dtype`."""

    def __init__(self, widths: Widths, dtype: jnp.dtype):
        self.dropout, self.paired, self.places = widths.dropout, widths.paired, 1 + PLACES * widths.blocks
        sizes = (widths.blocks, widths.width, widths.heads, widths.hidden, widths.kernel)
        self.conv_proj = BiasedConv(widths.inputs, widths.width, 1, dtype=dtype)
        self.emb_p = Vectors(widths.grid**2, widths.width)
        self.encoder = Stack(*sizes, False, dtype)
        self.decoder = Stack(*sizes, widths.paired, dtype)
        self.head = nnx.Module()
        setattr(self.head, "1", BiasedLinear(widths.width, widths.width, dtype=dtype))
        setattr(self.head, "3", BiasedLinear(widths.width, 1, dtype=dtype))

    def __call__(
        self, image: Map, reference: Map | None, statistics: Statistics, keys: Keys | None = None
    ) -> Float[Array, " n"]:
        """Of the frozen network's maps: outputs, higher is better; `keys`: of dropout, in training."""
        drop = Dropped(self.dropout, keys)
        seen = image if reference is None else reference - image
        encoded = self.encoder(self._placed(seen), statistics, drop)
        x = encoded if reference is None else self._placed(reference)
        decoded = self.decoder(x, statistics, drop.at(self.places), encoded if self.paired else None)
        hidden = jax.nn.relu(getattr(self.head, "1")(jnp.mean(decoded, (1, 2))))
        return getattr(self.head, "3")(hidden)[:, 0]

    def _placed(self, x: Map) -> Map:
        """With the vector of each place, row by row."""
        x = self.conv_proj(x).astype(jnp.float32)
        return x + self.emb_p().reshape(x.shape[1:])
