"""The training step as the compiler sees it: what it holds, moves and exchanges, and how long that takes at the peaks."""

from __future__ import annotations

import functools
import math
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from contrique_jax.config import Config
from contrique_jax.planning.hlo_text import Collective, Module
from contrique_jax.planning.topology import Topology
from contrique_jax.recipes import recipe_of
from contrique_jax.training.loop import total_steps
from contrique_jax.training.mesh import Runtime
from contrique_jax.training.step import init_state, make_step

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one device's share of a step. Where the step does not fit, only the bytes are known."""

    fits: bool
    bytes_per_chip: int  # if it does not fit, at least
    capacity: int  # bytes a program may use; of fake devices, this machine's memory over their number
    seconds: float  # it took to compile
    parts: dict[str, int] = field(default_factory=dict)  # bytes_per_chip by purpose
    flops: int = 0
    passes: int = 0  # operations that float32 products add on a matrix unit made for bfloat16
    bytes_moved: int = 0  # to and from the main memory
    collectives: tuple[Collective, ...] = ()
    unknown_loops: int = 0


def compile_step(config: Config, topology: Topology, runtime: Runtime, images: int) -> Compiled:
    """Compiles the training step for the runtime's devices; no array is made."""
    steps = total_steps(config, dict.fromkeys(recipe_of(config).roles, images))
    state = jax.eval_shape(lambda: init_state(config, steps))
    batch = batch_shapes(config)
    capacity = round(topology.chip.memory) if topology.chip else _machine_memory() // runtime.devices
    lowered = make_step(config, runtime, steps).lower(state, batch)
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = refusal(str(error))
        if needed is None:
            raise
        asked, capacity = needed
        return Compiled(False, asked, capacity, time.monotonic() - start)
    seconds = time.monotonic() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    assert memory and cost and text, "this compiler tells nothing of what it compiled"
    module = Module(text)
    held = _tree_bytes(state)
    parts = {
        "parameters": _tree_bytes(state.params),
        "statistics and momentum": held - _tree_bytes(state.params),
        "batch": memory.argument_size_in_bytes - held,
        "activations and workspace": memory.temp_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    total = sum(parts.values())
    return Compiled(
        topology.chip is not None or total <= capacity,  # the compiler for TPUs refuses what does not fit
        total,
        capacity,
        seconds,
        parts,
        flops=int(cost["flops"]) + module.repeated_flops(),
        passes=module.further_passes(),
        bytes_moved=module.main_memory_bytes(),
        collectives=tuple(module.collectives()),
        unknown_loops=module.unknown_loops,
    )


def batch_shapes(config: Config) -> Any:
    """The shapes of what the pipeline hands to the step."""
    recipe, data = recipe_of(config), config.data
    share = data.batch_size // len(recipe.roles)

    def rows(leaf: jax.ShapeDtypeStruct, count: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)

    examples = recipe.example_shapes(config)
    if data.augment_on == "device":
        return jax.tree.map(lambda leaf: rows(leaf, share), examples)
    row = jax.eval_shape(functools.partial(recipe.finish_row, config, 0), examples[0])
    return jax.tree.map(lambda leaf: rows(leaf, data.batch_size), row)


def finished_in_step(config: Config) -> bool:
    """Whether the step makes its rows of what the pipeline hands it, and not the pipeline."""
    recipe = recipe_of(config)
    example = recipe.example_shapes(config)[0]
    row = jax.eval_shape(functools.partial(recipe.finish_row, config, 0), example)
    same = [(x.shape, x.dtype) for x in jax.tree.leaves(row)] == [(x.shape, x.dtype) for x in jax.tree.leaves(example)]
    return config.data.augment_on == "device" and not same


def times(compiled: Compiled, topology: Topology) -> dict[str, float] | None:
    """The parts of a step's time [s] at the chip's peaks, or None if there are no peaks."""
    if topology.chip is None or not compiled.flops:
        return None
    exchanges = [(topology.seconds(one), one.times) for one in compiled.collectives]
    return {
        "arithmetic": (compiled.flops + compiled.passes) / topology.chip.flops,
        "memory": compiled.bytes_moved / topology.chip.memory_speed,
        "exchange_bytes": sum(sending * count for (sending, _), count in exchanges),
        "exchange_delay": sum(waiting * count for (_, waiting), count in exchanges),
    }


def step_seconds(parts: dict[str, float]) -> float:
    """Arithmetic and memory traffic overlap, exchanges overlap with nothing: BatchNorm waits for each of them."""
    return max(parts["arithmetic"], parts["memory"]) + parts["exchange_bytes"] + parts["exchange_delay"]


def purpose(collective: Collective) -> str:
    """Which part of the step exchanges, by the scopes in the compiled text and the largest array.

    The compiler joins exchanges, and then names all of them, with colons between: what most of them are for is said.
    """
    joined = re.split(r":(?! )", collective.source)
    of_loss = [part for part in joined if "objective" in part]
    if 2 * len(of_loss) >= len(joined):
        scopes = re.findall(r"loss: [a-z ]+", of_loss[-1])
        return str(scopes[-1]) if scopes else "loss"
    largest = collective.largest
    if len(largest) > 2 or (len(largest) == 2 and largest[0] > 2):  # BatchNorm's are [views, channels]
        return "gradients"
    return "BatchNorm, backwards" if "transpose" in collective.source else "BatchNorm statistics"


def refusal(message: str) -> tuple[int, int] | None:
    """(bytes asked for, bytes there are) of a compiler's refusal, or None if it refused for another reason."""
    number = r"([\d.]+)([KMGT]?)"
    for pattern in (
        rf"Used {number} of {number} hbm",
        rf"HLO temporaries \({number}\) exceeds available HBM \({number}\)",
    ):
        found = re.search(pattern, message)
        if found:
            asked, there = ((float(found.group(i)) * UNITS[found.group(i + 1)]) for i in (1, 3))
            return round(asked), round(there)
    return None


def _tree_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
