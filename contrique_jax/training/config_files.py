"""The config files inside this package, which are those of the repository's configs/."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular

FOLDER = Path(__file__).parents[1] / "config_files"


def shipped() -> dict[str, Path]:
    """Name, e.g. `contrique_resnet50.py` -> file. Raises UserError if this installation lacks them."""
    found = {path.name: path for path in sorted(FOLDER.glob("*.py"))}
    if not found:
        raise UserError("configs: this installation lacks its config files; install contrique-jax again.")
    return found


def description(path: Path) -> str:
    """A config file's docstring, "" if it has none."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def by_name(name: str) -> str:
    """`F.py[:VARIANT]` as it is if F.py is there, else with the path of the one in this package, whether it is called
    `F.py`, `F` or `configs/F.py`. Raises UserError if a plain name is neither, and if F.py is no regular file."""
    file, colon, variant = name.partition(":")
    path = Path(file).expanduser()
    if path.exists() and not path.is_dir():
        try:
            open_regular(path).close()  # what loads it would wait for a pipe
        except OSError as error:
            raise UserError(f"--config: {file} cannot be read ({error.strerror}); name a config file.") from error
    if path.exists() or path.parent not in (Path(), Path("configs")):
        return name
    own = shipped()
    known = own.get(path.name) or own.get(f"{path.name}.py")
    if known is None:
        raise UserError(f"--config: there is no file {file}, and inside this package there are {', '.join(own)}.")
    return f"{known}{colon}{variant}"


def with_paths(argv: Sequence[str]) -> list[str]:
    """A command line whose --config is a path."""
    line = list(argv)
    for i, word in enumerate(line):
        flag, equals, value = word.partition("=")
        if flag not in ("--config", "-config"):
            continue
        if equals:
            line[i] = f"{flag}={by_name(value)}"
        elif i + 1 < len(line):
            line[i + 1] = by_name(line[i + 1])
    return line
