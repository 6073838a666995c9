"""The split of images into shards, which stays as it is once it is made, and what has come of each.

In the results' place lie bulk.json (what they depend on), plan/N.json (the images of shard N), and, once all of it is
written, done/N.json (its counts). What is found later by the same command becomes further shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from contrique_jax.errors import UserError
from contrique_jax.io.parts import check_same
from contrique_jax.io.progress import ahead
from contrique_jax.shards.listing import Found, Part, key_of, split
from contrique_jax.shards.place import DONE, PLAN, Place

ABOUT = "bulk.json"
FORM = 1
READERS = 16  # of small files, which in a bucket come slowly one by one


@dataclass(frozen=True)
class Counts:
    """Of images: found = scored + broken."""

    found: int = 0
    scored: int = 0
    broken: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.found + other.found, self.scored + other.scored, self.broken + other.broken)


def shard_name(number: int) -> str:
    return f"{number:05d}"


def begin(place: Place, about: Mapping[str, Any]) -> None:
    """Raises UserError if there are results of something else, or what is no results' place but holds files."""
    about = {"form": FORM, **json.loads(json.dumps(about))}
    stored = place.read(ABOUT)
    if stored is None:
        if place.names(DONE):
            raise UserError(f"{place.name(ABOUT)}: it is gone, and shards are done; name another --out.")
        place.write_text(ABOUT, json.dumps(about, indent=1) + "\n")
        return
    found = _object(place.name(ABOUT), stored)
    check_same(place.name(ABOUT), found, about, "give the command that began it, or name another --out")


def about_of(place: Place) -> dict[str, Any]:
    """What results depend on. Raises UserError if there are none."""
    stored = place.read(ABOUT)
    if stored is None:
        raise UserError(f"{place}: it holds no results of `contrique-jax bulk` (no {ABOUT}); check its name.")
    found = _object(place.name(ABOUT), stored)
    if found.get("form") != FORM:
        raise UserError(
            f"{place.name(ABOUT)}: it is none of this version's; name other results, or score the images again."
        )
    return found


def planned(place: Place) -> list[int]:
    """The numbers of shards, from 0. Raises UserError if one is missing."""
    numbers = sorted(_numbers(place.names(PLAN)))
    if numbers != list(range(len(numbers))):
        missing = next(i for i, number in enumerate(numbers) if i != number)
        raise UserError(f"{place.name(PLAN)}: {shard_name(missing)}.json is missing; name another --out.")
    return numbers


def add(place: Place, found: Found, shard_images: int) -> int:
    """Makes shards of what no shard has yet -> how many there are then."""
    numbers = planned(place)
    files: dict[str, str] = dict(found.files)
    archives = {key_of(part): part for part in found.archives}
    for part in _each(lambda number: read_part(place, number), numbers):
        for name in part.get("files", ()):
            files.pop(name, None)
        if "files" not in part:
            archives.pop(key_of(part), None)
    count = len(numbers)
    for part in (*split(files.items(), shard_images), *archives.values()):
        write_part(place, count, part)
        count += 1
    return count


def write_part(place: Place, number: int, part: Part) -> None:
    place.write_text(f"{PLAN}/{shard_name(number)}.json", json.dumps(part))


def read_part(place: Place, number: int) -> Part:
    """What a shard is made of. Raises UserError."""
    name = f"{PLAN}/{shard_name(number)}.json"
    stored = place.read(name)
    if stored is None:
        raise UserError(f"{place.name(name)}: it is gone; name another --out.")
    part = _object(place.name(name), stored)
    if not _is_part(part):
        raise UserError(f"{place.name(name)}: it is no shard's list; name another --out.")
    return part


def _is_part(part: Part) -> bool:
    def are(kind: type, values: Any, count: int | None = None) -> bool:
        return (
            isinstance(values, list)
            and all(isinstance(value, kind) for value in values)
            and count in (None, len(values))
        )

    if "files" in part:
        return are(str, part["files"]) and are(str, part.get("roots"))
    if "tar" in part:
        return isinstance(part["tar"], str)
    names = [part.get(name) for name in ("parquet", "column")]
    return are(str, names) and are(int, part.get("groups"), 2) and are(int, [part.get("rows")])


def mark_done(place: Place, number: int, counts: Counts) -> None:
    """To be called when all of a shard's results are written."""
    place.write_text(f"{DONE}/{shard_name(number)}.json", json.dumps(asdict(counts)))


def done(place: Place) -> dict[int, Counts]:
    """Counts of the shards that are done. Raises UserError for one that does not add up."""
    numbers = sorted(_numbers(place.names(DONE)))
    return dict(zip(numbers, _each(lambda number: _counts(place, number), numbers), strict=True))


def _counts(place: Place, number: int) -> Counts:
    name = f"{DONE}/{shard_name(number)}.json"
    try:
        counts = Counts(**_object(place.name(name), place.read(name) or b"", "delete it, and the shard is done again"))
    except TypeError:
        counts = Counts(-1)
    numbers = (counts.found, counts.scored, counts.broken)
    if any(type(number) is not int or number < 0 for number in numbers) or counts.found != sum(numbers[1:]):
        raise UserError(f"{place.name(name)}: its counts do not add up; delete it, and the shard is done again.")
    return counts


def _each(work: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[Any]:
    with ThreadPoolExecutor(READERS) as pool:
        yield from ahead(pool, work, numbers, 4 * READERS)


def _numbers(names: Iterable[str]) -> Iterator[int]:
    return (int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdecimal())


def _object(name: str, stored: bytes, advice: str = "restore it, or name another --out") -> dict[str, Any]:
    try:
        return dict(json.loads(stored))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: it cannot be read ({error}); {advice}.") from error
