"""The gradient of a loss over the whole batch with the memory of a micro-batch: two passes and a cached gradient.

A contrastive loss compares every image with every other, so gradients of micro-batches' losses do not add up to its own.
As in GradCache (arXiv 2101.06983), the first pass computes all projections and keeps nothing else; the loss's gradient with
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

Projections = Float[Array, "v n p d"]


class Project(Protocol):
    """The network: parameters and views of some images -> their projections, moved running statistics."""

    def __call__(self, params: Any, views: Array, /, *, axis: str | None = None) -> tuple[Projections, Any]:
        """`axis`: inside a `shard_map`, the mesh axis over which the images are split."""


def value_and_gradient(
    project: Project,
    loss_of: Callable[[Projections], Float[Array, ""]],
    params: Any,
    views: Array,
    parts: int,
    *,
    mesh: Mesh,
    axis: str,
) -> tuple[Float[Array, ""], Any, Any]:
    """Loss, moved running statistics and gradient of a batch that goes through the network in `parts` micro-batches.

    Args:
      project: the network; a function of `params` and of the images alone.
      loss_of: the loss of all projections, in the order of the batch.
      params: what the gradient is with respect to.
      views: of the whole batch, [n, v, h, w, 3], synthetic and authentic images in turn; 2 x `parts` divides n.
      parts: 1 is one pass that keeps all activations.
      mesh, axis: the devices, and the axis of their mesh over which images are split.

    The running statistics returned are the mean over micro-batches of what each alone would have moved them to: one move a
    step, as without micro-batches.
    """
    if parts == 1:

        def whole(params: Any) -> tuple[Array, Any]:
            z, stats = project(params, views)
            return loss_of(z), stats

        (loss, stats), gradient = jax.value_and_grad(whole, has_aux=True)(params)
        return loss, stats, gradient

    numbers = jnp.arange(parts)
    _, (z, stats) = lax.scan(
        lambda _, number: (None, project(params, micro_batch(views, number, parts))), None, numbers
    )
    loss, pulls = jax.value_and_grad(lambda z: loss_of(_in_order(z)))(z)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(axis), P(None, None, axis)), out_specs=P())
    def pull_back(params: Any, views: Array, pulls: Array) -> Any:
        own = jax.tree.map(lambda leaf: lax.pcast(leaf, axis, to="varying"), params)  # or each part's would be summed

        def add(total: Any, part: tuple[Array, Array]) -> tuple[Any, None]:
            number, pull = part
            _, backward, _ = jax.vjp(
                lambda p: project(p, micro_batch(views, number, parts), axis=axis), own, has_aux=True
            )
            return jax.tree.map(jnp.add, total, backward(pull)[0]), None

        total, _ = lax.scan(add, jax.tree.map(jnp.zeros_like, own), (numbers, pulls))
        return lax.psum(total, axis)

    gradient = pull_back(params, views, pulls)
    return loss, jax.tree.map(lambda moved: jnp.mean(moved, 0), stats), gradient


def micro_batch(x: Array, number: Int[Array, ""] | int, parts: int) -> Array:
    """Every `parts`-th pair of rows, beginning with pair `number`.

    So each holds as many synthetic as authentic images and equal shares of every device's run of rows, and holds the same
    images at any number of devices.
    """
    pairs = x.reshape(-1, parts, 2, *x.shape[1:])
    return lax.dynamic_index_in_dim(pairs, number, axis=1, keepdims=False).reshape(-1, *x.shape[1:])


def _in_order(z: Float[Array, "parts v b p d"]) -> Projections:
    """Projections of all micro-batches in the order of the batch's rows."""
    parts, count, share, *rest = z.shape
    pairs = z.reshape(parts, count, share // 2, 2, *rest)
    return jnp.moveaxis(pairs, 0, 2).reshape(count, parts * share, *rest)
