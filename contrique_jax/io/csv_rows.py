"""Tables of the user's, csv files: their columns by name, their rows one after the other, and one sentence for whatever
keeps one from being read.

Columns may be separated by commas, or all by semicolons or tabs, as the header shows (or Excel's line `sep=;` above it).
Lines above the header that begin with # are comments; rows of empty cells are skipped; names may be quoted.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from contrique_jax.errors import UserError, printable
from contrique_jax.io import buckets
from contrique_jax.io.regular import open_regular

# What public sets and their copies call the columns of images and of scores, in small letters and digits alone. They are
# suggested, never taken: of two such columns one may be a reference, and KADID-10k calls a score dmos that rises with quality.
PATHS_ALIKE = frozenset(
    ("path", "paths", "image", "images", "img", "file", "files", "name", "names", "filename", "filenames", "imagename")
    + ("imgname", "nameimage", "imagepath", "imgpath", "filepath", "imagefile", "imageid", "distimg", "distortedimage")
)
SCORES_ALIKE = frozenset(
    ("mos", "dmos", "score", "scores", "mosquality", "moszscore", "meanopinionscore", "opinion", "rating", "ratings")
    + ("quality", "qualityscore", "meanscore", "averagescore", "subjectivescore", "elo", "mean", "label", "zscore")
)
SHOWN = 20  # columns that a message lists
_SIGNATURES = {
    b"\xff\xfe": "it is in UTF-16; save it as CSV UTF-8",
    b"\xfe\xff": "it is in UTF-16; save it as CSV UTF-8",
    b"PK\x03\x04": "it is an Excel workbook or another zip file; save it as CSV UTF-8",
    b"\x1f\x8b": "it is compressed; unpack it first",
    b"{": "it is JSON; give a csv, which `contrique-jax score --out F.csv` writes too",
}
_BYTES = re.compile("[\udc80-\udcff]")  # as Python keeps those of file names that are no UTF-8
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_EXCEL_HINT = re.compile(r"sep=(.)\s*", re.IGNORECASE)


def number(text: str) -> float:
    """The number that a cell holds, NaN if it holds none: `float` would take 1_0, nan and the digits of other scripts."""
    return float(text) if _NUMBER.fullmatch(text) else float("nan")


@dataclass(frozen=True)
class Table:
    """A csv file that is open at its first row."""

    path: Path | str
    field: str  # what messages call it
    columns: list[str]
    separator: str
    comment: str  # the last line above the header that begins with #
    _rows: Iterator[tuple[int, list[str]]]

    def column(self, name: str, flag: str = "", alike: Collection[str] = ()) -> int:
        """Where the column `name` is, from 0. Raises UserError if there is none, or more than one, of that name; it suggests
        columns that are `alike`, for `flag` if one chooses the column."""
        found = [i for i, column in enumerate(self.columns) if column == name]
        if len(found) > 1:
            places = " and ".join(str(i + 1) for i in found)
            raise UserError(f"{self}: {len(found)} columns are called {name!r} (columns {places}); rename all but one.")
        if not found:
            for_flag = f" for {flag}" if flag and name not in alike else ""
            raise UserError(
                f"{self} has no column {name!r}{for_flag} ({self.found}){self._advice(name, flag, self.alike(alike))}."
            )
        return found[0]

    def alike(self, names: Collection[str]) -> list[str]:
        """The columns whose names are among `names` but for letter case, spaces and other signs."""
        return [column for column in self.columns if "".join(filter(str.isalnum, column.lower())) in names]

    def rows(self, *places: int) -> Iterator[tuple[int, list[str]]]:
        """(line number, stripped cells at `places`) of every row. Raises UserError for a row of another length."""
        width = len(self.columns)
        for line, cells in self._rows:
            if len(cells) != width and (len(cells) < width or any(map(str.strip, cells[width:]))):
                raise UserError(
                    f"{self}, line {line}: {len(cells)} values for {width} columns; fix the row "
                    f"(a name with {_SEPARATORS[self.separator]} in it goes between quotes)."
                )
            yield line, [cells[i].strip() for i in places]

    @property
    def found(self) -> str:
        more = f" and {len(self.columns) - SHOWN} more" if len(self.columns) > SHOWN else ""
        return f"columns found: {', '.join(self.columns[:SHOWN]) or 'none'}{more}"

    def __str__(self) -> str:
        return f"{self.field}: {self.path}"

    def _advice(self, name: str, flag: str, alike: list[str]) -> str:
        if name in re.split(r'[#,;\t"\s]+', self.comment):
            return "; a line that begins with # is a comment: take the # away if it is the header"
        if any(number(column) == number(column) for column in self.columns):
            return "; its first line looks like a row: write the names of the columns above it"
        if not alike:
            return f"; name it with {flag}" if flag and len(self.columns) > 1 and name == "path" else ""
        if not flag:
            return f"; is it {alike[0]!r}? call that {name!r}" if len(alike) == 1 else ""
        if len(alike) > 1:
            return f"; say with {flag} which of {', '.join(map(repr, alike))} it is"
        return f"; is it {alike[0]!r}? say {flag} {alike[0]!r}"


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


def open_table(path: Path | str, field: str) -> Table:
    """The csv at `path`, which may be an address in a bucket, its header read and its rows to be read.

    Raises UserError, naming `field`, if the file is missing, unreadable, not UTF-8 or not csv, also while rows are read.
    """
    comment, separator, before = "", None, 0
    with _one_sentence(path, field):
        stream = _opened(path, field)
        for line in stream:
            if "\0" in line:  # which UTF-16 without its mark is full of
                raise UserError(
                    f"{field}: {path} cannot be read as a csv file: it is no text in UTF-8; save it as CSV UTF-8."
                )
            hint = _EXCEL_HINT.fullmatch(line)
            if line.lstrip(' \t"').startswith("#"):  # behind a quote after Excel has saved it
                comment = line
            elif hint and hint[1] in _SEPARATORS:
                separator = hint[1]
            elif line.strip(' \t\r\n,;"'):
                break
            before += 1
        else:
            return Table(path, field, [], ",", comment, iter(()))
    bare = re.sub(r'"[^"]*"', "", line)
    separator = separator or next((sign for sign in _SEPARATORS if sign in bare), ",")
    rows = _parsed(path, field, itertools.chain([line], stream), separator, before)
    columns = [column.strip("\ufeff \t") for column in next(rows, (0, []))[1]]
    return Table(path, field, columns, separator, comment, rows)


def csv_rows(path: Path | str, field: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not empty, of a file without header or with one further down, separated
    by commas.

    Raises UserError as `open_table`.
    """
    with _one_sentence(path, field):
        stream = _opened(path, field)
    yield from _parsed(path, field, stream, ",", 0)


def table_paths(
    path: Path | str, field: str, path_column: str | None = None, flag: str = "--path-column"
) -> list[Path]:
    """The images that a csv lists, whether or not they are there: `table_names`, of which relative ones start where `beside`
    says. Raises UserError as that does."""
    names = table_names(path, field, path_column, flag)
    folder = beside(path, names)
    return [located(folder, name) for name in names]


def table_names(path: Path | str, field: str, path_column: str | None = None, flag: str = "--path-column") -> list[str]:
    """The cells of a csv's column `path`, or of the one that `flag` names, in its order.

    Raises UserError, naming `field`, if it cannot be read, has no such column or no rows, and if a row names no image.
    """
    table = open_table(path, field)
    at = table.column(path_column or "path", flag, () if path_column else PATHS_ALIKE)
    names = []
    for line, (name,) in table.rows(at):
        if not name:
            raise UserError(f"{path}, line {line}: the column {table.columns[at]!r} is empty.")
        names.append(name)
    if not names:
        raise UserError(f"{field}: {path} has no rows; give one an image.")
    return names


def located(folder: Path, name: str) -> Path:
    """The path that a name in a table stands for: from `folder` if it is relative, ~ and ~USER as a shell has them."""
    try:
        return folder / Path(name).expanduser()
    except RuntimeError:  # there is no such user, so ~ begins the file's own name
        return folder / name


def beside(path: Path | str, names: Sequence[str]) -> Path:
    """The folder where relative names in a table start: the table's own; if nothing is there, and something is in the
    working folder, from which `score` lists what it is given, that one, which is said on stderr."""
    folder, here = Path(path).parent, Path()
    if os.path.realpath(folder) == os.path.realpath(here) or any(is_file(folder, name) for name in names):
        return folder
    if any(is_file(here, name) for name in names):
        said = f"note: {path}: its paths are taken from the working folder, as none is beside it"
        print(printable(said), file=sys.stderr)
        return here
    return folder


def is_file(folder: Path, name: str) -> bool:
    """Whether a name in a table leads to a file, if relative from `folder`."""
    try:
        return bool(name) and located(folder, name).is_file()
    except (OSError, ValueError):  # too long, with a zero byte
        return False


def _parsed(
    path: Path | str, field: str, lines: Iterable[str], separator: str, before: int
) -> Iterator[tuple[int, list[str]]]:
    # strict: a quote that is never closed would else take all rows up to the end into one cell
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)
    with _one_sentence(path, field):
        try:
            for row in reader:
                if row and (row[0].strip() or any(map(str.strip, row))):
                    if _BYTES.search("".join(row)):
                        _check_names(path, field, before + reader.line_num, row)
                    yield before + reader.line_num, row
        except csv.Error as error:
            line = before + reader.line_num
            raise UserError(f"{field}: {path} cannot be read as a csv file (line {line}: {error}).") from error


def _check_names(path: Path | str, field: str, line: int, row: Sequence[str]) -> None:
    """Bytes that are no UTF-8 are the name of a file that has such a one, or else the table is in another encoding."""
    for cell in row:
        if _BYTES.search(cell) and not any(is_file(folder, cell.strip()) for folder in (Path(path).parent, Path())):
            raise UserError(
                f"{field}: {path} cannot be read as a csv file in UTF-8 "
                f"(line {line}: {cell.strip()!r} is in another encoding; save it as CSV UTF-8)."
            )


@contextmanager
def _one_sentence(path: Path | str, field: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{field}: {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or f"{error}; save it as CSV UTF-8"
        raise UserError(f"{field}: {path} cannot be read as a csv file in UTF-8 ({why}).") from error


def _opened(path: Path | str, field: str) -> TextIO:
    if not buckets.is_address(path):
        file = open_regular(path)
        signature = file.peek(4)[:4]
        stream: TextIO = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    else:
        data = buckets.read(str(path))
        if data is None:
            raise FileNotFoundError(path)
        signature, stream = data[:4], io.StringIO(data.decode("utf-8-sig", errors="surrogateescape"), newline="")
    for start, sentence in _SIGNATURES.items():
        if signature.startswith(start):
            stream.close()
            raise UserError(f"{field}: {path} cannot be read as a csv file: {sentence}.")
    return stream
