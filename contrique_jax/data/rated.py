"""Images with opinion scores as records to train on: single ones, or pairs with their references."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import ScoredImages, csv_columns, layout_of, read_scores, read_set
from contrique_jax.data.sizes import to_shorter_side
from contrique_jax.errors import BrokenImage


class RatedSource:
    """Images of rated sets, each with its reference behind it if its set has references; labels are the scores."""

    classes = None

    def __init__(self, name: str, sets: Sequence[ScoredImages], max_pixels: int):
        self.name, self.sets, self._max_pixels = name, list(sets), max_pixels
        self.labels = np.concatenate([each.scores for each in sets]).astype(np.float32)
        self._files = [
            (image, reference, each)
            for each in sets
            for image, reference in itertools.zip_longest(each.paths, each.references or [])
        ]
        self.has_reference = np.array([reference is not None for _, reference, _ in self._files])

    def __len__(self) -> int:
        return len(self._files)

    def item_name(self, i: int) -> str:
        image, _, whole = self._files[i]
        return os.path.relpath(image, whole.folder)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        """[image] or [image, reference]. Raises BrokenImage if one cannot be read or they differ in size."""
        place, beside, whole = self._files[i]
        stack = [read(path, self._max_pixels) for path in (place, beside) if path is not None]
        if len(stack) > 1:
            check_sizes(str(place), *stack)
        if whole.shorter_side is not None:
            stack = [to_shorter_side(image, whole.shorter_side) for image in stack]
        return np.stack(stack)


def check_sizes(name: str, image: UInt8[np.ndarray, "h w 3"], reference: UInt8[np.ndarray, "i j 3"]) -> None:
    """Raises BrokenImage, naming the image, if its reference has another size."""
    if image.shape != reference.shape:
        sizes = [f"{other.shape[1]}x{other.shape[0]}" for other in (image, reference)]
        raise BrokenImage(name, f"it is {sizes[0]} and its reference {sizes[1]}")


def open_rated(spec: str, field: str, max_pixels: int) -> RatedSource:
    """`F.csv` with columns path, mos, dmos or score, and reference if there are pairs; NAME=FOLDER, a public set as its authors
    distribute it, with references if it has some, and of official splits the training part alone; or several of these with
    commas between. Raises UserError, naming `field`, if one cannot be read."""
    whole = Path(spec).expanduser().exists() or "," not in spec
    return RatedSource(spec, [_one(part.strip(), field) for part in ([spec] if whole else spec.split(","))], max_pixels)


def _one(spec: str, field: str) -> ScoredImages:
    name, equals, folder = spec.partition("=")
    if not equals or Path(spec).expanduser().exists():
        column = "reference" if "reference" in csv_columns(spec, field) else None
        return read_scores(spec, reference_column=column, field=field)
    found = read_set(name, folder, with_references=bool(layout_of(name, field).references), field=field)
    if found.official_split is None:
        return found
    return found.subset([i for i, part in enumerate(found.official_split) if part == "train"])
