"""An encoder's pooled features behind a projector with biases and without BatchNorm (SimCLR's; ARNIQA's, MoCo-v2's).

`Variables` are named as in `encoder`: encoder/..., projector/0/weight and bias, projector/2/weight and bias.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8

from contrique_jax.config import ModelConfig
from contrique_jax.networks.encoder import Variables, encoder_of, feature_width, scaled
from contrique_jax.networks.layers import BiasedLinear, Statistics, decayed, drawn
from contrique_jax.networks.pooling import global_mean, normalise


class PairProjector(nnx.Module):
    """Encoder, mean of the last map, with `unit` its L2 norm, Linear, ReLU, Linear."""

    def __init__(self, model: ModelConfig):
        dtype, width = jnp.dtype(model.compute_dtype), feature_width(model)
        self.encoder = encoder_of(model)
        self.projector = nnx.Module()
        setattr(self.projector, "0", BiasedLinear(width, width, dtype=dtype))
        setattr(self.projector, "2", BiasedLinear(width, model.projection_dim, dtype=dtype))

    def __call__(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, remat: bool, unit: bool
    ) -> Float[Array, "n d"]:
        features = global_mean(*self.encoder(images, statistics, remat=remat))
        features = normalise(features) if unit else features
        return getattr(self.projector, "2")(jax.nn.relu(getattr(self.projector, "0")(features)))


def init(model: ModelConfig, seed: int) -> Variables:
    """Fresh weights on the host, each layer's by its own rule."""
    _, params, batch_stats = _skeleton(dataclasses.astuple(model))
    return {"params": drawn(params, seed), "batch_stats": drawn(batch_stats, seed)}


def variable_shapes(model: ModelConfig) -> Variables:
    """`Variables` with `jax.ShapeDtypeStruct` for arrays."""
    _, params, batch_stats = _skeleton(dataclasses.astuple(model))
    return {"params": nnx.to_pure_dict(params), "batch_stats": nnx.to_pure_dict(batch_stats)}


def decays(model: ModelConfig) -> dict[str, Any]:
    """A tree of booleans like the parameters: which of them weight decay touches if it spares norms and biases."""
    return decayed(_skeleton(dataclasses.astuple(model))[1])


def project(
    model: ModelConfig,
    variables: Variables,
    images: UInt8[Array, "n h w 3"] | Float[Array, "n h w 3"],
    statistics: Statistics,
    *,
    remat: bool = False,
    unit: bool = True,
) -> tuple[Float[Array, "n d"], dict[str, Any]]:
    """Projections, float32, not yet normalised, and the moved running statistics. BatchNorm as `statistics` say; with `unit`
    the projector sees L2-normalised features."""
    graph, params, batch_stats = _skeleton(dataclasses.astuple(model))
    params, batch_stats = (jax.tree.map(lambda leaf: leaf, state) for state in (params, batch_stats))
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(batch_stats, jax.tree.map(jnp.asarray, variables["batch_stats"]))
    network = nnx.merge(graph, params, batch_stats)
    z = network(scaled(model, images), statistics, remat, unit)
    return z, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))


@functools.lru_cache(maxsize=16)
def _skeleton(model: tuple[Any, ...]) -> tuple[nnx.GraphDef[PairProjector], nnx.State, nnx.State]:
    network = nnx.eval_shape(lambda: PairProjector(ModelConfig(*model)))
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    return graph, states[0], states[1]
