"""A GRU over the vectors of a clip's frames, the mean of its states, and the projector that trains it (CONVIQT).

Outside this module there are nested dicts of float32 arrays, named as in the original: gru/weight_ih_l0 [inputs, 3 x hidden]
(gates r, z, n, as in torch), projector/0/weight; standard/ holds the mean and variance of each input where these are
standardised first.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.networks.encoder import Projector, Variables
from contrique_jax.networks.head import Standard
from contrique_jax.networks.layers import RUNNING, Statistics, like_torch, parameter
from contrique_jax.networks.pooling import normalise
from contrique_jax.networks.skeleton import moved, skeleton

EXACT = lax.Precision.HIGHEST


class Widths(NamedTuple):
    """Numbers in a frame's vector, in the state and in a projection; whether vectors are standardised first."""

    inputs: int
    hidden: int
    projections: int
    standardised: bool


class GRU(nnx.Module):
    """One layer from a state of zeros, torch's formula: n = tanh(W x + b + r (U h + c)), h' = (1 - z) n + z h."""

    def __init__(self, inputs: int, hidden: int):
        draw = functools.partial(like_torch, hidden)
        self.weight_ih_l0 = parameter((inputs, 3 * hidden), draw)
        self.weight_hh_l0 = parameter((hidden, 3 * hidden), draw)
        self.bias_ih_l0 = parameter((3 * hidden,), draw, decays=False)
        self.bias_hh_l0 = parameter((3 * hidden,), draw, decays=False)

    def __call__(self, x: Float[Array, "n t i"]) -> Float[Array, "n t h"]:
        """All states."""
        given = jnp.dot(x, self.weight_ih_l0[...], precision=EXACT) + self.bias_ih_l0[...]  # of all frames at once
        return _recurrent(given.swapaxes(0, 1), self.weight_hh_l0[...], self.bias_hh_l0[...]).swapaxes(0, 1)


@jax.custom_vjp
def _recurrent(
    given: Float[Array, "t n 3*h"], weight: Float[Array, "h 3*h"], bias: Float[Array, " 3*h"]
) -> Float[Array, "t n h"]:
    """All states, of what the gates get from the input.

    The gradient is written out, so that the weight's is one product over all frames: summed within the loop it would be
    exchanged between devices after every frame.
    """
    return _forward(given, weight, bias)[0]


def _forward(given: Array, weight: Array, bias: Array) -> tuple[Array, Any]:
    def step(h: Array, here: Array) -> tuple[Array, Any]:
        r_in, z_in, n_in = jnp.split(here, 3, axis=1)
        r_own, z_own, n_own = jnp.split(jnp.dot(h, weight, precision=EXACT) + bias, 3, axis=1)
        r, z = jax.nn.sigmoid(r_in + r_own), jax.nn.sigmoid(z_in + z_own)
        n = jnp.tanh(n_in + r * n_own)
        after = (1 - z) * n + z * h
        return after, (after, (h, r, z, n, n_own))

    states, gates = lax.scan(step, 0 * given[0, :, : len(weight)], given)[1]
    return states, (gates, weight)


def _backward(saved: Any, pulls: Float[Array, "t n h"]) -> tuple[Array, Array, Array]:
    gates, weight = saved

    def step(later: Array, here: Any) -> tuple[Array, tuple[Array, Array]]:
        pull, (h, r, z, n, n_own) = here
        pull = pull + later
        of_n = pull * (1 - z) * (1 - n * n)
        of_r, of_z = of_n * n_own * r * (1 - r), pull * (h - n) * z * (1 - z)
        of_own = jnp.concatenate([of_r, of_z, of_n * r], axis=1)
        return pull * z + jnp.dot(of_own, weight.T, precision=EXACT), (
            jnp.concatenate([of_r, of_z, of_n], axis=1),
            of_own,
        )

    _, (of_given, of_own) = lax.scan(step, jnp.zeros_like(pulls[0]), (pulls, gates), reverse=True)
    of_weight = jnp.einsum("tnh,tng->hg", gates[0], of_own, precision=EXACT)
    return of_given, of_weight, jnp.sum(of_own, (0, 1))


_recurrent.defvjp(_forward, _backward)


class ClipNetwork(nnx.Module):
    """Vectors of frames, standardised if that is asked for, GRU, mean state, L2 norm, projector."""

    def __init__(self, widths: Widths):
        if widths.standardised:
            self.standard = Standard(widths.inputs)
        self.standardised = widths.standardised
        self.gru = GRU(widths.inputs, widths.hidden)
        self.projector = Projector(widths.hidden, widths.projections, dtype=jnp.dtype("float32"))

    def features(
        self, x: Float[Array, "n t i"], lengths: Int[Array, " n"] | None, statistics: Statistics
    ) -> Float[Array, "n h"]:
        x = x.astype(jnp.float32)
        if self.standardised:
            one = Statistics(min(statistics.batches, 1), statistics.axis)  # all clips together
            x = self.standard(x.reshape(-1, x.shape[-1]), one).reshape(x.shape)
        states = self.gru(x)
        if lengths is None:
            return normalise(jnp.mean(states, axis=1))
        there = jnp.arange(x.shape[1]) < lengths[:, None]
        return normalise(jnp.mean(states, axis=1, where=there[:, :, None]))

    def projections(self, x: Float[Array, "n t i"], statistics: Statistics) -> Float[Array, "n p"]:
        return self.projector(self.features(x, None, statistics), statistics)


def project(
    widths: Widths, variables: Variables, vectors: Float[Array, "n v t i"], axis: str | None
) -> tuple[Float[Array, "n v p"], dict[str, Any]]:
    """Projections of each row's v clips, not yet normalised, and the moved running statistics: BatchNorm sees the rows' first
    clips by themselves, then their second ones. `axis`: inside a `shard_map`, the mesh axis over which rows are split."""
    network, (n, v) = skeleton(ClipNetwork, widths).bind(variables), vectors.shape[:2]
    z = network.projections(vectors.reshape(n * v, *vectors.shape[2:]), Statistics(v, axis))
    return z.reshape(n, v, -1), moved(network)


def features(
    widths: Widths, variables: Variables, vectors: Float[Array, "n t i"], lengths: Int[Array, " n"] | None = None
) -> Float[Array, "n h"]:
    """The mean state over each clip's first `lengths` frames (default: all t), L2-normalised."""
    return skeleton(ClipNetwork, widths).bind(variables).features(vectors, lengths, RUNNING)


def states(widths: Widths, variables: Variables, vectors: Float[Array, "n t i"]) -> Float[Array, "n t h"]:
    """The GRU's state after each frame, of vectors as they are."""
    return skeleton(ClipNetwork, widths).bind(variables).gru(vectors)
