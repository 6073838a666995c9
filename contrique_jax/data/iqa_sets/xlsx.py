"""Cells of an Excel workbook (.xlsx, Office Open XML): text, and numbers as text. Nothing else of the format is read.

Two data sets give their scores in this format alone, and reading cells takes less than a dependency would.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from contrique_jax.errors import UserError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_LINK = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
MOST_BYTES = 1 << 23  # of a part; SPAQ's sheet has 3 MB
MOST_COLUMNS = 16_384  # which Excel has
_CELL = re.compile(r"([A-Z]+)[0-9]+")


def sheet_rows(path: Path, sheet: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """(row number, cells) of every row of `sheet` (None: the first one) that holds something; empty cells are "".

    Raises UserError if the file is no workbook or has no such sheet.
    """
    try:
        with zipfile.ZipFile(path) as book:
            strings = _shared_strings(book)
            sheets = _sheets(book)
            if sheet is not None and sheet not in sheets:
                raise UserError(f"{path}: there is no sheet {sheet!r} (sheets found: {', '.join(sheets)}).")
            part = sheets[sheet] if sheet is not None else next(iter(sheets.values()))
            rows = _parsed(book, part).iter(f"{_MAIN}row")
            found = [(int(row.get("r", i)), _cells(row, strings)) for i, row in enumerate(rows, 1)]
    except UserError:
        raise
    except Exception as error:  # damaged archives and documents raise nearly anything
        raise UserError(f"{path} cannot be read as an Excel workbook ({error}); unpack it again.") from error
    yield from (row for row in found if any(row[1]))


def _parsed(book: zipfile.ZipFile, part: str) -> ElementTree.Element:
    """Raises ValueError for a part that would unpack to more than MOST_BYTES."""
    if book.getinfo(part).file_size > MOST_BYTES:
        raise ValueError(f"{part} holds more than {MOST_BYTES >> 20} MiB")
    return ElementTree.fromstring(book.read(part))


def _shared_strings(book: zipfile.ZipFile) -> list[str]:
    name = "xl/sharedStrings.xml"
    if name not in book.namelist():
        return []
    root = _parsed(book, name)
    return ["".join(text.text or "" for text in item.iter(f"{_MAIN}t")) for item in root.iter(f"{_MAIN}si")]


def _sheets(book: zipfile.ZipFile) -> dict[str, str]:
    """Sheet name -> the part of the archive that holds it, in the workbook's order."""
    links = _parsed(book, "xl/_rels/workbook.xml.rels")
    targets = {link.get("Id"): link.get("Target", "") for link in links}
    found = {}
    for item in _parsed(book, "xl/workbook.xml").iter(f"{_MAIN}sheet"):
        target = targets[item.get(_LINK)]
        found[item.get("name", "")] = target.lstrip("/") if target.startswith("/") else f"xl/{target}"
    return found


def _cells(row: ElementTree.Element, strings: list[str]) -> list[str]:
    """The cells of a row from column A on; a cell that is not stored is empty."""
    values: list[str] = []
    for cell in row.iter(f"{_MAIN}c"):
        match = _CELL.fullmatch(cell.get("r", ""))
        column = _column_number(match[1]) if match else len(values)
        if column >= MOST_COLUMNS:
            raise ValueError(f"a cell in column {column + 1}")
        values += [""] * (column + 1 - len(values))
        values[column] = _text(cell, strings)
    return values


def _column_number(letters: str) -> int:
    """A -> 0, Z -> 25, AA -> 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number - 1


def _text(cell: ElementTree.Element, strings: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return "".join(text.text or "" for text in cell.iter(f"{_MAIN}t")).strip()
    value = cell.findtext(f"{_MAIN}v") or ""
    if kind == "s" and value:
        return strings[_index(value)].strip()
    return value.removesuffix(".0") if kind == "n" else value.strip()


def _index(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"the number {text!r} of a text")
    return int(text)
