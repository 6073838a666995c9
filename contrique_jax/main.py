"""Trains an encoder: flags -> config -> runtime -> train. The same command again resumes.

Example:
  python -m contrique_jax.main --config configs/contrique_resnet50.py:small --workdir runs/first \\
      --config.data.pristine=~/photos/clean --config.data.authentic=~/photos/mine

Writes D/config.json, D/metrics.jsonl, D/tensorboard/, D/checkpoints/, D/broken_images.txt if there are any, and at the
end D/model/, a model folder that `contrique-jax features`, `evaluate` and `score` take.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from contrique_jax.config import Config, first_difference, to_json
from contrique_jax.errors import UserError, disk_message, run_verb
from contrique_jax.outputs import only_writer, whole_file

HELP = """
Flags:
  --config F.py[:VARIANT]    a config file with get_config(variant); configs/ has some
  --config.PART.FIELD=VALUE  changes one field, e.g. --config.data.batch_size=64; a field that does not exist is an error
  --workdir D                where everything is written; holds one run
  --devices N                use the first N devices (default: all)
  --print_config             print the final config and leave
"""


def parse_flags(argv: Sequence[str]) -> tuple[Config, Path, int, bool]:
    """Command line -> (validated config, workdir, devices, print_config). Raises UserError naming what is off."""
    from absl import flags
    from ml_collections import config_flags

    values, line = flags.FlagValues(), ["contrique_jax.main", *argv]
    config_flags.DEFINE_config_file("config", None, "the config file", flag_values=values, sys_argv=line)
    flags.DEFINE_string("workdir", None, "where everything is written", flag_values=values)
    flags.DEFINE_integer("devices", 0, "devices to use, 0 for all", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("print_config", False, "print the final config and leave", flag_values=values)
    try:
        rest = values(line)
    except Exception as error:  # also whatever the config file raises
        if isinstance(error, UserError):
            raise
        sentence = " ".join(str(error).split())
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
    values.config.validate()
    return values.config, Path(values.workdir or ".").expanduser(), values.devices, values.print_config


def claim_workdir(workdir: Path, config: Config, images: dict[str, int]) -> bool:
    """Makes `workdir` this config's, and says whether it already was.

    `images` counts those of each source: with other numbers the order of a resumed run would be another. Raises UserError
    where the folder is another run's or cannot be written.
    """
    path = workdir / "config.json"
    record = json.loads(to_json(config)) | {"images": images}
    if path.exists():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            difference = first_difference(record, stored)
        except (ValueError, AttributeError, TypeError, OSError):
            raise UserError(f"{path}: not readable as a run's config; restore it or take another --workdir.") from None
        if difference:
            raise UserError(
                f"{workdir} holds another config's run ({difference}); take another --workdir or that config."
            )
        return True
    if (workdir / "checkpoints").exists():
        raise UserError(f"{workdir} holds checkpoints but no config.json; restore it or take another --workdir.")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as beside:
            beside.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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
    config, workdir, devices, print_config = parse_flags(argv)
    if print_config:
        print(to_json(config), end="")
        return
    # slow imports, after everything that can be refused without them
    from contrique_jax import runtime as runtimes
    from contrique_jax.data.pipeline import Pipeline
    from contrique_jax.data.rows import BrokenLog
    from contrique_jax.data.sources import open_source
    from contrique_jax.train import total_steps, train

    runtime = runtimes.start(config.data.batch_size, devices)
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
    pipeline = Pipeline(
        config.data,
        **sources,
        seed=config.train.seed,
        rows=runtime.local_rows(config.data.batch_size),
        broken=BrokenLog(workdir / "broken_images.txt"),
    )
    resumed = claim_workdir(workdir, config, {role: len(source) for role, source in sources.items()})
    steps = total_steps(config, len(sources["pristine"]), len(sources["authentic"]))
    kind = "ready distorted" if pipeline.ready else "pristine"
    print(
        f"{'resuming' if resumed else 'training'} {config.model.encoder} in {workdir}: {len(sources['pristine'])} {kind} and "
        f"{len(sources['authentic'])} authentic images, {config.data.batch_size} images a step, {steps} steps, "
        f"{runtime.devices} device(s)",
        file=sys.stderr,
    )
    with only_writer(workdir):
        state = train(config, workdir, runtime, pipeline)
    if int(state.step) < steps:
        print(
            f"stopped and saved at step {int(state.step)} of {steps}; the same command goes on from there",
            file=sys.stderr,
        )
        return
    if pipeline.broken.count:
        print(f"{pipeline.broken.count} broken images were skipped: {workdir / 'broken_images.txt'}", file=sys.stderr)
    print(f"done: {workdir / 'model'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_verb(main))
