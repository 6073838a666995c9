"""IQA-Conformer's plain variant (arXiv 2204.12819): transformer blocks in place of the Conformer's.

The places of a map are a sequence, row by row, with a learned token in front, which the head reads. Encoder and decoder see
what the Conformer's see (`networks.conformer`). Names are the original's.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.attention import Keys, Sequence
from contrique_jax.networks.conformer import (
    OFF,
    PLACES,
    Attention,
    Dropped,
    FeedForward,
    Vectors,
    Widths,
)
from contrique_jax.networks.layers import BiasedConv, BiasedLinear, LayerNorm, Map, Statistics

OF_REFERENCE, OF_DIFFERENCE = 0, 1  # tokens
FEED = {"encoder": "ff_module", "decoder": "feed_forward_module"}


class Block(nnx.Module):
    """Attention, attention to another sequence if `crossed`, feed-forward, each behind a norm and added to its input."""

    def __init__(self, feed: str, width: int, heads: int, hidden: int, crossed: bool, dtype: jnp.dtype):
        self.feed = feed
        self.self_att_module = Attention(width, heads, dtype)
        if crossed:
            self.cross_attention_module = Attention(width, heads, dtype)
        setattr(self, feed, FeedForward(width, hidden, dtype, plain=True))

    def __call__(self, x: Sequence, drop: Dropped = OFF, memory: Sequence | None = None) -> Sequence:
        x = x + self.self_att_module(x, drop)
        if hasattr(self, "cross_attention_module"):
            x = x + self.cross_attention_module(x, drop.at(1), memory)
        return x + getattr(self, self.feed)(x, drop.at(2))


class Stack(nnx.Module):
    """Dropout, so many blocks, a norm."""

    def __init__(self, feed: str, depth: int, width: int, heads: int, hidden: int, crossed: bool, dtype: jnp.dtype):
        self.depth, self.blocks, self.layernorm = depth, nnx.Module(), LayerNorm(width)
        for i in range(depth):
            setattr(self.blocks, str(i), Block(feed, width, heads, hidden, crossed, dtype))

    def __call__(self, x: Sequence, drop: Dropped = OFF, memory: Sequence | None = None) -> Sequence:
        x = drop(x)
        for i in range(self.depth):
            x = getattr(self.blocks, str(i))(x, drop.at(1 + PLACES * i), memory)
        return self.layernorm(x)


class PlainTransformer(nnx.Module):
    """What is trained of the variant, called as a `Conformer` is. Sequences are float32 between blocks, products in `dtype`."""

    def __init__(self, widths: Widths, dtype: jnp.dtype):
        self.dropout, self.paired, self.places = widths.dropout, widths.paired, 1 + PLACES * widths.blocks
        sizes = (widths.blocks, widths.width, widths.heads, widths.hidden)
        self.conv_proj = BiasedConv(widths.inputs, widths.width, 1, dtype=dtype)
        self.emb_q = Vectors(2, widths.width)
        self.emb_p = Vectors(1 + widths.grid**2, widths.width)
        self.encoder = Stack(FEED["encoder"], *sizes, False, dtype)
        self.decoder = Stack(FEED["decoder"], *sizes, widths.paired, dtype)
        self.head = nnx.Module()
        setattr(self.head, "0", BiasedLinear(widths.width, widths.width, dtype=dtype))
        setattr(self.head, "2", BiasedLinear(widths.width, 1, dtype=dtype))

    def __call__(
        self, image: Map, reference: Map | None, statistics: Statistics, keys: Keys | None = None
    ) -> Float[Array, " n"]:
        """Of the frozen network's maps: outputs, higher is better; `keys`: of dropout, in training. It has no BatchNorm."""
        drop = Dropped(self.dropout, keys)
        seen = image if reference is None else reference - image
        encoded = self.encoder(self._placed(seen, OF_DIFFERENCE), drop)
        x = encoded if reference is None else self._placed(reference, OF_REFERENCE)
        decoded = self.decoder(x, drop.at(self.places), encoded if self.paired else None)
        return getattr(self.head, "2")(jax.nn.relu(getattr(self.head, "0")(decoded[:, 0])))[:, 0]

    def _placed(self, x: Map, token: int) -> Sequence:
        x = self.conv_proj(x).astype(jnp.float32)
        x = x.reshape(len(x), -1, x.shape[-1])
        first = jnp.broadcast_to(self.emb_q()[token], (len(x), 1, x.shape[-1]))
        return jnp.concatenate([first, x], axis=1) + self.emb_p()
