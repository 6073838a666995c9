"""Ratings, a row of a table of opinion scores each, and the checks that every such table has to pass."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError, printable
from contrique_jax.io.csv_rows import number
from contrique_jax.io.regular import open_regular

FARTHEST = 1e30  # from 0, of a score
# Photographs of one data set often have one size in bytes; this much of each tells nearly all of them apart.
_SAMPLE_BYTES = 1 << 14


@dataclass(frozen=True)
class Place:
    """Where a row stands, for messages."""

    path: Path
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"

    def along(self, other: Place) -> str:
        """Both places in one phrase, this one first."""
        if (self.path, self.unit) == (other.path, other.unit):
            return f"{self.path}, {self.unit}s {self.number} and {other.number}"
        return f"{self} and {other}"


@dataclass(frozen=True)
class Rating:
    """One image of a data set with opinion scores, as a table of its authors lists it."""

    place: Place
    image: str  # file name within the folders of images
    score: str
    deviation: str | None = None  # standard deviation of the opinions, on the scale of the scores
    group: str | None = None  # None: the image is a group of its own
    subset: str | None = None
    reference: str | None = None  # file name within the folders of references
    part: str | None = None  # of the official split: train, validation or test


def numbers(
    places: Sequence[Place], texts: Sequence[str], what: str, decimal_commas: bool = False
) -> Float[np.ndarray, " n"]:
    """Texts -> numbers. Raises UserError, naming the place, for one that is empty, no number, NaN or infinite.

    With `decimal_commas` a comma may stand for the point, in all of them or in none.
    """
    with_comma = decimal_commas and any("," in text for text in texts)
    values = []
    for place, text in zip(places, texts, strict=True):
        if with_comma and "." in text:
            raise UserError(f"{place}: {what} is {text!r} and others have a decimal comma; write all the same way.")
        value = number(text.replace(",", ".") if with_comma else text)
        if not np.isfinite(value):
            advice = "write numbers with a point" if "," in text else "give a number or take the row out"
            raise UserError(f"{place}: {what} is {text!r}; {advice}.")
        values.append(value)
    return np.array(values, np.float64)


def vary(where: Path, scores: Float[np.ndarray, " n"], what: str) -> None:
    """Raises UserError if all scores are the same, there is only one, or they are beyond what can be squared."""
    if len(scores) == 1:
        raise UserError(f"{where}: it has only one image, and one {what} is nothing to learn from; add images.")
    if np.ptp(scores) == 0:
        raise UserError(f"{where}: every {what} is {scores[0]:g}; scores that do not vary cannot be predicted.")
    if np.abs(scores).max() > FARTHEST or np.ptp(scores) < 1 / FARTHEST:
        raise UserError(
            f"{where}: {what} is {scores.min():g} to {scores.max():g}; bring it to a usual scale, such as 0 to 100."
        )


def no_image_twice(places: Sequence[Place], images: Sequence[Path]) -> None:
    """Raises UserError if an image has two rows."""
    first: dict[str, Place] = {}
    for place, image in zip(places, images, strict=True):
        earlier = first.setdefault(os.path.realpath(image), place)
        if earlier is not place:
            raise UserError(f"{earlier.along(place)}: {image.name} is listed twice; keep one row.")


def no_equal_files(places: Sequence[Place], images: Sequence[Path], groups: Sequence[str]) -> None:
    """Raises UserError if files of two groups hold the same bytes: a split would test on what it trained on."""
    for i, j in equal_files(images, groups):
        raise UserError(
            f"{places[i].along(places[j])}: {images[i].name} and {images[j].name} are "
            "the same image in different groups; give them one group or keep one of them."
        )


def equal_files_together(
    places: Sequence[Place], images: Sequence[Path], groups: list[str], keep_apart: bool
) -> list[str]:
    """The groups, those of files with the same bytes made one unless they are kept apart. Says on stderr which files those
    are: a split would test on what it trained on."""
    same = _equal_sets(images, groups)
    for rows in same:
        names = ", ".join(f"{images[i].name} ({places[i].unit} {places[i].number})" for i in rows)
        print(printable(f"note: {places[rows[0]].path}: the same image: {names}"), file=sys.stderr)
    if same and keep_apart:
        print("note: --keep-duplicates-apart: a split may test on an image that it trained on", file=sys.stderr)
    return groups if keep_apart else merged_groups(groups, [(rows[0], j) for rows in same for j in rows[1:]])


def merged_groups(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """The groups of rows, those of each pair of rows made one, which has the name of the first."""
    leader: dict[str, str] = {}

    def head(group: str) -> str:
        while group in leader:
            group = leader[group]
        return group

    for i, j in pairs:
        first, second = head(groups[i]), head(groups[j])
        if first != second:
            leader[second] = first
    return [head(group) for group in groups]


def equal_files(images: Sequence[Path], groups: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(i, j), i < j, of files that hold the same bytes and are in different groups; i is the first of its kind."""
    for rows in _equal_sets(images, groups):
        yield from ((rows[0], j) for j in rows[1:] if groups[j] != groups[rows[0]])


def _equal_sets(images: Sequence[Path], groups: Sequence[str]) -> list[list[int]]:
    """Rows of files that hold the same bytes, a list for each such file that is in more than one group."""
    alike = [list(range(len(images)))]
    keys: tuple[Callable[[Path], object], ...] = (_size, _sample, _digest)
    for key in keys:  # each costs more than the one before, and is asked of fewer files
        alike = [rows for candidates in alike for rows in _by(key, images, candidates, groups)]
    return alike


def shared_files(images: Sequence[Path], others: Sequence[Path]) -> int:
    """How many of the others hold the same bytes as one of the images."""
    groups = ["images"] * len(images) + ["others"] * len(others)
    return sum(1 for _ in equal_files([*images, *others], groups))


def _by(
    key: Callable[[Path], object], images: Sequence[Path], rows: list[int], groups: Sequence[str]
) -> list[list[int]]:
    found: dict[object, list[int]] = {}
    for i in rows:
        with contextlib.suppress(OSError):  # it is equal to none, and named as broken when it is its turn
            found.setdefault(key(images[i]), []).append(i)
    return [equal for equal in found.values() if len({groups[i] for i in equal}) > 1]


def _size(image: Path) -> int:
    return image.stat().st_size


def _sample(image: Path) -> bytes:
    """Some bytes from the middle of a file: the first ones are often the same header."""
    with open_regular(image) as stream:
        stream.seek(max(0, image.stat().st_size - _SAMPLE_BYTES) // 2)
        return hashlib.sha256(stream.read(_SAMPLE_BYTES)).digest()


def _digest(image: Path) -> bytes:
    with open_regular(image) as stream:
        return hashlib.file_digest(stream, "sha256").digest()
