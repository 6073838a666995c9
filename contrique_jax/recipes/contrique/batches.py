"""Distorts a row and cuts its two views, row by row on the host or in groups on a device.

Both ways take the same draws and give the same images up to rounding. On the host a row runs the one branch of its
distortion and of each view's colour space; on a device rows of one kind go through their branch together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8, UInt32

from contrique_jax.augment.grouped import by_kind
from contrique_jax.augment.host_views import authentic_view, to_canvas
from contrique_jax.augment.views import (
    COLOURS,
    ViewDraw,
    colour_view,
    draw_at,
    finish_view,
    flip_view,
    place_view,
    two_views,
)
from contrique_jax.data.broken import BrokenLog, load
from contrique_jax.data.pipeline import in_turn
from contrique_jax.data.sources import Source
from contrique_jax.distort import bank


class Canvases(NamedTuple):
    """Clean photographs and what is to become of them; of one row, without the axis n."""

    images: UInt8[Array, "n height width 3"]
    classes: Int[Array, " n"]  # 0..125
    keys: UInt32[Array, "n 2"]
    views: ViewDraw  # fields [n, 2]


class Crops(NamedTuple):
    """Photographs that are not distorted here, both crops cut; of one row, without the axis n."""

    images: UInt8[Array, "n 2 size size 3"]
    classes: Int[Array, " n"]
    views: ViewDraw  # fields [n, 2]


class Batch(NamedTuple):
    """Synthetic and authentic rows in turn."""

    views: UInt8[Array, "rows 2 size size 3"]
    classes: Int[Array, " rows"]


# on the host: one row


def load_canvas(
    source: Source, record: int, height: int, width: int, broken: BrokenLog
) -> UInt8[np.ndarray, "height width 3"]:
    """A clean photograph at the size at which it is distorted."""
    return to_canvas(load(source, record, broken)[0][0], height, width)


def load_crops(
    source: Source, record: int, views: ViewDraw, size: int, broken: BrokenLog
) -> tuple[UInt8[np.ndarray, "2 size size 3"], int]:
    """The two crops of a photograph of any size that is not distorted here, each taken over the whole image, and the
    record that was read; fields of `views` [2]."""
    (image, *_), read = load(source, record, broken)
    crops = [
        authentic_view(image, int(div), float(y), float(x), size)
        for div, y, x in zip(views.div, views.y, views.x, strict=True)
    ]
    return np.stack(crops), read


def synthetic_views(
    key: UInt32[Array, "2"],
    canvas: UInt8[Array, "height width 3"],
    class_id: Int[Array, ""],
    views: ViewDraw,
    *,
    size: int,
    types: tuple[int, ...],
    minmax: bool,
) -> UInt8[Array, "2 size size 3"]:
    """The canvas under its distortion, at full size, then its two views."""
    return two_views(bank.distort(key, canvas, class_id, types=types, minmax=minmax), views, size)


def cropped_views(crops: UInt8[Array, "2 size size 3"], views: ViewDraw) -> UInt8[Array, "2 size size 3"]:
    """Colour space and flip of both crops; written out, because a mapped switch would run every branch."""
    return jnp.stack([finish_view(crops[view], draw_at(views, view)) for view in (0, 1)])


# on a device: many rows


def batch_of(
    halves: Sequence[Canvases | Crops], *, size: int, types: tuple[int, ...], minmax: bool
) -> tuple[UInt8[Array, "rows 2 size size 3"], Int[Array, " rows"]]:
    """The views and classes of a batch, synthetic and authentic rows in turn."""
    views = [views_of(half, size=size, types=types, minmax=minmax) for half in halves]
    classes = [half.classes for half in halves]
    return in_turn(views, jnp.stack), in_turn(classes, jnp.stack)


def views_of(
    rows: Canvases | Crops, *, size: int, types: tuple[int, ...], minmax: bool
) -> UInt8[Array, "n 2 size size 3"]:
    """Both views of each row."""
    draws: ViewDraw = jax.tree.map(lambda part: part.reshape(-1), rows.views)  # fields [2 n]
    if isinstance(rows, Canvases):
        images = distorted(rows, types=types, minmax=minmax)
        both = jax.vmap(lambda image, draw: jax.vmap(lambda one: place_view(image, one, size))(draw))
        crops = both(images, rows.views)
    else:
        crops = rows.images
    crops = crops.reshape(-1, size, size, 3)
    coloured = by_kind(lambda colour, crop: colour_view(crop, colour), draws.colour, (crops,), kinds=len(COLOURS))
    return jax.vmap(flip_view)(coloured, draws.flip).reshape(-1, 2, size, size, 3)


def distorted(rows: Canvases, *, types: tuple[int, ...], minmax: bool) -> UInt8[Array, "n height width 3"]:
    """Each canvas under its distortion."""

    def one(kind: Array, key: Array, image: Array, level: Array) -> Array:
        return bank.distort_kind(key, image, kind, level, types=types, minmax=minmax)

    kinds, levels = bank.kind_and_level(rows.classes)
    return by_kind(one, kinds, (rows.keys, rows.images, levels), kinds=bank.NUM_TYPES + 1)
