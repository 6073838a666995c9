"""What becomes of a row's pixels: distortion and two views, one row at a time on the host or many at once on a device.

Both ways take the same draws and give the same images up to rounding. On the host a row runs the one branch of its
distortion and of each view's colour space. On an accelerator rows go by the dozen, and a switch over rows would run
every branch for each; so rows of one kind are brought together and go through their branch in groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8, UInt32

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
from contrique_jax.distort import bank

LEAST_GROUP = 4  # rows of one kind that go together at least


class Canvases(NamedTuple):
    """Clean photographs and what is to become of them."""

    images: UInt8[Array, "n height width 3"]
    classes: Int[Array, " n"]  # 0..125
    keys: UInt32[Array, "n 2"]
    views: ViewDraw  # fields [n, 2]


class Crops(NamedTuple):
    """Photographs that are not distorted here, both crops cut."""

    images: UInt8[Array, "n 2 size size 3"]
    classes: Int[Array, " n"]
    views: ViewDraw  # fields [n, 2]


class Rows(NamedTuple):
    """A batch whose pixels are finished on the devices; the rows of the halves come in turn."""

    synthetic: Canvases | Crops
    authentic: Crops


# on the host: one row


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
    rows: Rows, *, size: int, types: tuple[int, ...], minmax: bool
) -> tuple[UInt8[Array, "rows 2 size size 3"], Int[Array, " rows"]]:
    """The views and classes of a batch, synthetic and authentic rows in turn."""
    views = [views_of(half, size=size, types=types, minmax=minmax) for half in rows]
    classes = [half.classes for half in rows]
    return in_turn(views, jnp.stack), in_turn(classes, jnp.stack)


def in_turn(halves: Sequence[Any], stack: Callable[..., Any]) -> Any:
    """[n, ...] and [n, ...] -> [2n, ...], in turn, by the `stack` of NumPy or of JAX."""
    return stack(halves, axis=1).reshape(-1, *halves[0].shape[1:])


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


def by_kind(
    function: Callable[..., Array], kind_of_row: Int[Array, " n"], rows: tuple[Any, ...], *, kinds: int
) -> Array:
    """function(kind, *row) of each row, where all that `function` branches on is the row's kind, 0..kinds-1.

    Rows are sorted by kind and mapped in groups of one kind; the last group of a kind repeats a row to be full.
    """
    count = len(kind_of_row)
    group = min(max(-(-count // kinds), LEAST_GROUP), count)
    order = jnp.argsort(kind_of_row, stable=True)
    rows_of_kind = jnp.bincount(kind_of_row, length=kinds)
    first_row = jnp.cumsum(rows_of_kind) - rows_of_kind
    groups_of_kind = -(-rows_of_kind // group)
    last_group = jnp.cumsum(groups_of_kind)

    def step(number: Array, done: Array) -> Array:
        kind = jnp.searchsorted(last_group, number, side="right")
        within = (number - (last_group[kind] - groups_of_kind[kind])) * group + jnp.arange(group)
        chosen = order[first_row[kind] + jnp.minimum(within, rows_of_kind[kind] - 1)]
        mine = jax.tree.map(lambda part: part[chosen], rows)
        return done.at[chosen].set(mapped(kind, *mine))

    mapped = jax.vmap(function, in_axes=(None, *[0] * len(rows)))
    result = jax.eval_shape(mapped, kind_of_row[0], *rows)
    return jax.lax.fori_loop(0, last_group[-1], step, jnp.zeros(result.shape, result.dtype))
