"""Pairs of the quality-aware encoder: of a photograph and its distorted copies two partly overlapping crops, at two sizes."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from contrique_jax.augment.grouped import by_kind
from contrique_jax.augment.half import half_by_points, half_scale
from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_image
from contrique_jax.data.sources import Source
from contrique_jax.recipes.reiqa.config import NUM_TYPES, SCALES, ReiqaConfig, ReiqaData
from contrique_jax.recipes.reiqa.types import distorted

LEVELS = 5


class Plan(NamedTuple):
    """What becomes of a photograph; with a leading axis, of many. c copies, the photograph itself the first."""

    places: Int[Array, "c-1"]  # of each other copy's type among those that are used
    levels: Int[Array, "c-1"]  # 1..5
    offset: Int[Array, "2 2"]  # at each size: rows and columns from the first crop to the second
    corner: Float[
        Array, "2 2"
    ]  # at each size: where the window of both begins, as a share of the room there is, in [0, 1)


class Draws(NamedTuple):
    """The choices for n photographs."""

    record: Int[np.ndarray, " n"]
    key: UInt32[np.ndarray, "n 2"]  # what is random inside the distortions
    plan: Plan  # fields [n, ...]


class Example(NamedTuple):
    """A photograph before it is distorted; of one record, without the axis n."""

    image: UInt8[Array, "n h w 3"]
    key: UInt32[Array, "n 2"]
    plan: Plan


def types_of(data: ReiqaData) -> tuple[int, ...]:
    return tuple(data.types) or tuple(range(1, NUM_TYPES + 1))


def offsets_of(view_size: int, least: float, most: float) -> tuple[int, Int[np.ndarray, " n"]]:
    """The fewest rows between two crops, and of each number of rows from there on how many columns are allowed, 0, 1, ...

    An overlap of at most `most` by the rows alone, and of more than `least` by both. The last allowed column is left out, as
    in the original.
    """
    side, slack = view_size, 1e-9
    rows = np.arange(math.ceil((1 - most) * side - slack), math.ceil((1 - least) * side - slack))
    columns = np.floor(side - least * side**2 / (side - rows) + slack).astype(np.int32)
    return int(rows[0]), np.maximum(columns, 1)


@functools.partial(jax.jit, static_argnums=(3,))
def choices(
    seed: int, step: int, rows: Int[Array, " n"], settings: tuple[int, int, int, float, float]
) -> tuple[Array, Plan]:
    """`settings`: copies, types in use, side of a crop, least and largest overlap."""
    copies, types, side, least, most = settings
    batch_key = jax.random.fold_in(jax.random.key(seed), step)
    fewest, columns = offsets_of(side, least, most)

    def one(row: Array) -> tuple[Array, Plan]:
        inside, type_key, level_key, down_key, across_key, corner_key = jax.random.split(
            jax.random.fold_in(batch_key, row), 6
        )
        down = jax.random.randint(down_key, (SCALES,), 0, len(columns))
        allowed = jnp.asarray(columns)[down]
        across = jnp.minimum((jax.random.uniform(across_key, (SCALES,)) * allowed).astype(jnp.int32), allowed - 1)
        plan = Plan(
            jax.random.permutation(type_key, types)[: copies - 1].astype(jnp.int32),
            jax.random.randint(level_key, (copies - 1,), 1, LEVELS + 1),
            jnp.stack([fewest + down, across], axis=1),
            jax.random.uniform(corner_key, (SCALES, 2)),
        )
        return jax.random.key_data(inside), plan

    return jax.vmap(one)(rows)


def draw(config: ReiqaConfig, record: Int[np.ndarray, " n"], step: int, rows: range) -> Draws:
    data = config.data
    settings = (data.copies, len(types_of(data)), data.view_size, data.overlap_least, data.overlap_most)
    return Draws(
        record, *jax.tree.map(np.asarray, choices(config.train.seed, step, np.arange(rows.start, rows.stop), settings))
    )


def load(config: ReiqaConfig, source: Source, draws: Draws, row: int, broken: BrokenLog) -> Example:
    (image, *_), _ = load_image(source, int(draws.record[row]), broken)
    plan = jax.tree.map(lambda part: part[row], draws.plan)
    return Example(to_canvas(image, config.data.height, config.data.width), draws.key[row], plan)  # type: ignore[arg-type]


def example_shapes(config: ReiqaConfig) -> Example:
    def array(*shape: int, dtype: Any = np.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    data, others = config.data, config.data.copies - 1
    plan = Plan(array(others), array(others), array(SCALES, 2), array(SCALES, 2, dtype=np.float32))
    return Example(array(data.height, data.width, 3, dtype=np.uint8), array(2, dtype=np.uint32), plan)


def finish_row(config: ReiqaConfig, example: Example) -> UInt8[Array, "p 2 s s 3"]:
    types, others = types_of(config.data), jnp.arange(config.data.copies - 1)

    def one(each: tuple[Array, Array, Array]) -> Array:
        place, level, number = each
        return distorted(place, _own_key(example.key, number), example.image, level, types)

    made = jax.lax.map(one, (example.plan.places, example.plan.levels, others))
    return pairs(config.data, jnp.concatenate([example.image[None], made]), example.plan)


def finish(config: ReiqaConfig, example: Example) -> UInt8[Array, "n p 2 s s 3"]:
    """All copies of one type are made together."""
    types, (n, others) = types_of(config.data), example.plan.places.shape
    keys = jax.vmap(lambda key: jax.vmap(functools.partial(_own_key, key))(jnp.arange(others)))(example.key)

    def one(place: Array, which: Array, key: Array, level: Array) -> Array:
        return distorted(place, key, example.image[which], level, types)

    rows = (jnp.repeat(jnp.arange(n), others), keys.reshape(-1, 2), example.plan.levels.reshape(-1))
    made = by_kind(one, example.plan.places.reshape(-1), rows, kinds=len(types))
    whole = jnp.concatenate([example.image[:, None], made.reshape(n, others, *made.shape[1:])], axis=1)
    return jax.lax.map(lambda each: pairs(config.data, *each), (whole, example.plan))


def _own_key(key: UInt32[Array, "2"], number: Int[Array, ""]) -> UInt32[Array, "2"]:
    return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), number))


def pairs(data: ReiqaData, copies: UInt8[Array, "c h w 3"], plan: Plan) -> UInt8[Array, "p 2 s s 3"]:
    """Query and key crop of each copy at full size, then of each at half size. Half of the copies have them exchanged, the
    others at half size."""
    halved = half_scale if data.antialias else half_by_points
    half = halved(copies.astype(jnp.float32) / 255)
    half = jnp.floor(255 * jnp.clip(half, 0, 1) + 0.5).astype(jnp.uint8)
    found = []
    for scale, images in enumerate((copies, half)):
        window = data.view_size + jnp.max(plan.offset[scale])
        corner = corner_of(plan.corner[scale], images.shape[1:3], window)
        found.append(exchanged(two_crops(images, corner, plan.offset[scale], data.view_size), scale))
    return jnp.concatenate(found)


def corner_of(share: Float[Array, "2"], shape: tuple[int, ...], window: Int[Array, ""]) -> Int[Array, "2"]:
    """Row and column where the square window of both crops begins: anywhere, or if a side is shorter, in the middle of both
    and partly outside, below 0."""
    sides = jnp.asarray(shape)
    room = sides - window
    anywhere = jnp.minimum(jnp.floor(share * (room + 1)).astype(jnp.int32), room)
    middle = jnp.where(room < 0, -(-room // 2), jnp.round(room / 2).astype(jnp.int32))
    return jnp.where(jnp.any(room < 0), middle, anywhere)


def two_crops(
    images: Array, corner: Int[Array, "2"], offset: Int[Array, "2"], side: int
) -> Array:  # [c, h, w, 3] -> [c, 2, side, side, 3]
    """The crop at the corner and that at the offset from it, of all images; black where there is no image."""
    margin = [max(2 * side - length + 1, 0) // 2 for length in images.shape[1:3]]  # offsets are below the side
    padded = jnp.pad(images, ((0, 0), *((each, each) for each in margin), (0, 0)))

    def crop(place: Int[Array, "2"]) -> Array:
        top, left = place[0] + margin[0], place[1] + margin[1]
        return jax.lax.dynamic_slice(padded, (0, top, left, 0), (len(images), side, side, 3))

    return jnp.stack([crop(corner), crop(corner + offset)], axis=1)


def exchanged(crops: Array, scale: int) -> Array:  # [c, 2, ...]
    """Query and key exchanged of the first half of the copies at full size (scale 0), of the second at half size."""
    first = jnp.arange(len(crops)) < len(crops) // 2
    turned = first if scale == 0 else ~first
    return jnp.where(turned[:, None, None, None, None], crops[:, ::-1], crops)
