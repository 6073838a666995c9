"""The log-denominators of NT-Xent, tile by tile: the one part of the loss that needs every pair of projections.

With s_ik = z_i.z_k / temperature, anchor i has l_i = log sum_{k != i} exp(s_ik). A running log-sum-exp goes over tiles of
the similarity matrix; of a tile nothing but its sums is kept. s is symmetric, so the gradient of sum_i g_i l_i is one
weighted sum of projections an anchor,

    dz_j = sum_{k != j} (g_j exp(s_jk - l_j) + g_k exp(s_jk - l_k)) z_k / temperature,

for which a device needs its own rows, all projections and all l and g: one pass over recomputed tiles, and no gradient has
to travel between devices. A device that holds every row computes each tile once for the two places it has in the matrix.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Tile = Int[Array, "2"]  # number of its block of rows, number of its block of columns


class _Grid(NamedTuple):
    """How rows x total pairs are cut into tiles; all static."""

    rows: int  # anchors of this device
    total: int  # anchors of all devices
    row_block: int
    column_block: int
    symmetric: bool  # the rows are all there are: tiles below the diagonal are left out

    @classmethod
    def of(cls, rows: int, total: int, block_size: int) -> _Grid:
        return cls(rows, total, _even_block(rows, block_size), _even_block(total, block_size), rows == total)

    def tiles(self) -> Int[Array, "t 2"]:
        every = np.ones((-(-self.rows // self.row_block), -(-self.total // self.column_block)), bool)
        return jnp.asarray(np.argwhere(np.triu(every) if self.symmetric else every), jnp.int32)

    def pad_rows(self, x: Float[Array, "n *d"], value: float = 0.0) -> Float[Array, "m *d"]:
        return _padded(x, self.row_block, value)

    def pad_columns(self, x: Float[Array, "total *d"], value: float = 0.0) -> Float[Array, "m *d"]:
        return _padded(x, self.column_block, value)

    def counted(self, tile: Tile, first: Int[Array, ""] | int) -> Bool[Array, "r c"]:
        """False if an anchor meets itself or padding. `first` is the place of this device's first row among all."""
        row = first + tile[0] * self.row_block + jnp.arange(self.row_block)
        column = tile[1] * self.column_block + jnp.arange(self.column_block)
        return (row[:, None] != column[None, :]) & (column[None, :] < self.total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def log_denominators(
    z: Float[Array, "n d"], temperature: float, block_size: int, axis: str | None
) -> Float[Array, " n"]:
    """log sum_{k != i} exp(z_i.z_k / temperature) of this device's rows i, over the rows k of all devices.

    Args:
      z: projections, float32, of this device; inside a `shard_map` if `axis` is given. At least two rows in all.
      temperature: divides the similarities, > 0.
      block_size: the similarity matrix exists in tiles of at most block_size x block_size, forward and backward.
      axis: name of the mesh axis over which rows are split, or None.

    The gradient is exact for any weights of the rows, and computed by tiles as well: memory O(total d + block_size^2).
    """
    return _forward(z, temperature, block_size, axis)[0]


def _forward(
    z: Array, temperature: float, block_size: int, axis: str | None
) -> tuple[Float[Array, " n"], tuple[Array, Array, Array]]:
    everyone = _gathered(z, axis, "projections")
    grid, first = _Grid.of(len(z), len(everyone), block_size), _first_row(z, axis)
    rows, columns = grid.pad_rows(z), grid.pad_columns(everyone)

    def add_tile(running: Array, tile: Tile) -> tuple[Array, None]:
        s = _similarities(rows, columns, tile, grid, temperature)
        s = jnp.where(grid.counted(tile, first), s, -jnp.inf)
        running = _join(running, jax.nn.logsumexp(s, axis=1), tile[0])
        if grid.symmetric:
            below = jnp.where(tile[0] == tile[1], -jnp.inf, jax.nn.logsumexp(s, axis=0))
            running = _join(running, below, tile[1])
        return running, None

    result, _ = lax.scan(add_tile, jnp.full_like(rows[:, 0], -jnp.inf), grid.tiles())
    return result[: len(z)], (z, everyone, result[: len(z)])


def _backward(
    temperature: float, block_size: int, axis: str | None, saved: tuple[Array, Array, Array], weights: Array
) -> tuple[Float[Array, "n d"]]:
    z, everyone, own = saved
    grid, first = _Grid.of(len(z), len(everyone), block_size), _first_row(z, axis)
    rows, columns = grid.pad_rows(z), grid.pad_columns(everyone)
    # exp(s - inf) is 0: padding weighs nothing
    row_logs, row_weights = grid.pad_rows(own, jnp.inf), grid.pad_rows(weights)
    column_logs = grid.pad_columns(_gathered(own, axis, "denominators"), jnp.inf)
    column_weights = grid.pad_columns(_gathered(weights, axis, "denominators"))
    # the lower half is summed transposed: a product with the transpose of a tile is slow on CPU
    transposed = rows.T

    def add_tile(sums: tuple[Array, Array | None], tile: Tile) -> tuple[tuple[Array, Array | None], None]:
        upper, lower = sums
        of_row = functools.partial(_block, number=tile[0], size=grid.row_block)
        of_column = functools.partial(_block, number=tile[1], size=grid.column_block)
        s = _similarities(rows, columns, tile, grid, temperature)
        pull = of_row(row_weights)[:, None] * jnp.exp(s - of_row(row_logs)[:, None])
        pull += of_column(column_weights)[None, :] * jnp.exp(s - of_column(column_logs)[None, :])
        pull = jnp.where(grid.counted(tile, first), pull, 0.0)
        upper = _add(upper, jnp.matmul(pull, of_column(columns), precision="highest"), tile[0])
        if lower is not None:
            mirrored = jnp.where(tile[0] == tile[1], 0.0, pull)
            lower = _add(lower, jnp.matmul(of_row(transposed, axis=1), mirrored, precision="highest"), tile[1], axis=1)
        return (upper, lower), None

    start = jnp.zeros_like(rows), jnp.zeros_like(transposed) if grid.symmetric else None
    (upper, lower), _ = lax.scan(add_tile, start, grid.tiles())
    gradient = upper if lower is None else upper + lower.T
    return (gradient[: len(z)] / temperature,)


log_denominators.defvjp(_forward, _backward)


def _even_block(length: int, block_size: int) -> int:
    """The block that cuts `length` into as few blocks as `block_size` allows, with the least padding."""
    return -(-length // -(-length // block_size))


def _padded(x: Array, block: int, value: float) -> Array:
    return jnp.pad(x, [(0, -len(x) % block)] + [(0, 0)] * (x.ndim - 1), constant_values=value)


def _gathered(x: Array, axis: str | None, what: str) -> Array:
    if axis is None:
        return x
    with jax.named_scope(f"loss: {what}"):
        return lax.all_gather(x, axis, tiled=True)


def _first_row(z: Array, axis: str | None) -> Int[Array, ""] | int:
    return 0 if axis is None else lax.axis_index(axis) * len(z)


def _block(x: Array, number: Int[Array, ""], size: int, axis: int = 0) -> Array:
    return lax.dynamic_slice_in_dim(x, number * size, size, axis)


def _similarities(rows: Array, columns: Array, tile: Tile, grid: _Grid, temperature: float) -> Float[Array, "r c"]:
    anchors, others = _block(rows, tile[0], grid.row_block), _block(columns, tile[1], grid.column_block)
    return jnp.matmul(anchors, others.T, precision="highest") / temperature


def _join(running: Array, part: Array, number: Int[Array, ""]) -> Array:
    """`running` with block `number` joined with a further part of its sums of exponentials."""
    joined = jnp.logaddexp(_block(running, number, len(part)), part)
    return lax.dynamic_update_slice_in_dim(running, joined, number * len(part), 0)


def _add(total: Array, part: Array, number: Int[Array, ""], axis: int = 0) -> Array:
    size = part.shape[axis]
    return lax.dynamic_update_slice_in_dim(total, _block(total, number, size, axis) + part, number * size, axis)
