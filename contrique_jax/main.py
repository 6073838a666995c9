"""Trains an encoder: flags -> config -> runtime -> train. The same command again resumes.

Example:
  python -m contrique_jax.main --config contrique_resnet50.py:small --workdir runs/first \\
      --config.data.pristine=~/photos/clean --config.data.authentic=~/photos/mine

Writes D/config.json, D/metrics.jsonl, D/tensorboard/, D/checkpoints/, D/broken_images.txt if there are any, and at the
end D/model/, a model folder that `contrique-jax features`, `evaluate` and `score` take.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from contrique_jax.config import to_json
from contrique_jax.errors import run_verb
from contrique_jax.training.flags import HELP, parse_flags


def main(argv: Sequence[str]) -> None:
    """Parses `argv`, trains, and leaves a model folder."""
    if any(flag in ("-h", "--help", "--helpfull", "-help") for flag in argv):
        print(__doc__ + HELP)
        return
    flags = parse_flags(argv)
    if flags.print_config:
        print(to_json(flags.config), end="")
        return
    from contrique_jax.training.run import start  # slow to import, after everything that can be refused without it

    start(flags)


if __name__ == "__main__":
    sys.exit(run_verb(main))
