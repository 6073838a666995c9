"""Rows of a csv file, one after the other, and one sentence for whatever keeps it from being read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.regular import open_regular


def csv_rows(path: Path | str, field: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not empty, the header first; `path` may be an address in a bucket.

    Raises UserError, naming `field`, if the file is missing, unreadable, not UTF-8 or not csv.
    """
    try:
        with _opened(path) as stream:
            reader = csv.reader(stream)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except FileNotFoundError as error:
        raise UserError(f"{field}: {path} does not exist.") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{field}: {path} cannot be read as a csv file in UTF-8 ({why}).") from error


def _opened(path: Path | str) -> TextIO:
    if not buckets.is_address(path):
        return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="")
    data = buckets.read(str(path))
    if data is None:
        raise FileNotFoundError(path)
    return io.StringIO(data.decode("utf-8-sig"), newline="")
