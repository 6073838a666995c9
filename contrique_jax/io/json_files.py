"""JSON that comes from others, read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from contrique_jax.io.regular import open_regular


def read_json(path: Path, most_bytes: int) -> Any:
    """What a JSON file holds. Raises OSError if it cannot be read, and ValueError, in words, if it is larger than
    `most_bytes`, no JSON in UTF-8, holds NaN or infinity, names a field twice or is nested too deeply."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(f"larger than {most_bytes >> 20} MiB")
        text = file.read().decode("utf-8-sig")
    try:
        return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")
