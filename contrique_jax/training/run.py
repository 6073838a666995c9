"""A training from its flags to the finished model: the processes agree, the folder is claimed, the loop runs."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from contrique_jax import signals
from contrique_jax.config import Config, check_accumulation, first_difference, to_json
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline, Tree
from contrique_jax.data.sources import CachedSource, Source, open_source
from contrique_jax.errors import UserError, disk_message
from contrique_jax.io.json_files import read_json
from contrique_jax.io.machine import free_memory, use_compilation_cache
from contrique_jax.io.outputs import atomic_write, only_writer
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.recipe import Variables
from contrique_jax.training import hosts, mesh
from contrique_jax.training.flags import Flags
from contrique_jax.training.loop import out_of_memory_said, total_steps, train
from contrique_jax.training.mesh import Runtime
from contrique_jax.training.warm_start import starting_weights
from contrique_jax.training.watch import Watchdog
from contrique_jax.training.workdir import Workdir

MOST_BYTES = 1 << 20  # of a config.json
KEPT_OF_WEIGHTS = 3  # themselves, their gradients and what the optimiser keeps


def start(flags: Flags) -> None:
    """Joins the other processes, trains, and says how it ended."""
    seconds = flags.config.train.wait_seconds
    hosts.join(flags.distributed, flags.coordinator, flags.processes, flags.process_id, seconds)
    with Watchdog(seconds) as watch:
        _train(flags, watch)


def _train(flags: Flags, watch: Watchdog) -> None:
    config, limit = flags.config, flags.config.train.wait_seconds
    use_compilation_cache()
    run = Workdir(flags.workdir)
    resumed, fault, prepared, start = False, None, None, None
    try:
        run.fetch()
        prepared = prepare(config, run.folder, flags.devices)
        start = None if run.has_checkpoint() else starting_weights(config)
    except UserError as error:
        fault = error
    same = _fingerprints(config, prepared[1], start) if prepared and not fault else None
    hosts.agree("the start", fault, limit, same=same)
    assert prepared is not None  # or agree has raised
    runtime, pipeline = prepared
    recipe = recipe_of(config)
    with ExitStack() as lock:
        if hosts.is_first():
            try:
                given = recipe.constants(config), _opinions(pipeline)
                resumed = claim_workdir(run.folder, config, pipeline.counts, run.name, *given)
                lock.enter_context(only_writer(run.folder))
                run.publish(required=True)
            except UserError as error:
                fault = error
        hosts.agree("the run's folder", fault, limit)
        pipeline.broken.write()  # what a recipe has read already
        steps = total_steps(config, pipeline.counts)
        resuming = resumed and run.has_checkpoint()  # not what ended before its first step
        doing = "already trained:" if run.has_model() else "resuming" if resuming else "training"
        sources = recipe.describe(config, pipeline.sources)
        announce(
            f"{doing} {config.model.encoder} in {run.name}: {sources}, "
            f"{config.data.batch_size} images a step, {steps} steps, {runtime.devices} device(s)"
        )
        try:
            with out_of_memory_said(config):
                state = train(config, run, runtime, pipeline, watch, start)
        finally:
            run.publish()  # also what a run measured before it failed
    if int(state.step) < steps:
        saved = f"and saved at step {int(state.step)} of {steps}; the same command goes on from there"
        announce(f"stopped {saved if int(state.step) else 'before the first step; the same command starts again'}")
        asked = signals.current()
        if asked and asked.first == signal.SIGINT:
            raise SystemExit(130)
        if flags.exit_code_if_unfinished:
            raise SystemExit(flags.exit_code_if_unfinished)
        return
    for source in pipeline.sources.values():
        left_out = getattr(source, "left_out", None)
        for sentence in left_out.sentences() if left_out else ():
            announce(f"warning: {sentence}")
    broken = run.broken_images() if hosts.is_first() else {}
    if broken:
        count = "1 broken image was" if len(broken) == 1 else f"{len(broken)} broken images were"
        announce(f"{count} skipped: {', '.join(f'{run.name}/{name}' for name in sorted(set(broken.values())))}")
    hosts.barrier("the model", limit)  # else nobody would hear that it could not be written
    announce(f"done: {run.name}/model")


def _opinions(pipeline: Pipeline) -> dict[str, str]:
    """What names the opinions of each source that has some."""
    named = {role: getattr(source, "opinions", None) for role, source in pipeline.sources.items()}
    return {role: name for role, name in named.items() if name}


def claim_workdir(
    workdir: Path,
    config: Config,
    images: dict[str, int],
    name: str = "",
    constants: Tree | None = None,
    opinions: dict[str, str] | None = None,
) -> bool:
    """Makes `workdir` this config's, and says whether it already was.

    `name`: what messages call it, if that is not its path. `images` counts those of each source: with other numbers the
    order of a resumed run would be another. `constants`: the recipe's, whose hash is kept. `opinions`: what names those of each
    source that has some. Raises UserError if the folder is
    another run's or cannot be written.
    """
    path, name = workdir / "config.json", name or str(workdir)
    record = json.loads(to_json(config)) | {"images": images}
    if constants:
        record["constants"] = {"hash": _digest(constants)}
    if opinions:
        record["opinions"] = opinions
    if path.exists():
        stored = stored_config(path, f"{name}/config.json")
        if "opinions" not in stored:  # which came later
            record.pop("opinions", None)
        difference = first_difference(record, stored, config)
        if difference:
            raise UserError(
                f"{name} holds another config's run (config.json: {difference}); take another --workdir or that config."
            )
        return True
    if (workdir / "checkpoints").exists():
        raise UserError(f"{name} holds checkpoints but no config.json; restore it or take another --workdir.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            disk_message(error, str(path)) or f"--workdir={workdir}: {error.strerror}; take another."
        ) from error
    return False


def stored_config(path: Path, name: str) -> dict[str, Any]:
    """What a run's config.json holds: parts of named fields, and the recipe's name. `name`: what messages call it. Raises
    UserError if it is none."""
    try:
        stored = read_json(path, MOST_BYTES)
        if not isinstance(stored, dict):
            raise ValueError("no table of fields")
        for part, fields in stored.items():
            kind = str if part == "recipe" else dict
            if not isinstance(fields, kind):
                raise ValueError(
                    f"{part!r} is {str(fields)[:40]!r} and no {'name' if kind is str else 'table of fields'}"
                )
    except (ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: not a run's config ({why}); restore it or take another --workdir.") from error
    return stored


def _fingerprints(config: Config, pipeline: Pipeline, start: Variables | None) -> dict[str, str]:
    """What all processes have to agree on before they train together, by name."""
    if not hosts.is_distributed():
        return {}
    found = {"config": hashlib.sha256(to_json(config).encode()).hexdigest()[:12]}
    for role, source in pipeline.sources.items():
        names = hashlib.sha256()
        for i in range(len(source)):
            names.update(f"{source.item_name(i)}\n".encode(errors="surrogateescape"))
        names.update(b"" if source.classes is None else source.classes.tobytes())
        found[f"config.data.{role}"] = f"{len(source)} images, {names.hexdigest()[:12]}"
    if start and config.train.init_from:
        found["config.train.init_from"] = _digest(start)
    if constants := recipe_of(config).constants(config):
        found["the recipe's constants"] = _digest(constants)
    return found


def _digest(tree: Tree) -> str:
    """Twelve hexadecimal digits that name a tree of arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def prepare(config: Config, workdir: Path, devices: int) -> tuple[Runtime, Pipeline]:
    """This process's part of the mesh and of the input. Raises UserError if a source or the devices do not fit."""
    recipe = recipe_of(config)
    runtime = mesh.start(config.data.batch_size, devices, recipe.rows_together)
    check_accumulation(config.train.accumulation, config.data.batch_size, runtime.devices, recipe.rows_together)
    sources: dict[str, Source] = {
        role: open_source(
            getattr(config.data, role),
            role=role,
            field=f"config.data.{role}",
            seed=config.train.seed,
            max_pixels=config.data.max_pixels,
            canvas=recipe.canvas(config),
        )
        for role in recipe.roles
    }
    rows = runtime.local_rows(config.data.batch_size)
    shapes = jax.tree.leaves(recipe.example_shapes(config, sources))
    needed = len(rows) // len(recipe.roles) * sum(math.prod(each.shape) * each.dtype.itemsize for each in shapes)
    free = free_memory()
    weights = 4 * sum(math.prod(each.shape) for each in jax.tree.leaves(recipe.variable_shapes(config)))
    if KEPT_OF_WEIGHTS * weights > free:
        raise UserError(
            f"config.model: {KEPT_OF_WEIGHTS} times its weights, which a step needs, are {KEPT_OF_WEIGHTS * weights / 1e9:.0f} "
            f"GB, and this machine has {free / 1e9:.0f} free; take a smaller network."
        )
    if needed > free:  # else XLA would end the process
        raise UserError(
            f"config.data.batch_size = {config.data.batch_size}: the images of one batch need {needed / 1e9:.0f} GB, and this "
            f"machine has {free / 1e9:.0f} free; lower it or the images' size."
        )
    kept = int(config.data.cache_gigabytes * 1e9)
    if kept:
        sources = {role: CachedSource(source, kept) for role, source in sources.items()}
    log = workdir / ("broken_images.txt" if hosts.is_first() else f"broken_images.{rows.start}.txt")
    return runtime, Pipeline(config, recipe, sources, rows=rows, broken=BrokenLog(log))


def announce(line: str) -> None:
    """A line on stderr, from one process."""
    if hosts.is_first():
        print(line, file=sys.stderr)
