"""What a training step would cost on a machine that is not there: compiles the real step for it and reads the result.

Example:
  contrique-jax plan --config configs/contrique_resnet50.py --topology v5e:16x16 --config.data.batch_size=8192 \\
      --out plan.json

Prints whether the step fits in a chip's memory and by how much, its operations, bytes and collectives, and a roofline
estimate of its time from the chip's published peaks. Exit code 3 if it does not fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contrique_jax.config import Config
from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.planning.compiled_step import Compiled, compile_step, finished_in_step, purpose, step_seconds, times
from contrique_jax.planning.topology import Topology, open_topology
from contrique_jax.recipes import recipe_of
from contrique_jax.training.flags import parse_flags as training_flags
from contrique_jax.training.mesh import Runtime

MISFIT = 3  # the exit code
LARGE = 1_000_000  # bytes: collectives from here on are listed one by one
PAPER_IMAGES = 600_000  # of each source in an epoch
MOST_TRIES = 8  # compilations of the search for the largest batch


def as_record(config: Config, topology: Topology, runtime: Runtime, compiled: Compiled, images: int) -> dict[str, Any]:
    """What plan.json holds. Units: bytes, operations, seconds; null if it is not known."""
    parts = times(compiled, topology)
    seconds = step_seconds(parts) if parts else None
    steps = math.ceil(len(recipe_of(config).roles) * images / config.data.batch_size)
    return {
        "topology": topology.name,
        "devices": runtime.devices,
        "batch_size": config.data.batch_size,
        "accumulation": config.train.accumulation,
        "encoder": config.model.encoder,
        "view_size": getattr(config.data, "view_size", None),
        "augment_on": config.data.augment_on,
        "rows_finished_in_step": finished_in_step(config),
        "fits": compiled.fits,
        "bytes_per_chip": compiled.bytes_per_chip,
        "bytes_available": compiled.capacity,
        "bytes_by_purpose": compiled.parts or None,
        "flops_per_chip": compiled.flops or None,
        "float32_pass_flops_per_chip": compiled.passes if topology.chip and compiled.flops else None,
        "bytes_moved_per_chip": compiled.bytes_moved or None,
        "collectives": [{**dataclasses.asdict(one), "purpose": purpose(one)} for one in compiled.collectives],
        "loops_counted_once": compiled.unknown_loops,
        "step_seconds": seconds,
        "step_seconds_by_part": parts,
        "images_per_second": config.data.batch_size / seconds if seconds else None,
        "epoch_steps": steps,
        "epoch_hours": steps * seconds / 3600 if seconds else None,
        "epoch_chip_hours": steps * seconds * runtime.devices / 3600 if seconds else None,
        "compile_seconds": compiled.seconds,
    }


def report(record: dict[str, Any], images: int) -> str:
    """The record in words."""
    gap = record["bytes_available"] - record["bytes_per_chip"]
    lines = [
        f"{record['encoder']}, {record['batch_size']} images a step on {record['topology']}: {record['devices']} chip(s), "
        f"{record['batch_size'] / record['devices']:g} images each; compiled in {record['compile_seconds']:.0f} s",
        f"memory      {_size(record['bytes_per_chip'])} of {_size(record['bytes_available'])} a chip: "
        + (f"fits, {_size(gap)} left" if record["fits"] else f"does not fit, at least {_size(-gap)} too much"),
    ]
    if record["bytes_by_purpose"]:
        lines += [f"  {_size(size):>12}  {name}" for name, size in record["bytes_by_purpose"].items() if size]
    if record["flops_per_chip"]:
        passes = record["float32_pass_flops_per_chip"]
        more = f", {passes / 1e12:.3g} more where float32 products take several passes" if passes else ""
        lines += [
            f"arithmetic  {record['flops_per_chip'] / 1e12:.4g} TFLOP a chip{more}",
            f"traffic     {_size(record['bytes_moved_per_chip'])} a chip, to and from its main memory",
            *_collective_lines(record["collectives"]),
        ]
    if record["rows_finished_in_step"]:
        lines.append(
            "note        the clean photographs are distorted in the step; a manifest of distorted ones costs less"
        )
    if record["loops_counted_once"]:
        lines.append(f"note        {record['loops_counted_once']} loop(s) of unknown length are counted once")
    parts = record["step_seconds_by_part"]
    if parts:
        listed = ", ".join(f"{name.replace('_', ' ')} {1000 * value:.2f}" for name, value in parts.items())
        lines += [
            f"roofline    {1000 * record['step_seconds']:.1f} ms a step (ms: {listed})",
            f"            {record['images_per_second']:,.0f} images/s at the chip's peaks: a machine is slower",
            f"epoch       {images:,} images of each source: {record['epoch_steps']:,} steps, {record['epoch_hours']:.2g} h, "
            f"{record['epoch_chip_hours']:.3g} chip-hours",
        ]
    elif record["flops_per_chip"]:
        lines.append("roofline    none: these devices have no published peaks")
    return "\n".join(lines)


def _collective_lines(collectives: list[dict[str, Any]]) -> list[str]:
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for number, one in enumerate(collectives):
        alone = number if one["bytes"] >= LARGE else -1
        groups.setdefault((one["kind"], one["purpose"], alone), []).append(one)
    lines = [f"collectives {sum(one['times'] for one in collectives)} a step"]
    for (kind, what, _), members in sorted(groups.items(), key=lambda item: -sum(one["bytes"] for one in item[1])):
        count, size = sum(one["times"] for one in members), sum(one["bytes"] * one["times"] for one in members)
        lines.append(f"  {count:>4} x {kind:<18} {size / 1e6:>10.3f} MB  {what}")
    return lines


def misfit_advice(config: Config, compiled: Compiled, devices: int) -> str:
    """What to change, by the fields' names. Micro-batches share the memory, so as many as it is too small by, or more."""
    shares = config.data.batch_size // config.rows_together // devices
    least = config.train.accumulation * compiled.bytes_per_chip / compiled.capacity
    parts = next((n for n in range(math.ceil(least), shares + 1) if shares % n == 0), 0)
    keeps = [f"--config.train.accumulation={parts}"] if parts else []
    keeps += [] if config.train.remat else ["--config.train.remat=True"]
    keep = f", or keep it and try {' or '.join(keeps)}" if keeps else ""
    return f"does not fit: lower config.data.batch_size (now {config.data.batch_size}){keep}."


def largest_batch(compile_at: Callable[[int], Compiled], batch: int, first: Compiled, granule: int) -> tuple[int, int]:
    """(the largest batch found to fit, 0 if none does; compilations made, with the first).

    Args:
      compile_at: compiles the step for a batch.
      batch: what `first` was compiled for.
      granule: batches are multiples of it.

    Memory is close to linear in the batch, so a try is where the line through the last one meets the capacity; near it a
    compiler finds ways to need less, so what fits nevertheless is tried a quarter larger. It ends when a batch is known to fit
    and one that is 1/16 larger is known not to, or after MOST_TRIES.
    """
    fixed = sum(first.parts.get(name, 0) for name in ("parameters", "statistics and momentum", "program"))
    fit, misfit, seen = 0, math.inf, first
    for tries in range(1, MOST_TRIES + 1):
        fit, misfit = (batch, misfit) if seen.fits else (fit, batch)
        if misfit - fit <= max(granule, fit // 16) or tries == MOST_TRIES:
            break
        growth = 0.98 * (seen.capacity - fixed) / max(seen.bytes_per_chip - fixed, 1)
        batch = int(batch * growth) // granule * granule
        if not fit < batch < misfit:
            between = fit + fit // 4 if misfit == math.inf else (fit + int(misfit)) // 2
            batch = max(between // granule * granule, fit + granule)
        seen = compile_at(batch)
    return fit, tries


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def main(argv: Sequence[str]) -> None:
    """Compiles, prints, and writes plan.json. Exits with MISFIT if the step does not fit."""
    parser = Parser(
        prog="contrique-jax plan", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--config F.py[:VARIANT], --config.PART.FIELD=VALUE and --devices N are those of training.",
    )  # fmt: skip
    parser.add_argument(
        "--topology", required=True, help="v4:AxBxC, v5e:AxB, v5p:AxBxC, v6e:AxB, or cpu:N: N fake devices"
    )
    parser.add_argument("--out", help="F.json: the figures")
    parser.add_argument("--largest_batch", action="store_true", help="search for it; every try compiles")
    parser.add_argument(
        "--epoch_images",
        type=int,
        default=PAPER_IMAGES,
        help="images of each source in an epoch (default: %(default)s, as CONTRIQUE's paper has authentic ones)",
    )
    flags, rest = parser.parse_known_args(argv)
    out: Path | None = output_path("--out", flags.out, (".json",)) if flags.out else None
    training = training_flags([*rest, "--print_config"])
    config, images = training.config, flags.epoch_images
    share = config.data.batch_size // len(recipe_of(config).roles)
    if images < share:
        raise UserError(f"--epoch_images={images}: must fill a source's share of a batch, {share} images.")
    topology = open_topology(flags.topology)
    together = config.rows_together
    runtime = topology.runtime(config.data.batch_size, training.devices, together)
    compiled = compile_step(config, topology, runtime, images)
    record = as_record(config, topology, runtime, compiled, images)
    print(report(record, images), flush=True)
    if flags.largest_batch:

        def compile_at(batch: int) -> Compiled:
            print(f"trying {batch} images a step", file=sys.stderr)
            tried = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=batch))
            return compile_step(tried, topology, topology.runtime(batch, runtime.devices, together), images)

        granule = together * runtime.devices * config.train.accumulation
        record["largest_batch"], tries = largest_batch(compile_at, config.data.batch_size, compiled, granule)
        most = "more may, " if tries == MOST_TRIES else ""
        print(f"largest     {record['largest_batch']} images a step fit ({most}{tries} compilations)")
    if out:
        with atomic_write(out) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if not compiled.fits:
        print(f"error: {topology.name}: {misfit_advice(config, compiled, runtime.devices)}", file=sys.stderr)
        raise SystemExit(MISFIT)


if __name__ == "__main__":
    sys.exit(run_verb(main))
