"""Runs one sub-verb of `contrique-jax convert` as the command line would."""

from __future__ import annotations

from types import ModuleType

from contrique_jax.convert.__main__ import main
from contrique_jax.errors import run_verb


def run(module: ModuleType, *arguments, code: int = 0) -> None:
    name = module.__name__.rpartition(".")[2].replace("_", "-")
    assert run_verb(main, [name, *map(str, arguments)]) == code
