"""Trains an encoder: flags -> config -> runtime -> train. The same command again resumes.

Example:
  python -m contrique_jax.main --config configs/contrique_resnet50.py:small --workdir runs/first \\
      --config.data.pristine=~/photos/clean --config.data.authentic=~/photos/mine

Writes D/config.json, D/metrics.jsonl, D/tensorboard/, D/checkpoints/, D/broken_images.txt if there are any, and at the
end D/model/, a model folder that `contrique-jax features`, `evaluate` and `score` take.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from contrique_jax.config import Config, check_accumulation, first_difference, to_json
from contrique_jax.errors import UserError, disk_message, run_verb
from contrique_jax.io import buckets
from contrique_jax.io.outputs import atomic_write, only_writer
from contrique_jax.training import hosts
from contrique_jax.training.watch import Watchdog

if TYPE_CHECKING:
    from contrique_jax.data.pipeline import Pipeline
    from contrique_jax.networks.encoder import Variables
    from contrique_jax.training.mesh import Runtime

HELP = """
Flags:
  --config F.py[:VARIANT]    a config file with get_config(variant); configs/ has some
  --config.PART.FIELD=VALUE  changes one field, e.g. --config.data.batch_size=64; a field that does not exist is an error
  --workdir D                where everything is written; holds one run; a folder, or gs://BUCKET/RUN
  --devices N                use the first N devices (default: all)
  --distributed MODE         auto (default): joins the cluster that started this process, else trains alone; on; off
  --coordinator HOST:PORT    process 0, where no cluster tells; with --processes N and --process_id I, from 0 (or from
                             JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)
  --exit_code_if_unfinished N  after SIGTERM, once all is saved: 0 by default; another one makes a cluster start it again
  --print_config             print the final config and leave
"""


class Flags(NamedTuple):
    """The command line, validated."""

    config: Config
    workdir: Path | str  # a str where it is an address
    devices: int
    print_config: bool
    distributed: str
    coordinator: str
    processes: int
    process_id: int
    exit_code_if_unfinished: int


def parse_flags(argv: Sequence[str]) -> Flags:
    """Raises UserError naming what is off."""
    from absl import flags
    from ml_collections import config_flags

    values, line = flags.FlagValues(), ["contrique_jax.main", *argv]
    config_flags.DEFINE_config_file("config", None, "the config file", flag_values=values, sys_argv=line)
    flags.DEFINE_string("workdir", None, "where everything is written", flag_values=values)
    flags.DEFINE_integer("devices", 0, "devices to use, 0 for all", lower_bound=0, flag_values=values)
    coordinator, processes, process_id = hosts.environment()
    flags.DEFINE_enum("distributed", "auto", hosts.MODES, "whether to join other processes", flag_values=values)
    flags.DEFINE_string("coordinator", coordinator, "host:port of process 0", flag_values=values)
    flags.DEFINE_integer("processes", processes, "how many there are", flag_values=values)
    flags.DEFINE_integer("process_id", process_id, "which this is", flag_values=values)
    flags.DEFINE_integer(
        "exit_code_if_unfinished", 0, "after SIGTERM", lower_bound=0, upper_bound=125, flag_values=values
    )
    flags.DEFINE_bool("print_config", False, "print the final config and leave", flag_values=values)
    try:
        rest = values(line)
    except Exception as error:  # also whatever the config file raises
        if isinstance(error, UserError):
            raise
        sentence = _without_python(" ".join(str(error).split()))
        raise UserError(f"command line: {sentence}; see `python -m contrique_jax.main --help`.") from error
    if len(rest) > 1:
        raise UserError(f"command line: {rest[1]!r} is no flag; see `python -m contrique_jax.main --help`.")
    if values.config is None:
        raise UserError("--config is missing: name a config file, e.g. --config configs/contrique_resnet50.py:small.")
    try:
        values.config.data  # noqa: B018 - a config file that failed to load says so at the first look into it
    except Exception as error:
        file = str(getattr(values["config"], "config_filename", "")).split(":")[0]
        why = " ".join(str(error).split()) if Path(file).exists() else "there is no such file"
        raise UserError(f"--config: {file} cannot be loaded: {why}.") from error
    if not isinstance(values.config, Config):
        raise UserError("--config: get_config() of that file must return a contrique_jax.config.Config.")
    if values.workdir is None and not values.print_config:
        raise UserError("--workdir is missing: name a folder for the run, e.g. --workdir runs/first.")
    workdir: Path | str = Path(values.workdir or ".").expanduser()
    if buckets.is_address(values.workdir or ""):
        workdir = buckets.check_address(values.workdir, "--workdir")
    values.config.validate()
    return Flags(
        values.config, workdir, values.devices, values.print_config,
        values.distributed, values.coordinator, values.processes, values.process_id, values.exit_code_if_unfinished,
    )  # fmt: skip


def _without_python(sentence: str) -> str:
    """ml_collections' complaint about a field that does not exist, in words of the config."""
    found = re.search(r"Field (\w+) not found on dataclass <class '[\w.]*\.(\w+)'>", sentence)
    on_the_way = re.search(r"Attribute <class '[\w.]*\.(\w+)'>\.(\w+) does not exist", sentence)  # of a.b in config.a.b
    if found:
        name, kind = found.groups()
    elif on_the_way:
        kind, name = on_the_way.groups()
    else:
        return sentence
    holders = {"Config": "config"} | {type(part).__name__: f"config.{at}" for at, part in vars(Config()).items()}
    place = holders.get(kind, "config")
    holder = vars(Config()).get(place.removeprefix("config."), Config())
    near = difflib.get_close_matches(name, vars(holder), n=1, cutoff=0.0)[0]
    return f"{place} has no field {name!r}; the nearest name is {place}.{near}"


def claim_workdir(workdir: Path, config: Config, images: dict[str, int], name: str = "") -> bool:
    """Makes `workdir` this config's, and says whether it already was.

    `name`: what messages call it, where that is not its path. `images` counts those of each source: with other numbers the
    order of a resumed run would be another. Raises UserError where the folder is another run's or cannot be written.
    """
    path, name = workdir / "config.json", name or str(workdir)
    record = json.loads(to_json(config)) | {"images": images}
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            difference = first_difference(record, stored)
        except (ValueError, AttributeError, TypeError, OSError):
            raise UserError(
                f"{name}/config.json: not readable as a run's config; restore it or take another --workdir."
            ) from None
        if difference:
            raise UserError(f"{name} holds another config's run ({difference}); take another --workdir or that config.")
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


def main(argv: Sequence[str]) -> None:
    """Parses `argv`, trains, and leaves a model folder."""
    if any(flag in ("-h", "--help", "--helpfull", "-help") for flag in argv):
        print(__doc__ + HELP)
        return
    flags = parse_flags(argv)
    config = flags.config
    if flags.print_config:
        print(to_json(config), end="")
        return
    hosts.join(flags.distributed, flags.coordinator, flags.processes, flags.process_id, config.train.wait_seconds)
    with Watchdog(config.train.wait_seconds) as watch:
        _train(flags, watch)


def _train(flags: Flags, watch: Watchdog) -> None:
    # slow imports, after everything that can be refused without them
    from contrique_jax.io.machine import use_compilation_cache
    from contrique_jax.training.train import out_of_memory_said, total_steps, train
    from contrique_jax.training.warm_start import starting_weights
    from contrique_jax.training.workdir import Workdir

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
    images = {"pristine": len(pipeline.pristine), "authentic": len(pipeline.authentic)}
    with ExitStack() as lock:
        if hosts.is_first():
            try:
                resumed = claim_workdir(run.folder, config, images, run.name)
                lock.enter_context(only_writer(run.folder))
                run.publish(required=True)
            except UserError as error:
                fault = error
        hosts.agree("the run's folder", fault, limit)
        steps = total_steps(config, **images)
        doing = "already trained:" if (run.folder / "model").exists() else "resuming" if resumed else "training"
        kind = "ready distorted" if pipeline.ready else "pristine"
        announce(
            f"{doing} {config.model.encoder} in {run.name}: {images['pristine']} {kind} and {images['authentic']} authentic "
            f"images, {config.data.batch_size} images a step, {steps} steps, {runtime.devices} device(s)"
        )
        try:
            with out_of_memory_said(config):
                state = train(config, run, runtime, pipeline, watch, start)
        finally:
            run.publish()  # also what a run measured before it failed
    if int(state.step) < steps:
        announce(f"stopped and saved at step {int(state.step)} of {steps}; the same command goes on from there")
        if flags.exit_code_if_unfinished:
            raise SystemExit(flags.exit_code_if_unfinished)
        return
    broken = run.broken_images() if hosts.is_first() else {}
    if broken:
        count = "1 broken image was" if len(broken) == 1 else f"{len(broken)} broken images were"
        announce(f"{count} skipped: {', '.join(f'{run.name}/{name}' for name in sorted(set(broken.values())))}")
    hosts.barrier("the model", limit)  # else nobody would hear that it could not be written
    announce(f"done: {run.name}/model")


def _fingerprints(config: Config, pipeline: Pipeline, start: Variables | None) -> dict[str, str]:
    """What all processes have to agree on before they train together, by name."""
    if not hosts.is_distributed():
        return {}
    found = {"config": hashlib.sha256(to_json(config).encode()).hexdigest()[:12]}
    for role, source in (("pristine", pipeline.pristine), ("authentic", pipeline.authentic)):
        names = hashlib.sha256()
        for i in range(len(source)):
            names.update(f"{source.item_name(i)}\n".encode(errors="surrogateescape"))
        names.update(b"" if source.classes is None else source.classes.tobytes())
        found[f"config.data.{role}"] = f"{len(source)} images, {names.hexdigest()[:12]}"
    if start and config.train.init_from:
        from contrique_jax.networks.model_folder import content_hash

        found["config.train.init_from"] = content_hash(config.model, start)
    return found


def prepare(config: Config, workdir: Path, devices: int) -> tuple[Runtime, Pipeline]:
    """This process's part of the mesh and of the input. Raises UserError where a source or the devices do not fit."""
    from contrique_jax.data.pipeline import Pipeline
    from contrique_jax.data.rows import BrokenLog
    from contrique_jax.data.sources import CachedSource, open_source
    from contrique_jax.training import mesh as runtimes

    runtime = runtimes.start(config.data.batch_size, devices)
    check_accumulation(config.train.accumulation, config.data.batch_size, runtime.devices)
    sources = {
        role: open_source(
            getattr(config.data, role),
            role=role,
            field=f"config.data.{role}",
            seed=config.train.seed,
            max_pixels=config.data.max_pixels,
            canvas=(config.data.height, config.data.width),
        )
        for role in ("pristine", "authentic")
    }
    kept = int(config.data.cache_gigabytes * 1e9)
    if kept:
        sources = {role: CachedSource(source, kept) for role, source in sources.items()}
    rows = runtime.local_rows(config.data.batch_size)
    log = workdir / ("broken_images.txt" if hosts.is_first() else f"broken_images.{rows.start}.txt")
    return runtime, Pipeline(config.data, **sources, seed=config.train.seed, rows=rows, broken=BrokenLog(log))


def announce(line: str) -> None:
    """A line on stderr, from one process."""
    if hosts.is_first():
        print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_verb(main))
