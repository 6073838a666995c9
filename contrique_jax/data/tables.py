"""Rows of a csv file, one after the other, and one sentence for whatever keeps it from being read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from contrique_jax.errors import UserError


def csv_rows(path: Path, field: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not empty, the header first.

    Raises UserError, naming `field`, where the file is missing, unreadable, not UTF-8 or not csv.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except FileNotFoundError as error:
        raise UserError(f"{field}: {path} does not exist.") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{field}: {path} cannot be read as a csv file in UTF-8 ({error}).") from error
