"""A small head on the statistics of a frozen encoder's stages, and the projector that trains it.

Outside this module there are nested dicts of float32 arrays, numbered as in a torch.nn.Sequential: head/0 holds the mean and
variance of each input over what was trained on, head/1 and head/4 are Linear, head/2 and head/5 LayerNorm, GELU after each;
projector/0 and projector/2 are Linear, ReLU between.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.layers import (
    EPSILON,
    MOMENTUM,
    RUNNING,
    BiasedLinear,
    LayerNorm,
    Statistics,
    normalised,
    ones,
    zeros,
)
from contrique_jax.networks.skeleton import moved, skeleton

PARTS = ("stages", "head")  # what a vector may be made of


class Widths(NamedTuple):
    """Numbers in the statistics, between the two layers, in a head's features and in a projection."""

    inputs: int
    hidden: int
    features: int
    projections: int


class Standard(nnx.Module):
    """Inputs with mean 0 and variance 1: of this batch in training, where running ones follow it, else by those."""

    def __init__(self, width: int):
        self.running_mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32), draw=zeros)
        self.running_var = nnx.BatchStat(jnp.ones((width,), jnp.float32), draw=ones)

    def __call__(self, x: Float[Array, "n c"], statistics: Statistics) -> Float[Array, "n c"]:
        if not statistics.batches:
            return (x - self.running_mean[...]) * jax.lax.rsqrt(self.running_var[...] + EPSILON)
        weight, bias = jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])
        y, mean, variance = normalised(x, weight, bias, statistics, EPSILON)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            running[...] = (1 - MOMENTUM) * running[...] + MOMENTUM * new[0]
        return y


class Head(nnx.Module):
    def __init__(self, widths: Widths):
        linear = functools.partial(BiasedLinear, dtype=jnp.dtype("float32"))
        self.head, self.projector = nnx.Module(), nnx.Module()
        setattr(self.head, "0", Standard(widths.inputs))
        setattr(self.head, "1", linear(widths.inputs, widths.hidden))
        setattr(self.head, "2", LayerNorm(widths.hidden))
        setattr(self.head, "4", linear(widths.hidden, widths.features))
        setattr(self.head, "5", LayerNorm(widths.features))
        setattr(self.projector, "0", linear(widths.features, widths.features))
        setattr(self.projector, "2", linear(widths.features, widths.projections))

    def parts(self, x: Float[Array, "n i"], statistics: Statistics) -> dict[str, Float[Array, "n _"]]:
        """The statistics standardised, and the head's features of them, by name."""
        standard = getattr(self.head, "0")(x, statistics)
        y = standard
        for linear, norm in (("1", "2"), ("4", "5")):
            y = jax.nn.gelu(getattr(self.head, norm)(getattr(self.head, linear)(y)), approximate=False)
        return {"stages": standard, "head": y}

    def projections(self, x: Float[Array, "n i"], statistics: Statistics) -> Float[Array, "n p"]:
        y = self.parts(x, statistics)["head"]
        return getattr(self.projector, "2")(jax.nn.relu(getattr(self.projector, "0")(y)))


def project(
    widths: Widths, variables: Variables, vectors: Float[Array, "n v i"], axis: str | None
) -> tuple[Float[Array, "n v p"], dict[str, Any]]:
    """Projections of each image's views, not yet normalised, and the moved running statistics; all views are standardised
    together. `axis`: inside a `shard_map`, the mesh axis over which images are split."""
    network = skeleton(Head, widths).bind(variables)
    z = network.projections(vectors.astype(jnp.float32).reshape(-1, vectors.shape[-1]), Statistics(1, axis))
    return z.reshape(*vectors.shape[:2], -1), moved(network)


def features(widths: Widths, variables: Variables, statistics: Float[Array, "n i"], choice: str) -> Float[Array, "n d"]:
    """Of an encoder's statistics what `choice` names: "stages" (standardised), "head", or both, "stages+head"."""
    parts = skeleton(Head, widths).bind(variables).parts(statistics, RUNNING)
    return jnp.concatenate([parts[name] for name in choice.split("+")], axis=1)
