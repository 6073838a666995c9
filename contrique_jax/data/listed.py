"""Images as a command line names them: files, folders and globs, tables and lists of paths, a list on stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from contrique_jax.data.image_files import LeftOut, Listing, find_images
from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import beside, located, table_paths
from contrique_jax.io.regular import read_bytes

STDIN, TABLES, LISTS = "-", (".csv", ".tsv"), (".txt", ".lst")


def find_listed(paths: Sequence[str], path_column: str | None = None) -> Listing:
    """As `find_images`, with videos; of a csv those of its column `path` or `path_column`, of a text file one a line, and of
    `-` the same from stdin (a line, or what `find -print0` writes). What lists name is taken whether or not it is there,
    folders of frames too; relative names in files start beside them. Each file once.

    Raises UserError if a path matches no image and for a list that cannot be read or is empty.
    """
    found: dict[str, Path] = {}
    named, left_out = set(), LeftOut()
    for path in paths:
        listed = _listed(path, path_column)
        listing = (
            find_images([path], left_out, videos=True) if listed is None else Listing(listed, set(listed), left_out)
        )
        for image in listing.files:
            first = found.setdefault(os.path.abspath(image), image)
            if image in listing.named:
                named.add(first)
    return Listing(list(found.values()), named, left_out)


def _listed(path: str, path_column: str | None) -> list[Path] | None:
    """What a list names; None if `path` is none."""
    suffix = Path(path).suffix.lower()
    if path == STDIN:
        if sys.stdin.isatty():
            raise UserError("-: paths are read from stdin, which is this terminal; pipe a list into it.")
        return [Path(name) for name in list_lines(sys.stdin.buffer.read(), "-")]
    file = Path(path).expanduser()
    if os.path.isdir(file) or suffix not in (*TABLES, *LISTS):
        return None
    if suffix in TABLES:
        return table_paths(file, "PATH", path_column)
    names = read_list(file, path)
    folder = beside(file, names)
    return [located(folder, name) for name in names]


def read_list(file: Path, path: str) -> list[str]:
    """The names that a text file lists, called `path` in messages. Raises UserError if it cannot be read or is empty."""
    try:
        return list_lines(read_bytes(file), path)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error


def list_lines(data: bytes, path: str) -> list[str]:
    """One name a line, or what `find -print0` writes. Raises UserError if there is none."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: it is in UTF-16; save it as UTF-8, one path a line.")
    pieces = data.split(b"\0") if b"\0" in data else data.removeprefix(b"\xef\xbb\xbf").splitlines()
    names = [os.fsdecode(piece) for piece in pieces if piece.strip()]
    if not names:
        raise UserError(f"{path}: it lists no images; write one path a line.")
    return names
