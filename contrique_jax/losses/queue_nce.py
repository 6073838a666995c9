"""InfoNCE against a queue of earlier keys (MoCo, arXiv 1911.05722, equation 1), block by block.

With s_i = q_i.k_i / t for a query and its key and s_im = q_i.m / t for each row m of the queue, a query's loss is
log(exp(s_i) + sum_m exp(s_im)) - s_i. Keys have no gradient. Of the similarities one block of columns exists at a time,
forwards and backwards.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


def queue_nce(
    q: Float[Array, "n d"],
    k: Float[Array, "n d"],
    queue: Float[Array, "m d"],
    *,
    temperature: float,
    block_size: int,
    group: int = 1,
    everyone: bool = False,
    axis: str | None = None,
) -> Float[Array, ""]:
    """The mean over all queries, the same on every device.

    Args:
      q, k: queries and keys, float32, unit rows, of this device; row i of one belongs to row i of the other.
      queue: keys of earlier steps, the same on every device.
      temperature: divides the similarities, > 0.
      block_size: so many columns of the similarities are held at a time.
      group: rows come in groups of so many, and the keys of its group join a query's negatives; 1: none do.
      everyone: all other keys of all devices do.
      axis: inside a `shard_map`, the mesh axis over which rows are split, or None.
    """
    k = lax.stop_gradient(k)
    positive = jnp.sum(q * k, axis=1) / temperature
    total = _joined(positive, q, queue, temperature, block_size)
    if everyone:
        first = 0 if axis is None else lax.axis_index(axis) * len(q)
        keys = k if axis is None else lax.all_gather(k, axis, tiled=True)
        total = _joined(total, q, keys, temperature, block_size, first + jnp.arange(len(q)))
    elif group > 1:
        of_group = [x.reshape(-1, group, x.shape[1]) for x in (q, k)]
        s = jnp.einsum("gid,gjd->gij", *of_group, precision="highest") / temperature
        others = jax.nn.logsumexp(jnp.where(jnp.eye(group, dtype=bool), -jnp.inf, s), axis=2)
        total = jnp.logaddexp(total, others.reshape(-1))
    loss = jnp.mean(total - positive)
    if axis is None:
        return loss
    with jax.named_scope("loss: sums"):
        return lax.pmean(loss, axis)


def _joined(
    total: Float[Array, " n"],
    q: Float[Array, "n d"],
    columns: Float[Array, "m d"],
    temperature: float,
    block_size: int,
    without: Int[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """log(exp(total) + sum over columns of exp(q.column / temperature)); of each row one column may be left out."""
    count = len(columns)
    blocks = -(-count // block_size)
    size = -(-count // blocks)
    padded = jnp.pad(lax.stop_gradient(columns), ((0, blocks * size - count), (0, 0))).reshape(blocks, size, -1)

    @jax.checkpoint
    def add(total: Array, each: tuple[Array, Array]) -> tuple[Array, None]:
        number, block = each
        s = jnp.matmul(q, block.T, precision="highest") / temperature
        place = number * size + jnp.arange(size)
        counted = (place < count)[None, :]
        if without is not None:
            counted = counted & (place[None, :] != without[:, None])
        return jnp.logaddexp(total, jax.nn.logsumexp(jnp.where(counted, s, -jnp.inf), axis=1)), None

    return lax.scan(add, total, (jnp.arange(blocks), padded))[0]


def entered(queue: Float[Array, "m d"], pointer: Int[Array, ""], keys: Float[Array, "n d"]) -> tuple[Array, Array]:
    """The queue after `keys`, n <= m, have replaced its oldest rows, from row `pointer` on and round its end; and the pointer
    behind them."""
    places = (pointer + jnp.arange(len(keys))) % len(queue)
    return queue.at[places].set(keys, unique_indices=True), (pointer + len(keys)) % len(queue)
