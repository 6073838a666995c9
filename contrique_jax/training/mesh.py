"""Processes, mesh and shardings: the only file that knows how many devices there are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from contrique_jax.errors import UserError

DATA_AXIS = "data"


@dataclass(frozen=True)
class Runtime:
    """A mesh with one axis, over which the images of a global batch are split."""

    mesh: Mesh

    @property
    def replicated(self) -> NamedSharding:
        """Every device holds all of it: parameters, statistics, optimiser state."""
        return NamedSharding(self.mesh, P())

    @property
    def batch_sharded(self) -> NamedSharding:
        """[batch, ...]: the batch axis is split."""
        return NamedSharding(self.mesh, P(DATA_AXIS))

    @property
    def devices(self) -> int:
        return self.mesh.size

    def local_rows(self, batch_size: int) -> range:
        """The rows of the global batch that this process reads: a contiguous run, the same length on every process."""
        share = batch_size // jax.process_count()
        return range(jax.process_index() * share, (jax.process_index() + 1) * share)

    def place(self, batch: Any) -> Any:
        """This process's rows, a tree of arrays [rows, ...] -> the same tree of global arrays."""
        return jax.tree.map(functools.partial(jax.make_array_from_process_local_data, self.batch_sharded), batch)

    def replicate(self, tree: Any) -> Any:
        """Host or device arrays -> the same arrays on every device."""
        return jax.device_put(tree, self.replicated)


def check_divides(batch_size: int, devices: int, together: int = 2) -> None:
    """Raises UserError if the devices cannot get equal numbers of whole runs of `together` rows."""
    if batch_size % (together * devices):
        what = {1: "equal shares", 2: "pairs of a synthetic and an authentic image"}.get(
            together, f"runs of {together} rows"
        )
        raise UserError(
            f"config.data.batch_size = {batch_size}: {devices} devices do not divide it into {what}; "
            f"take a multiple of {together * devices}."
        )


def start(batch_size: int, devices: int = 0, together: int = 2) -> Runtime:
    """The runtime over `devices` devices (0: all of them).

    Raises UserError if there are fewer devices than asked for or if they do not divide the batch.
    """
    available = jax.devices()
    count = devices or len(available)
    if count > len(available):
        raise UserError(
            f"--devices={count}: only {len(available)} {available[0].platform} devices are here; ask for fewer."
        )
    if jax.process_count() > 1 and count < len(available):
        raise UserError(f"--devices={count}: several processes use all their {len(available)} devices; leave it out.")
    check_divides(batch_size, count, together)
    mesh = jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=available[:count])
    return Runtime(mesh)
