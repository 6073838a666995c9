"""The gradient of a loss over the whole batch with the memory of a micro-batch: two passes and a cached gradient.

A contrastive loss compares every image with every other, so gradients of micro-batches' losses do not add up to its own.
As in GradCache (arXiv 2101.06983), the first pass computes all outputs and keeps nothing else; the loss's gradient with
respect to them is taken; the second pass goes through each micro-batch again and pulls its share of that gradient back to
the parameters. The sum is exactly the gradient of the loss of the network whose BatchNorm sees micro-batches. Each device
adds up what its own rows pull back; devices exchange gradients once, at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

Tree = Any


class Forward(Protocol):
    """The network: parameters and some rows -> their outputs, moved running statistics."""

    def __call__(self, params: Tree, rows: Tree, /, *, axis: str | None = None) -> tuple[Tree, Tree]:
        """`axis`: inside a `shard_map`, the mesh axis over which the rows are split."""


def value_and_gradient(
    forward: Forward,
    objective: Callable[[Tree], tuple[Float[Array, ""], Tree]],
    params: Tree,
    rows: Tree,
    parts: int,
    *,
    together: int,
    mesh: Mesh,
    axis: str,
) -> tuple[Float[Array, ""], Tree, Tree, Tree]:
    """Loss, what else the objective gives, moved running statistics, and the gradient of a batch in `parts` micro-batches.

    Args:
      forward: the network; a function of `params` and of the rows alone.
      objective: the loss of all outputs, in the order of the batch, and a tree of whatever comes with it.
      params: what the gradient is with respect to.
      rows: the whole batch, arrays [n, ...]; `together` x `parts` divides n.
      parts: 1 is one pass that keeps all activations.
      together: rows in a run that stay in one micro-batch.
      mesh, axis: the devices, and the axis of their mesh over which rows are split.

    The running statistics returned are the mean over micro-batches of what each alone would have moved them to: one move a
    step, as without micro-batches.
    """
    if parts == 1:

        def whole(params: Tree) -> tuple[Array, Tree]:
            outputs, moved = forward(params, rows)
            loss, more = objective(outputs)
            return loss, (more, moved)

        (loss, (more, moved)), gradient = jax.value_and_grad(whole, has_aux=True)(params)
        return loss, more, moved, gradient

    numbers = jnp.arange(parts)
    part = functools.partial(micro_batch, parts=parts, together=together)
    _, (outputs, moved) = lax.scan(lambda _, number: (None, forward(params, part(rows, number))), None, numbers)
    ordered = functools.partial(_in_order, together=together)
    (loss, more), pulls = jax.value_and_grad(lambda outputs: objective(ordered(outputs)), has_aux=True)(outputs)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(axis), P(None, axis)), out_specs=P())
    def pull_back(params: Tree, rows: Tree, pulls: Tree) -> Tree:
        own = jax.tree.map(lambda leaf: lax.pcast(leaf, axis, to="varying"), params)  # or each part's would be summed

        def add(total: Tree, each: tuple[Array, Tree]) -> tuple[Tree, None]:
            number, pull = each
            _, backward, _ = jax.vjp(lambda p: forward(p, part(rows, number), axis=axis), own, has_aux=True)
            return jax.tree.map(jnp.add, total, backward(pull)[0]), None

        total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, own), (numbers, pulls))
        return lax.psum(total, axis)

    gradient = pull_back(params, rows, pulls)
    return loss, more, jax.tree.map(lambda each: jnp.mean(each, 0), moved), gradient


def micro_batch(rows: Tree, number: Int[Array, ""] | int, *, parts: int, together: int) -> Tree:
    """Every `parts`-th run of `together` rows, beginning with run `number`.

    So each holds equal shares of every role and of every device's rows, and holds the same rows at any number of devices.
    """

    def taken(x: Array) -> Array:
        runs = x.reshape(-1, parts, together, *x.shape[1:])
        return lax.dynamic_index_in_dim(runs, number, axis=1, keepdims=False).reshape(-1, *x.shape[1:])

    return jax.tree.map(taken, rows)


def _in_order(outputs: Tree, *, together: int) -> Tree:
    """Outputs [parts, rows, ...] of all micro-batches -> in the order of the batch's rows."""

    def ordered(x: Array) -> Array:
        parts, share, *rest = x.shape
        runs = x.reshape(parts, share // together, together, *rest)
        return jnp.moveaxis(runs, 0, 1).reshape(parts * share, *rest)

    return jax.tree.map(ordered, outputs)
