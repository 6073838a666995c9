"""Images with opinion scores as records to train on: single ones, or pairs with their references."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import ScoredImages, csv_columns, read_scores, read_set
from contrique_jax.errors import BrokenImage


class RatedSource:
    """Images of a rated set, each with its reference behind it if the set has references; labels are its scores."""

    classes = None

    def __init__(self, name: str, images: ScoredImages, max_pixels: int):
        self.name, self.higher_is_better = name, images.higher_is_better
        self.labels = images.scores.astype(np.float32)
        self.groups = images.groups
        self._folder, self._paths, self._references = images.folder, images.paths, images.references
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self._paths)

    def item_name(self, i: int) -> str:
        return os.path.relpath(self._paths[i], self._folder)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        """[image] or [image, reference]. Raises BrokenImage if one cannot be read or they differ in size."""
        image = read(self._paths[i], self._max_pixels)
        if self._references is None:
            return image[None]
        reference = read(self._references[i], self._max_pixels)
        if image.shape != reference.shape:
            sizes = [f"{other.shape[1]}x{other.shape[0]}" for other in (image, reference)]
            raise BrokenImage(str(self._paths[i]), f"it is {sizes[0]} and its reference {sizes[1]}")
        return np.stack([image, reference])


def open_rated(spec: str, field: str, max_pixels: int) -> RatedSource:
    """`F.csv` with columns path, mos, dmos or score, and reference if there are pairs; or NAME=FOLDER, a public set as its
    authors distribute it, without references. Raises UserError, naming `field`, if it cannot be read."""
    name, equals, folder = spec.partition("=")
    if equals and not Path(spec).expanduser().exists():
        return RatedSource(spec, read_set(name, folder, field=field), max_pixels)
    column = "reference" if "reference" in csv_columns(spec, field) else None
    return RatedSource(spec, read_scores(spec, reference_column=column, field=field), max_pixels)
