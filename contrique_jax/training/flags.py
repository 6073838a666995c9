"""The command line of a training, which `plan` takes too."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from contrique_jax.config import Config
from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.recipes import RECIPES
from contrique_jax.training import hosts
from contrique_jax.training.config_files import with_paths

HELP = """
Flags:
  --config F.py[:VARIANT]    a config file with get_config(variant), or the name of one in `contrique-jax configs`
  --config.PART.FIELD=VALUE  changes one field, e.g. --config.data.batch_size=64; a field that does not exist is an error
  --workdir D                where everything is written; holds one run; a folder, or gs://BUCKET/RUN
  --devices N                use the first N devices (default: all)
  --distributed MODE         auto (default): joins the cluster that started this process, else trains alone; on; off
  --coordinator HOST:PORT    address of process 0, if no cluster manager provides it; with --processes N and --process_id I,
                             from 0 (or from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID)
  --exit_code_if_unfinished N  after SIGTERM, once all is saved: 0 by default; another one makes a cluster start it again
  --print_config             print the final config and leave
"""


class Flags(NamedTuple):
    """The command line, validated."""

    config: Config
    workdir: Path | str  # a str if it is an address
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

    values, line = flags.FlagValues(), ["contrique_jax.main", *with_paths(argv)]
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
        given = " ".join(str(error).split())
        sentence = _without_python(given)
        if sentence == given and not isinstance(error, flags.Error):
            file = next((word.partition("=")[2] for word in line if word.startswith("--config=")), "the config file")
            raise UserError(f"--config: {file} cannot be loaded: {given or type(error).__name__}.") from error
        raise UserError(f"command line: {sentence}; see `python -m contrique_jax.main --help`.") from error
    if len(rest) > 1:
        raise UserError(f"command line: {rest[1]!r} is no flag; see `python -m contrique_jax.main --help`.")
    if values.config is None:
        raise UserError(
            "--config is missing: name a config, e.g. --config contrique_resnet50.py:small; `contrique-jax configs` has all."
        )
    try:
        values.config.data  # noqa: B018 - a config file that failed to load says so at the first look into it
    except Exception as error:
        file = str(getattr(values["config"], "config_filename", "")).split(":")[0]
        why = " ".join(str(error).split()) if Path(file).exists() else "there is no such file"
        why = why.removeprefix("Configuration is not available because of an earlier failure to load: ")
        raise UserError(f"--config: {file} cannot be loaded: {why}.") from error
    if not isinstance(values.config, Config):
        raise UserError("--config: get_config() of that file must return a contrique_jax.config.Config.")
    if values.config.recipe not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise UserError(
            f"--config: there is no recipe {values.config.recipe!r}, which that file's is of; there is {known}."
        )
    if not values.workdir and not values.print_config:
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
    holders: dict[str, tuple[str, object]] = {}
    for config in (each() for each in (*Config.__subclasses__(), Config)):  # of whichever recipes are loaded
        holders |= {type(part).__name__: (f"config.{at}", part) for at, part in vars(config).items()}
        holders[type(config).__name__] = "config", config
    place, holder = holders.get(kind, ("config", Config()))
    near = difflib.get_close_matches(name, vars(holder), n=1, cutoff=0.0)[0]
    return f"{place} has no field {name!r}; the nearest name is {place}.{near}"
