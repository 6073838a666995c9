"""A set of distorted images on disk: its photographs, names of files, settings and manifest."""

from __future__ import annotations

import collections
import csv
import glob
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrique_jax.data.image_files import LeftOut, find_images
from contrique_jax.distort import bank
from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import csv_rows
from contrique_jax.io.json_files import read_json
from contrique_jax.io.outputs import atomic_write

MANIFEST, SETTINGS = "manifest.csv", "distort.json"
COLUMNS = ("path", "source", "type", "level", "class")
LONGEST_STEM = 150  # bytes; a file's name may have 255


@dataclass(frozen=True)
class Photograph:
    """A source: its file, its name below the folder that was given, and how its results' names begin."""

    path: Path
    name: str
    stem: str


@dataclass(frozen=True)
class Plan:
    """How each photograph is distorted."""

    out: Path
    classes: tuple[tuple[int, int], ...]  # (type, level), (0, 0) for the photograph itself
    seed: int
    minmax: bool
    size: tuple[int, int] | None  # height, width; None: as each comes
    root: str  # the folder of the photographs: names of results only differ within one

    def file(self, photograph: Photograph, type: int, level: int) -> Path:
        return self.out / f"{photograph.stem}_{type:02}_{level:02}.png"


def photographs(source: str, out: Path, left_out: LeftOut | None = None) -> list[Photograph]:
    """The images that `source`, a folder, file or glob, means, but for those in `out`, each with a stem of its own.

    The stem is the file's, with `-` and eight hexadecimal digits of the name's SHA-256 behind it if several sources
    share it (also in upper and lower case) or if it is no plain file name. What the listing passes by goes to `left_out`.
    Raises UserError if nothing is left.
    """
    found = find_images([source], left_out).files
    inside = os.path.abspath(out) + os.sep
    kept = [path for path in found if not os.path.abspath(path).startswith(inside)]
    if not kept:
        raise UserError(f"{source}: all its images are in {out}, where the results go; name another folder for them.")
    root = root_of(source)
    names = [os.path.relpath(os.path.abspath(path), root).replace(os.sep, "/") for path in kept]
    plain = [_plain(path.stem) for path in kept]
    count = collections.Counter(stem.casefold() for stem in plain)
    return [
        Photograph(
            path, name, stem if count[stem.casefold()] == 1 and stem == path.stem else f"{stem}-{_digest(name)[:8]}"
        )
        for path, name, stem in zip(kept, names, plain, strict=True)
    ]


def root_of(source: str) -> str:
    """The folder that names are relative to: the one that was given, or the last one before a glob's first wildcard."""
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return os.path.abspath(path)
    if not os.path.lexists(path):
        parts = path.split(os.sep)
        plain = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return os.path.abspath(os.sep.join(parts[:plain]) or (os.sep if path.startswith(os.sep) else "."))
    return os.path.dirname(os.path.abspath(path))


def _plain(stem: str) -> str:
    """A stem that is a visible file name in UTF-8 everywhere, also if a table's reader strips its cells."""
    plain = "".join(letter if letter.isprintable() and letter not in '\\/:*?"<>|' else "_" for letter in stem)
    plain = plain.encode("utf-8", "replace")[:LONGEST_STEM].decode("utf-8", "ignore")
    return plain.strip(" .") or "image"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def seed_of(seed: int, name: str, type: int, level: int) -> int:
    """The seed of one result: a function of the run's seed, the source's name, type and level, and of nothing else."""
    return int(_digest(f"{seed} {type} {level} {name}")[:16], 16)


def check_settings(plan: Plan) -> None:
    """Notes in the folder how its images are made. Raises UserError if it holds images that were made otherwise."""
    size = list(plan.size) if plan.size else None
    mine = {"source": plan.root, "seed": plan.seed, "minmax": plan.minmax, "size": size}
    path = plan.out / SETTINGS
    try:
        found = read_json(path, 1 << 20)
    except FileNotFoundError:
        if any(plan.out.glob("*_[0-9][0-9]_[0-9][0-9].png")):
            raise UserError(
                f"{plan.out}: it holds images, but no {SETTINGS} says how they were made; name a new folder."
            ) from None
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(mine) + "\n", encoding="utf-8")
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: it cannot be read ({error}); name another folder.") from error
    if found != mine:
        raise UserError(
            f"{plan.out}: its images were made with {found}, not with {mine}; name another folder for these."
        )


def write_manifest(plan: Plan, photographs: Sequence[Photograph]) -> int:
    """manifest.csv of all results that are in the folder, those of earlier commands too -> the number of its rows."""
    path = plan.out / MANIFEST
    rows: dict[str, tuple[str, ...]] = {}
    if path.exists():
        lines = csv_rows(path, str(path))
        if tuple(next(lines, (0, []))[1]) != COLUMNS:
            raise UserError(f"{path}: it is not a manifest of this command; move it away or name another folder.")
        rows = {row[0]: tuple(row) for _, row in lines if len(row) == len(COLUMNS)}
    for photograph in photographs:
        for type, level in plan.classes:
            name = plan.file(photograph, type, level).name
            source = photograph.name.encode("utf-8", "backslashreplace").decode()
            number = bank.class_id(type, level) if type else bank.PRISTINE
            rows[name] = (name, source, str(type), str(level), str(number))
    there = {entry.name for entry in os.scandir(plan.out)}
    rows = {name: row for name, row in rows.items() if name in there}
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows[name] for name in sorted(rows))
    return len(rows)
