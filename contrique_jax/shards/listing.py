"""What paths name, as parts that can be scored apart: images by name, tar files, row groups of Parquet tables."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contrique_jax.data.image_files import LeftOut, find_images, is_image, walk
from contrique_jax.data.listed import LISTS, STDIN, TABLES, list_lines, read_list
from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.csv_rows import beside, located, table_names
from contrique_jax.shards import parquet

TARS, PARQUET = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), (".parquet", ".pq")
FIELD = "PATH"

# A part, as JSON holds it: {"files": [name, ...], "roots": [folder, ...]}, {"tar": name}, or
# {"parquet": name, "column": name, "groups": [first, count], "rows": n}.
Part = dict[str, Any]


@dataclass
class Found:
    """Images by name, in order, each once, with the folder that has gone if they all have; and what holds others."""

    files: dict[str, str] = field(default_factory=dict)  # name -> root
    seen: set[str] = field(default_factory=set)  # what they are, however they are written
    archives: list[Part] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def find(paths: Sequence[str], column: str | None, rows: int) -> Found:
    """What the paths name, each thing once: files, folders (recursive), globs and lists as `find_listed` takes them, tar
    files and Parquet tables, on this machine or at gs://. `column`: of tables, that names the images or, in Parquet, holds
    them; a part of a Parquet table has about so many `rows`.

    Raises UserError if a path matches nothing, cannot be read or, in a bucket, holds no images.
    """
    found = Found()
    for path in paths:
        if path == STDIN:
            raise UserError(
                "-: a list on stdin is gone when the command is given again; save it as a .txt and name that."
            )
        for match in _matches(path):
            _add(found, match, column, rows)
    unique: dict[str, Part] = {}
    for part in found.archives:
        unique.setdefault(_place(key_of(part)), part)
    found.archives = list(unique.values())
    return found


def key_of(part: Part) -> str:
    """Names a tar file or a piece of a table."""
    return str(part["tar"]) if "tar" in part else f"{part['parquet']}#{part['column']}#{part['groups'][0]}"


def split(files: Iterable[tuple[str, str]], count: int) -> Iterator[Part]:
    """Runs of `count` names with their roots."""
    names: list[str] = []
    roots: dict[str, None] = {}
    for name, root in files:
        names.append(name)
        roots.setdefault(root)
        if len(names) == count:
            yield {"files": names, "roots": list(roots)}
            names, roots = [], {}
    if names:
        yield {"files": names, "roots": list(roots)}


def is_tar(name: str) -> bool:
    return name.lower().endswith(TARS)


def is_parquet(name: str) -> bool:
    return name.lower().endswith(PARQUET)


def _matches(path: str) -> list[str]:
    """A glob of tar files, tables or objects taken apart; all else as it is."""
    if buckets.is_address(path):
        folder, _, last = path.rpartition("/")
        if not any(sign in last for sign in "*?["):
            return [buckets.check_address(path, FIELD)]
        folder = buckets.check_address(folder, FIELD)
        names = [
            name for name in buckets.names(folder, f"{FIELD}: ") if "/" not in name and fnmatch.fnmatch(name, last)
        ]
        if not names:
            raise UserError(f"{path}: matches no object; check the path.")
        return [f"{folder}/{name}" for name in names]
    expanded = os.path.expanduser(path)
    if os.path.lexists(expanded) or not glob.has_magic(expanded):
        return [expanded]
    matches = sorted(glob.glob(expanded, recursive=True))
    if not matches and (is_tar(path) or is_parquet(path)):
        raise UserError(f"{path}: matches no file; check the path.")
    others = [match for match in matches if is_tar(match) or is_parquet(match)]
    if not others:
        return [path]
    return others + ([path] if any(map(_holds_images, matches)) else [])  # what else there is, as `find_images` does


def _holds_images(path: str) -> bool:
    if os.path.isdir(path):
        return any(True for _ in walk(Path(path), FIELD, LeftOut()))
    return is_image(os.path.basename(path))


def _add(found: Found, path: str, column: str | None, rows: int) -> None:
    suffix = os.path.splitext(path)[1].lower()
    if is_tar(path):
        _check_there(path)
        found.archives.append({"tar": path})
    elif is_parquet(path):
        _check_there(path)
        table = parquet.look(path, column, rows)
        found.archives += [part for part in table if not isinstance(part, str)]
        _add_listed(found, path, [name for name in table if isinstance(name, str)])
    elif suffix in TABLES and not os.path.isdir(path):
        _add_listed(found, path, table_names(path, FIELD, column))
    elif suffix in LISTS and not os.path.isdir(path):
        _add_listed(found, path, _lines(path))
    elif buckets.is_address(path):
        _add_objects(found, path)
    else:
        listing = find_images([path], found.left_out)
        root = path if os.path.isdir(path) else str(Path(listing.files[0]).parent)
        _add_files(found, [str(file) for file in listing.files], root)


def _lines(path: str) -> list[str]:
    if not buckets.is_address(path):
        return read_list(Path(path), path)
    data = buckets.read(path)
    if data is None:
        raise UserError(f"{FIELD}: {path} does not exist; check the path.")
    return list_lines(data, path)


def _check_there(path: str) -> None:
    if not buckets.is_address(path) and not os.path.isfile(path):
        why = "is no file" if os.path.lexists(path) else "does not exist"
        raise UserError(f"{FIELD}: {path} {why}; check the path.")


def _add_objects(found: Found, address: str) -> None:
    if is_image(address):
        _add_files(found, [address], "")
        return
    listed = buckets.names(address, f"{FIELD}: ")
    names = [f"{address}/{name}" for name in listed if is_image(name)]
    if not names:
        raise UserError(f"{FIELD}: {address} holds no images; name tar files and tables as {address}/*.tar.")
    _add_files(found, names, "")


def _add_listed(found: Found, table: str, names: list[str]) -> None:
    """Names in a table: addresses, or relative to where that lies. Raises UserError for an address of another kind."""
    addresses = [name for name in names if buckets.is_address(name)]
    for name in [name for name in addresses if not name.startswith("gs://")]:
        buckets.check_address(name, f"{FIELD}: {table}")
    for name in addresses[:1]:
        buckets.check_installed(name, f"{FIELD}: {table}")
    if buckets.is_address(table):
        folder = table.rpartition("/")[0]
        _add_files(found, [name if buckets.is_address(name) else f"{folder}/{name}" for name in names], "")
        return
    local = [name for name in names if not buckets.is_address(name)] if addresses else names
    start = beside(table, local) if local else Path()
    paths = [name if buckets.is_address(name) else str(located(start, name)) for name in names]
    _add_files(found, paths, _common([path for path in paths if not buckets.is_address(path)]))


def _add_files(found: Found, names: list[str], root: str) -> None:
    for name in names:
        place = _place(name)
        if place not in found.seen:
            found.seen.add(place)
            found.files[name] = root


def _place(name: str) -> str:
    return name if buckets.is_address(name) else os.path.abspath(name)


def _common(names: Sequence[str]) -> str:
    """The folder that holds all of them."""
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    return os.path.commonpath(folders) if folders else ""
