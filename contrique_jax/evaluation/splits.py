"""Splits of a data set into train, validation and test rows: random by group, official, or read from a file;
which of these an evaluation takes, and short names for what it evaluated."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import UserError
from contrique_jax.io.json_files import read_json
from contrique_jax.io.outputs import atomic_write, output_path

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2
FEWEST_GROUPS = 5
FEWEST_IMAGES = 3  # on every side of every split: fewer have no rank correlation worth the name
SIDES = ("train", "validation", "test")
FILE_FORMAT, FILE_VERSION = "contrique_jax splits", 1
MOST_BYTES = 1 << 25  # of a file of splits

Rows = Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class Split:
    """Rows of the data set on each side; validation may be empty in a split that somebody else made."""

    train: Rows
    validation: Rows
    test: Rows


def make_splits(groups: Sequence[str], count: int, seed: int, field: str = "--scores") -> list[Split]:
    """`count` random splits of the groups into 70 % train, 10 % validation, 20 % test, at least one group on each side.

    A group is never on two sides. The same groups, in any number of runs, give the same splits for the same seed.
    Raises UserError, naming `field`, if there are too few groups or images.
    """
    names, of_row = np.unique(np.asarray(groups, str), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        raise UserError(
            f"{field}: {len(names)} groups cannot be split 70/10/20; at least {FEWEST_GROUPS} are needed "
            f"(a group is never on two sides{'; see --group-column' if field == '--scores' else ''})."
        )
    tests = max(round(TEST_SHARE * len(names)), 1)
    validations = max(round(VALIDATION_SHARE * len(names)), 1)
    splits = []
    for i in range(count):
        order = np.random.default_rng([seed, i]).permutation(len(names))
        side = np.zeros(len(names), int)
        side[order[:tests]], side[order[tests : tests + validations]] = 2, 1
        rows = [np.flatnonzero(side[of_row] == k) for k in range(3)]
        if min(len(part) for part in rows) < FEWEST_IMAGES:
            raise UserError(
                f"{field}: {len(of_row)} images in {len(names)} groups leave fewer than {FEWEST_IMAGES} on a side of "
                "a 70/10/20 split; add images."
            )
        splits.append(Split(*rows))
    return splits


def official_split(sides: Sequence[str], groups: Sequence[str]) -> Split:
    """The split that a data set's own column names for each image: train, validation or test; "" is left out, and so
    are images of the other sides whose group is on the test side too.

    Raises UserError for another word and if train or test has too few images.
    """
    words = np.asarray(sides, str)
    strange = sorted(set(words) - {*SIDES, ""})
    if strange:
        raise UserError(f"official split: {str(strange[0])!r} is no side; write {', '.join(SIDES)} or nothing.")
    names = np.asarray(groups, str)
    words = np.where((words != "test") & np.isin(names, names[words == "test"]), "", words)
    split = Split(*(np.flatnonzero(words == side) for side in SIDES))
    check_splits([split], len(words))
    return split


def check_splits(splits: Sequence[Split], images: int, need_validation: bool = False, name: str = "splits") -> None:
    """Raises UserError, naming `name`, if a split names a row twice or one that is not there, or has too few rows on a side."""
    if not splits:
        raise UserError(f"{name}: there is no split in it; give at least one.")
    for number, split in enumerate(splits, 1):
        rows = np.concatenate([split.train, split.validation, split.test])
        if len(np.unique(rows)) != len(rows) or (len(rows) and (rows.min() < 0 or rows.max() >= images)):
            raise UserError(f"{name}: split {number} names an image twice or one that is not among the {images}.")
        for side in SIDES if need_validation or len(split.validation) else ("train", "test"):
            count = len(getattr(split, side))
            if count < FEWEST_IMAGES:
                raise UserError(
                    f"{name}: split {number} has {count} images to {_PURPOSE[side]}; at least {FEWEST_IMAGES} are needed"
                    + (", or choose alpha by leave-one-out." if side == "validation" else ".")
                )


_PURPOSE = {"train": "train on", "validation": "choose alpha by", "test": "test on"}


def keep_rows(splits: Sequence[Split], rows: Sequence[int], images: int) -> list[Split]:
    """The splits of `images` images for those of them, `rows` in order, that could be read."""
    place = np.full(images, -1)
    place[np.asarray(rows, int)] = np.arange(len(rows))
    return [Split(*(place[part][place[part] >= 0] for part in (s.train, s.validation, s.test))) for s in splits]


def write_splits(path: Path, splits: Sequence[Split], groups: Sequence[str], about: Mapping[str, Any]) -> None:
    """The groups on each side of each split as JSON, whole or not at all; `about`: where they come from (plain values).

    Images that are groups of their own go by the names given as `groups`. Raises UserError if a group is on two sides
    or only partly in a split: such splits go by image.
    """
    names = np.asarray(groups, str)
    listed = []
    for number, split in enumerate(splits, 1):
        sides = {side: sorted(set(names[getattr(split, side)])) for side in SIDES}
        if sum(map(len, sides.values())) != len(set(names)) or sum(map(len, dataclasses.astuple(split))) != len(names):
            raise UserError(
                f"splits: split {number} does not keep every group whole on one side; name images instead of groups."
            )
        listed.append({side: [str(name) for name in found] for side, found in sides.items()})
    stored = {"format": FILE_FORMAT, "version": FILE_VERSION, **about, "splits": listed}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_splits(path: str | Path, groups: Sequence[str]) -> list[Split]:
    """The splits in a file that `write_splits` made, as rows of the data set with these groups.

    Raises UserError for a file that is none, and if its groups are not exactly those of the data set.
    """
    path = Path(path).expanduser()
    listed, _ = _stored(path)
    names, of_row = np.unique(np.asarray(groups, str), return_inverse=True)
    number_of = {str(name): i for i, name in enumerate(names)}
    splits = []
    for number, entry in enumerate(listed, 1):
        side_of = np.full(len(names), -1)
        for side, found in enumerate(SIDES):
            for name in entry[found]:
                if name not in number_of:
                    raise UserError(f"{path}: its group {name!r} is not in this data set; give the splits made for it.")
                if side_of[number_of[name]] >= 0:
                    raise UserError(f"{path}: split {number} names the group {name!r} twice; take a file as written.")
                side_of[number_of[name]] = side
        if (side_of < 0).any():
            missing = str(names[np.argmax(side_of < 0)])
            raise UserError(
                f"{path}: split {number} lacks this data set's group {missing!r}; give the splits made for it."
            )
        splits.append(Split(*(np.flatnonzero(side_of[of_row] == side) for side in range(3))))
    check_splits(splits, len(of_row), name=str(path))
    return splits


def check_request(path: str | Path, count: int | None, seed: int | None) -> None:
    """Raises UserError if the file of splits is no answer to a request for `count` splits or for this seed."""
    path = Path(path).expanduser()
    listed, stored_seed = _stored(path)
    if count is not None and count != len(listed):
        raise UserError(f"--splits={count}: {path} has {len(listed)} splits; leave --splits out or name another file.")
    if seed is not None and stored_seed is not None and seed != stored_seed:
        raise UserError(
            f"--seed={seed}: {path} has the splits of seed {stored_seed}; leave --seed out or name another file."
        )


def _stored(path: Path) -> tuple[list[dict[str, list[str]]], Any]:
    """The names on each side of each split in a file, and the seed that was written beside them."""
    try:
        stored = read_json(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: the splits cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise UserError(f"{path}: not a file of splits ({error}); give one that contrique_jax wrote.") from error
    listed = stored.get("splits") if isinstance(stored, dict) else None
    if (
        not isinstance(listed, list)
        or stored.get("format") != FILE_FORMAT
        or type(stored.get("version")) is not int
        or stored["version"] != FILE_VERSION
        or type(stored.get("seed")) not in (int, type(None))
        or not all(isinstance(entry, dict) and all(_names(entry.get(side)) for side in SIDES) for entry in listed)
    ):
        raise UserError(f"{path}: not a file of splits; give one that contrique_jax wrote.")
    return listed, stored.get("seed")


def _names(stored: Any) -> bool:
    return isinstance(stored, list) and all(isinstance(name, str) for name in stored)


@dataclass(frozen=True)
class SplitChoice:
    """The splits of an evaluation."""

    splits: list[Split]
    source: str  # where they come from, in words
    new_file: Path | None = None  # where --splits-file wants them written


def choose_splits(images: ScoredImages, flags: argparse.Namespace) -> SplitChoice:
    """Those of --splits-file, the data set's official one, or random ones.

    Raises UserError if there are too few groups, and if the file does not fit or could not be written.
    """
    path = None if flags.splits_file is None else Path(flags.splits_file).expanduser()
    names = split_names(images)
    if path is not None and path.exists():
        found = read_splits(path, names)
        return SplitChoice(found, f"{len(found)} splits of {path.name}")
    if flags.splits is None and {"train", "test"} <= set(images.official_split or []):
        if path is not None:
            raise UserError(
                f"--splits-file: {images.name} has an official split of its own, which is not written; leave the flag out "
                "or ask for random splits with --splits N."
            )
        return _official(images)
    count = 10 if flags.splits is None else flags.splits
    found = make_splits(names, count, flags.seed, "--images" if flags.images else "--scores")
    new_file = None if path is None else output_path("--splits-file", str(path), (".json",))
    return SplitChoice(found, f"{count} random splits 70/10/20", new_file)


def write_new(chosen: SplitChoice, images: ScoredImages, seed: int) -> None:
    """Writes the splits if --splits-file asks for it."""
    if chosen.new_file is not None:
        about = {"data_set": images.name, "images": len(images), "seed": seed}
        write_splits(chosen.new_file, chosen.splits, split_names(images), about)


def _official(images: ScoredImages) -> SplitChoice:
    sides = images.official_split or []
    split = official_split(sides, images.groups)
    twice = sum(side in ("train", "validation") for side in sides) - len(split.train) - len(split.validation)
    if not twice:
        return SplitChoice([split], "the official split")
    counted = "1 image that is" if twice == 1 else f"{twice} images that are"
    return SplitChoice([split], f"the official split ({counted} also on its test side left out of training)")


def split_names(images: ScoredImages) -> list[str]:
    """The groups; images that are groups of their own go by their place in the data set, wherever that lies."""
    own = {str(path): _relative(path, images) for path in images.paths}  # also of one whose equal files joined it
    return [own.get(group, group) for group in images.groups]


def _relative(path: Path, images: ScoredImages) -> str:
    return Path(os.path.relpath(path, images.folder)).as_posix()


def splits_hash(splits: Sequence[Split], images: ScoredImages) -> str:
    """Twelve hexadecimal digits that name which images are on which side, wherever the data set lies."""
    names = np.array([_relative(path, images) for path in images.paths])
    return short_hash([[sorted(names[side]) for side in (s.train, s.validation, s.test)] for s in splits])


def images_hash(images: ScoredImages) -> str:
    """Twelve hexadecimal digits that name the images, by their names, with their scores and their meaning."""
    names = [_relative(path, images) for path in images.paths]
    scores = [float(score) for score in images.scores]
    return short_hash([names, scores, images.higher_is_better, images.shorter_side])


def short_hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:12]
