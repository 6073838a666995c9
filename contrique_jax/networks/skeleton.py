"""A network's structure without its numbers: from it come fresh variables, their shapes, what decays, and the network at work.

Outside there are nested dicts of float32 arrays only: `Variables`, "params" and "batch_stats".
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.layers import decayed, drawn

Network = TypeVar("Network", bound=nnx.Module)


class Skeleton(NamedTuple, Generic[Network]):
    """What `skeleton` finds; its states hold `jax.ShapeDtypeStruct`."""

    graph: nnx.GraphDef[Network]
    params: nnx.State
    batch_stats: nnx.State

    def init(self, seed: int) -> Variables:
        """Fresh weights on the host, each layer's by its own rule."""
        return {"params": drawn(self.params, seed), "batch_stats": drawn(self.batch_stats, seed)}

    def shapes(self) -> Variables:
        """`Variables` with `jax.ShapeDtypeStruct` for arrays."""
        return {"params": nnx.to_pure_dict(self.params), "batch_stats": nnx.to_pure_dict(self.batch_stats)}

    def decays(self) -> dict[str, Any]:
        """A tree of booleans like the parameters: which of them weight decay touches; neither norms nor biases."""
        return decayed(self.params)

    def bind(self, variables: Mapping[str, Any]) -> Network:
        """The network with its part of these variables; statistics are copied, since training writes to them."""
        params, batch_stats = (jax.tree.map(lambda leaf: leaf, state) for state in (self.params, self.batch_stats))
        nnx.replace_by_pure_dict(params, _part(variables["params"], params))
        nnx.replace_by_pure_dict(batch_stats, jax.tree.map(jnp.asarray, _part(variables["batch_stats"], batch_stats)))
        return nnx.merge(self.graph, params, batch_stats)


@functools.lru_cache(maxsize=32)
def skeleton(kind: type[Network], *widths: Any) -> Skeleton[Network]:
    """The structure of `kind(*widths)`, for which no memory is taken. `widths` must be hashable."""
    graph, *states = nnx.split(nnx.eval_shape(lambda: kind(*widths)), nnx.Param, nnx.BatchStat)
    return Skeleton(graph, states[0], states[1])


def moved(network: nnx.Module) -> dict[str, Any]:
    """The running statistics of a network that has seen a batch."""
    return nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))


def _part(tree: Mapping[str, Any], wanted: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): tree[str(name)] for name in wanted}
