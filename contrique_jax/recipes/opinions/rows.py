"""The loader's half of a recipe on opinions: the same crop and flip of an image and its reference, and what it should score.

A module of the recipe takes these functions as its own: roles, canvas, describe, prepared, draw, load, example_shapes,
finish_row, finish. Where all records need a reference it makes `prepared` with `needing_references`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from contrique_jax.data.bank_pairs import BankPairs
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_images
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, in_turn
from contrique_jax.data.rated import RatedSource
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.recipes.opinions.scale import Scored, fit
from contrique_jax.recipes.opinions.teacher import judged

roles = ("rated",)


class Draws(NamedTuple):
    """The choices for n rows."""

    record: Int[np.ndarray, " n"]
    corner: Float[np.ndarray, "n 2"]  # of the crop, as a share of the room there is, in [0, 1)
    flip: Bool[np.ndarray, " n"]


class Rows(NamedTuple):
    """Crops of rated images; of one row, without the axis n."""

    image: UInt8[Array, "n s s 3"]
    reference: UInt8[Array, "n s s 3"]  # black if there is none
    paired: Float[Array, " n"]  # 1 if there is a reference, else 0
    target: Float[Array, " n"]  # what the network should give
    scale: Float[Array, "n 4"]  # the line from there to scores, the same in all rows


class Targets:
    """A rated source with the targets that its scores stand for. `opinions` names the scores, or who gave them."""

    classes = None

    def __init__(self, source: Source, config: Any, broken: BrokenLog):
        self.source, self.name = source, source.name
        behind = _behind(source)
        self.has_reference: Bool[np.ndarray, " n"] = behind.has_reference
        self.sets: Sequence[Scored]
        if isinstance(behind, BankPairs):
            said = judged(source, config.data.teacher, broken, config.data.workers)
            self.sets, self.opinions = [said], said.teacher
        else:
            self.sets, self.opinions = behind.sets, hashlib.sha256(behind.labels.tobytes()).hexdigest()[:12]
        self.labels, self.scale = fit(self.sets, config.data.scaling)

    def __len__(self) -> int:
        return len(self.source)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        return self.source.load(i)

    def item_name(self, i: int) -> str:
        return self.source.item_name(i)


def _behind(source: Any) -> RatedSource | BankPairs:
    """What caches stand before. Raises UserError if its images have no opinions."""
    while not isinstance(source, RatedSource | BankPairs):
        if not hasattr(source, "source"):
            raise UserError(
                f"config.data.rated={source.name}: its images have no opinions; give F.csv with a column of scores, "
                "NAME=FOLDER, or bank:PHOTOS for a teacher."
            )
        source = source.source
    return source


def canvas(config: Any) -> tuple[int, int]:
    return 384, 512


def describe(config: Any, sources: Sources) -> str:
    rated = cast(Targets, sources["rated"])
    pairs, names = int(rated.has_reference.sum()), ", ".join(each.name for each in rated.sets)
    return f"{len(rated)} rated images, {pairs} with references, of {names}"


def prepared(config: Any, sources: Sources, broken: BrokenLog) -> Sources:
    """The source with its targets. Raises UserError if all scores of a set are the same."""
    return {"rated": Targets(sources["rated"], config, broken)}


def needing_references(config: Any, sources: Sources, broken: BrokenLog) -> Sources:
    """`prepared` of a recipe that compares. Raises UserError too if an image has no reference."""
    found = Targets(sources["rated"], config, broken)
    missing = np.flatnonzero(~found.has_reference)
    if len(missing):
        raise UserError(
            f"config.data.rated={found.name}: {len(missing)} of its {len(found)} images have no reference, the first is "
            f"{found.item_name(int(missing[0]))}; give a column `reference`, or train a system that judges images alone."
        )
    return {"rated": found}


def draw(config: Any, sources: Sources, step: int, rows: range) -> tuple[Draws]:
    ids = records(config.train.seed, step, 0, len(sources["rated"]), config.data.batch_size)[rows.start : rows.stop]
    chosen = np.array([np.random.default_rng([config.train.seed, step, row]).random(3) for row in rows])
    return (Draws(ids, chosen[:, :2], (chosen[:, 2] < 0.5) & config.data.flips),)


def load(config: Any, sources: Sources, role: int, draws: Draws, row: int, broken: BrokenLog) -> Rows:
    source = cast(Targets, sources["rated"])
    stack, number = load_images(source, int(draws.record[row]), broken)
    crops = crop(stack, draws.corner[row], config.data.view_size)
    if draws.flip[row]:
        crops = crops[:, :, ::-1]
    paired = len(stack) > 1
    reference = crops[1] if paired else np.zeros_like(crops[0])
    numbers = np.float32(paired), source.labels[number], np.array(source.scale, np.float32)
    return Rows(crops[0], reference, *numbers)  # type: ignore[arg-type]


def crop(
    stack: UInt8[np.ndarray, "k h w 3"], corner: Float[np.ndarray, "2"], side: int
) -> UInt8[np.ndarray, "k s s 3"]:
    """The same window of all; an image smaller than it is continued by its mirror image."""
    places = []
    for length, share in zip(stack.shape[1:3], corner, strict=True):
        start = int(share * max(length - side + 1, 1))
        places.append(mirrored(start + np.arange(side), length, np))
    return stack[:, places[0][:, None], places[1][None, :]]


def mirrored(places: Any, length: Any, xp: Any = jnp) -> Any:
    """Places 0, 1, ... along a side -> the pixels there, of a side that is continued by its mirror image, edge not repeated."""
    period = xp.maximum(2 * (length - 1), 1)  # a side of one pixel: that one
    within = places % period
    return xp.minimum(within, period - within)


def example_shapes(config: Any, sources: Sources | None = None) -> tuple[Rows]:
    side = config.data.view_size
    pixels = jax.ShapeDtypeStruct((side, side, 3), np.uint8)
    number = jax.ShapeDtypeStruct((), np.float32)
    return (Rows(pixels, pixels, number, number, jax.ShapeDtypeStruct((4,), np.float32)),)  # type: ignore[arg-type]


def finish_row(config: Any, role: int, example: Rows) -> Rows:
    """Nothing is left to do: networks take bytes."""
    return example


def finish(config: Any, examples: tuple[Rows]) -> Rows:
    return Rows(*(in_turn(parts, jnp.stack) for parts in zip(*examples, strict=True)))
