"""Which splits an evaluation takes, and names for what it evaluated."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import UserError
from contrique_jax.evaluation.splits import Split, make_splits, official_split, read_splits, write_splits
from contrique_jax.io.outputs import output_path


@dataclass(frozen=True)
class Chosen:
    """The splits of an evaluation."""

    splits: list[Split]
    source: str  # where they come from, in words
    new_file: Path | None = None  # where --splits-file wants them written


def choose_splits(images: ScoredImages, flags: argparse.Namespace) -> Chosen:
    """Those of --splits-file, the data set's official one, or random ones.

    Raises UserError where there are too few groups, and where the file does not fit or could not be written.
    """
    path = None if flags.splits_file is None else Path(flags.splits_file).expanduser()
    names = split_names(images)
    if path is not None and path.exists():
        found = read_splits(path, names)
        return Chosen(found, f"{len(found)} splits of {path.name}")
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
    return Chosen(found, f"{count} random splits 70/10/20", new_file)


def write_new(chosen: Chosen, images: ScoredImages, seed: int) -> None:
    """Writes the splits where --splits-file asks for it."""
    if chosen.new_file is not None:
        about = {"data_set": images.name, "images": len(images), "seed": seed}
        write_splits(chosen.new_file, chosen.splits, split_names(images), about)


def _official(images: ScoredImages) -> Chosen:
    sides = images.official_split or []
    split = official_split(sides, images.groups)
    twice = sum(side in ("train", "validation") for side in sides) - len(split.train) - len(split.validation)
    if not twice:
        return Chosen([split], "the official split")
    counted = "1 image that is" if twice == 1 else f"{twice} images that are"
    return Chosen([split], f"the official split ({counted} also on its test side left out of training)")


def split_names(images: ScoredImages) -> list[str]:
    """The groups; images that are groups of their own go by their place in the data set, wherever that lies."""
    pairs = zip(images.groups, images.paths, strict=True)
    return [_relative(path, images) if group == str(path) else group for group, path in pairs]


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
