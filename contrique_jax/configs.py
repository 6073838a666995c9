"""The command `contrique-jax configs`: the config files inside this package, listed, or copied to be changed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.io.outputs import atomic_write
from contrique_jax.training.config_files import description, shipped


def main(argv: Sequence[str]) -> None:
    """Raises UserError for a name that is not there, a folder that cannot be written and a file that is there already."""
    parser = Parser(
        prog="contrique-jax configs",
        description="The config files inside this package, each with what it is for. `train --config NAME` takes them by "
        "name; a copy can be changed and named by its path.",
        epilog="Example: contrique-jax configs; contrique-jax configs contrique_resnet50.py --copy .; "
        "contrique-jax train --config contrique_resnet50.py:small --workdir runs/first",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--copy", metavar="DIR", help="copy them to this folder")
    flags = parser.parse_args(argv)
    known = shipped()
    names = [name if name in known else f"{name}.py" for name in flags.names]
    for given, name in zip(flags.names, names, strict=True):
        if name not in known:
            raise UserError(f"configs: there is no {given}; there are {', '.join(known)}.")
    chosen = {name: known[name] for name in names or known}
    if flags.copy is None:
        for name, path in chosen.items():
            text = description(path)
            print(text if flags.names else f"{name:<24}{text.partition(chr(10))[0]}")
        return
    folder = Path(flags.copy).expanduser()
    taken = [name for name in chosen if (folder / name).exists()]
    if taken:
        raise UserError(f"--copy: {folder / taken[0]} is there already; name another folder, or move it away.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in chosen.items():
            with atomic_write(folder / name) as temporary:
                shutil.copyfile(path, temporary)
            print(folder / name)
    except OSError as error:
        raise UserError(f"--copy: {folder} cannot be written to ({error.strerror}); name another folder.") from error


if __name__ == "__main__":
    sys.exit(run_verb(main))
