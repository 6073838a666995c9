"""Quality of an image, alone or beside its reference, from the maps of a convolutional encoder by a transformer.

Two maps, of strides 16 and 32, are brought to one grid and one width and added; a learned token in front of them stands, behind
the encoder, for the image's quality. The same encoder sees image and reference; two small heads give outputs [n].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.attention import Encoder, Keys, dropped, gelu, linear, sine_positions
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.layers import parameter
from contrique_jax.networks.pairs import apart, in_turn
from contrique_jax.networks.skeleton import skeleton

Maps = tuple[Float[Array, "n H W d"], Float[Array, "n h w c"]]  # of strides 16 and 32


class Widths(NamedTuple):
    """Sizes of everything; `middle`, `deep`: channels of the two maps."""

    middle: int
    deep: int
    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float
    compares: bool = True  # whether there is a head for images beside their references


def _like_vit(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.02 * generator.standard_normal(shape, np.float32)


class Head(nnx.Module):
    """Two linear layers; what comes out of the first is the hidden layer."""

    def __init__(self, inputs: int, hidden: int):
        self.linear1, self.linear2 = linear(inputs, hidden), linear(hidden, 1)

    def __call__(self, x: Float[Array, "n i"]) -> tuple[Float[Array, " n"], Float[Array, "n h"]]:
        hidden = gelu(self.linear1(x))
        return self.linear2(hidden)[:, 0], hidden


class TokenMixer(nnx.Module):
    def __init__(self, widths: Widths):
        self.width, self.dropout = widths.width, widths.dropout
        self.middle, self.deep = linear(widths.middle, widths.width), linear(widths.deep, widths.width)
        self.token = parameter((1, widths.width), _like_vit, decays=False)
        self.encoder = Encoder(widths.depth, widths.width, widths.heads, widths.hidden, dropout=widths.dropout)
        self.alone = Head(widths.width, widths.width)
        if widths.compares:
            self.beside = Head(2 * widths.width, widths.width)

    def quality(self, maps: Maps, keys: Keys | None) -> Float[Array, "n c"]:
        """The quality token behind the encoder."""
        middle, deep = (x.astype(jnp.float32) for x in maps)
        n, height, width, _ = deep.shape
        halved = middle.reshape(n, height, 2, width, 2, -1).mean((2, 4))
        x = self.middle(halved) + self.deep(deep) + sine_positions(height, width, self.width)
        tokens = jnp.broadcast_to(self.token[...], (n, 1, self.width))
        x = dropped(jnp.concatenate([tokens, x.reshape(n, height * width, -1)], 1), self.dropout, keys, 1000)
        return self.encoder(x, keys=keys)[:, 0]


class Judged(NamedTuple):
    """Outputs, higher is better, and hidden layers of the heads; `beside` of those with a reference."""

    alone: Float[Array, " n"]
    alone_hidden: Float[Array, "n h"]
    beside: Float[Array, " n"] | None
    beside_hidden: Float[Array, "n h"] | None


def judge(
    widths: Widths, variables: Variables, maps: Maps, reference: Maps | None = None, keys: Keys | None = None
) -> Judged:
    """Of the maps of images, and of their references if there are any; `keys`: of dropout, in training."""
    network = skeleton(TokenMixer, widths).bind({"params": variables["params"]["mixer"], "batch_stats": {}})
    if reference is None:
        alone, hidden = network.alone(network.quality(maps, keys))
        return Judged(alone, hidden, None, None)
    both = in_turn(maps[0], reference[0]), in_turn(maps[1], reference[1])
    # the same units are dropped of both, or dropout would tell them apart
    own, theirs = apart(network.quality(both, None if keys is None else jnp.repeat(keys, 2, 0)))
    return Judged(*network.alone(own), *network.beside(jnp.concatenate([jnp.abs(theirs - own), own], 1)))


def init(widths: Widths, seed: int) -> Variables:
    """Fresh weights on the host, each layer's by its own rule, under the name "mixer"."""
    return _named(skeleton(TokenMixer, widths).init(seed))


def shapes(widths: Widths) -> Variables:
    """The same with `jax.ShapeDtypeStruct` for arrays."""
    return _named(skeleton(TokenMixer, widths).shapes())


def decays(widths: Widths) -> dict[str, Any]:
    """A tree of booleans like the parameters: which of them weight decay touches; neither norms, biases nor the token."""
    return {"mixer": skeleton(TokenMixer, widths).decays()}


def _named(variables: Variables) -> Variables:
    return {"params": {"mixer": variables["params"]}, "batch_stats": {}}
