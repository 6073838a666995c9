"""Machines that are not there: TPU slices for the compiler to compile for, with their published peaks, and fake devices."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from contrique_jax.errors import UserError
from contrique_jax.planning.hlo_text import Collective
from contrique_jax.training.mesh import DATA_AXIS, Runtime, check_divides

HOP_SECONDS = 1e-6  # delay of one link: an assumption, Google publishes none
EXAMPLE = "e.g. --topology v5e:4x4, v4:4x4x8 or cpu:8"


@dataclass(frozen=True)
class Chip:
    """A chip's published peaks, and the memory that the compiler lets a program have: a little less than the page says."""

    flops: float  # bfloat16 operations a second
    memory: float  # bytes
    memory_speed: float  # bytes a second
    link_speed: float  # bytes a second, one link, one way
    axes: int  # of the slice's grid
    ring: int  # an axis of a multiple of this many chips is closed to a ring, of a three-axis grid all or none
    most: int  # chips of the largest slice
    name: str  # as TPU_ACCELERATOR_TYPE has it; the number of cores follows
    cores: int
    page: str


# from the pages named; a link's speed is the chip's interconnect bandwidth of one direction over its links
CHIPS = {
    # 275 TFLOP/s, 1200 GB/s; links: arXiv 2304.01433, 6 of 50 GB/s
    "v4": Chip(275e12, 30.75 * 2**30, 1200e9, 50e9, 3, 4, 4096, "v4", 2, "https://docs.cloud.google.com/tpu/docs/v4"),
    # 197 TFLOP/s, 819 GB/s; 1600 Gbit/s (400 GB/s both directions) over 4 links
    "v5e": Chip(
        197e12, 15.75 * 2**30, 819e9, 50e9, 2, 16, 256, "v5litepod", 1, "https://docs.cloud.google.com/tpu/docs/v5e"
    ),
    # 459 TFLOP/s, 2765 GB/s; 1200 GB/s both directions over 6 links
    "v5p": Chip(
        459e12, 95.74 * 2**30, 2765e9, 100e9, 3, 4, 6144, "v5p", 2, "https://docs.cloud.google.com/tpu/docs/v5p"
    ),
    # 918 TFLOP/s, 1638 GB/s; 800 GB/s both directions over 4 links
    "v6e": Chip(
        918e12, 31.25 * 2**30, 1638e9, 100e9, 2, 16, 256, "v6e", 1, "https://docs.cloud.google.com/tpu/docs/v6e"
    ),
}


@dataclass(frozen=True)
class Topology:
    """Devices to compile for."""

    name: str
    chip: Chip | None  # None: fake devices of this machine, which have no peaks
    shape: tuple[int, ...]
    devices: tuple[Any, ...]

    def runtime(self, batch_size: int, count: int, together: int = 2) -> Runtime:
        """The mesh over the first `count` devices (0: all). Raises UserError if there are fewer or the batch does not
        divide, of which so many rows stay `together`."""
        count = count or len(self.devices)
        if count > len(self.devices):
            raise UserError(f"--devices={count}: {self.name} has only {len(self.devices)} devices; ask for fewer.")
        if self.chip and count < len(self.devices):
            raise UserError(
                f"--devices={count}: a step for {self.name} is compiled for all its chips; take a smaller slice."
            )
        check_divides(batch_size, count, together)
        return Runtime(Mesh(np.array(self.devices[:count]), (DATA_AXIS,), axis_types=(AxisType.Auto,)))

    def seconds(self, collective: Collective) -> tuple[float, float]:
        """(sending, waiting) of one exchange over all chips, after a torus model: jax-ml.github.io/scaling-book/sharding.

        An axis that is closed to a ring sends both ways at once. Sending is limited by a chip's links, waiting by the chips
        on the way. An all-reduce is a reduce-scatter and an all-gather.
        """
        if self.chip is None or math.prod(self.shape) == 1:
            return 0.0, 0.0
        closed = [length % self.chip.ring == 0 for length in self.shape]
        if self.chip.axes == 3:
            closed = [all(closed)] * 3
        links = sum(2 if ring else 1 for length, ring in zip(self.shape, closed, strict=True) if length > 1)
        hops = sum(length // 2 if ring else length - 1 for length, ring in zip(self.shape, closed, strict=True))
        rounds = 2 if collective.kind == "all-reduce" else 1
        share = 1 - 1 / len(self.devices)
        return rounds * collective.bytes * share / (links * self.chip.link_speed), rounds * hops * HOP_SECONDS


def open_topology(name: str) -> Topology:
    """`v5e:16x16` or `cpu:8` -> its devices. Comes before anything that starts jax's devices: it sets what they read.

    Raises UserError if there is no such topology or no compiler for it.
    """
    kind, _, size = name.partition(":")
    os.environ["JAX_PLATFORMS"] = "cpu"
    jax.config.update("jax_platforms", "cpu")  # jax has read its environment already
    if kind == "cpu":
        return _fake(name, size)
    chip = CHIPS.get(kind)
    if chip is None:
        raise UserError(f"--topology={name}: no such machine; there are {', '.join(CHIPS)} and cpu; {EXAMPLE}.")
    pattern = "x".join([r"[1-9]\d{0,3}"] * chip.axes)
    shape = tuple(map(int, size.split("x"))) if re.fullmatch(pattern, size) else ()
    if not shape or math.prod(shape) > chip.most:
        raise UserError(
            f"--topology={name}: a slice of {kind} has {chip.axes} axes and at most {chip.most} chips; "
            f"e.g. --topology {kind}:{'x'.join(['4'] * chip.axes)}."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology={name}: libtpu, which holds the compiler for TPUs, is not installed; "
            "pip install 'contrique-jax[plan]', or take --topology cpu:8."
        )
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server to ask what machine this is
    os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # its lock is for the chips, which a compilation leaves alone
    os.environ["TPU_ACCELERATOR_TYPE"] = f"{chip.name}-{math.prod(shape) * chip.cores}"
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if chip.cores == 2:
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device, as on Cloud TPU
    if math.prod(shape) < 4:
        options["chips_per_host_bounds"] = (*shape, *[1] * (3 - len(shape)))
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"--topology={name}: the compiler knows no such slice ({why}); {EXAMPLE}.") from error
    return Topology(name, chip, shape, tuple(devices))


def _fake(name: str, size: str) -> Topology:
    if not re.fullmatch(r"[1-9]\d{0,3}", size):
        raise UserError(f"--topology={name}: give the number of fake devices, 1 to 9999; {EXAMPLE}.")
    count = int(size)
    # read when jax's devices start; where they have, their number stays
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"--topology={name}: this process has started with {len(devices)} devices; ask for fewer.")
    return Topology(name, None, (count,), tuple(devices[:count]))
