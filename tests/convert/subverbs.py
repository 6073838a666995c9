"""Runs one sub-verb of `contrique-jax convert` as the command line would."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from contrique_jax.convert.__main__ import main
from contrique_jax.errors import run_verb


def run(subverb: ModuleType | Callable[..., None], *arguments, code: int = 0) -> None:
    name = subverb.__name__.rpartition(".")[2].replace("_", "-")
    assert run_verb(main, [name, *map(str, arguments)]) == code
