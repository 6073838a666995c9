"""Colour quantisation with dithering: type 06 (docs/distortions.md)."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

MOST_COLOURS = 64
CELLS = 32  # a side of the colour cube: 5 bits a channel, as in MATLAB's inverse colour map
FRACTION = 2  # bits that dithering adds to an 8-bit code
MOST_PIXELS = 2**23  # whose sum of codes fits in 32 bits

_STRIDES = np.array([(CELLS + 1) ** 2, CELLS + 1, 1])  # of the cube's axes among the corners of its cells
_NO_PIXEL = -1


def quantise(key: PRNGKeyArray, image: Float[Array, "h w 3"], count: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 06. The image in at most `count` (1..64) 8-bit colours of its own choice, dithered after Floyd and Steinberg.

    Colours that share a cell of 8 x 8 x 8 codes count as one.
    """
    moments = cell_moments(jnp.floor(255 * image + 0.5).astype(jnp.int32))
    table = nearest_colours(moments, *choose_colours(moments, count))
    return dither(jnp.floor((255 << FRACTION) * image + 0.5).astype(jnp.int32), table).astype(jnp.float32) / 255


def cell_moments(codes: Int[Array, "h w 3"]) -> Int[Array, "32768 4"]:
    """Number of pixels and their summed codes (0..255) in each cell of the colour cube."""
    codes = codes.reshape(-1, 3)
    codes = codes[:: 1 + (len(codes) - 1) // MOST_PIXELS]
    rows = jnp.concatenate([jnp.ones_like(codes[:, :1]), codes], axis=1)
    return jnp.zeros((CELLS**3, 4), jnp.int32).at[_cell(*jnp.moveaxis(codes // 8, -1, 0))].add(rows)


def choose_colours(
    moments: Int[Array, "32768 4"], count: Float[Array, ""]
) -> tuple[Int[Array, "64 3"], Int[Array, ""]]:
    """The palette, and how many of its entries are in use: means of boxes that the colour cube is split into.

    Each turn makes the one cut between cells, over all boxes and axes, that lowers the squared error the most.
    """
    cube = jnp.pad(moments.reshape(CELLS, CELLS, CELLS, 4), [(1, 0)] * 3 + [(0, 0)])
    for axis in range(3):
        cube = jnp.cumsum(cube, axis)
    below = cube.reshape(-1, 4)  # moments of the box from the origin to each corner of a cell
    lows, highs = jnp.zeros((MOST_COLOURS, 3), jnp.int32), jnp.full((MOST_COLOURS, 3), CELLS, jnp.int32)
    cuts = tuple(jnp.zeros(MOST_COLOURS, value.dtype).at[0].set(value) for value in _best_cut(below, lows[0], highs[0]))

    def split(turn: Int[Array, ""], state: tuple) -> tuple:
        lows, highs, cuts, used = state
        gains, axes, places = cuts
        box = gains.argmax()
        cut = jnp.arange(3) == axes[box]
        halves = (
            jnp.stack([lows[box], jnp.where(cut, places[box], lows[box])]),
            jnp.stack([jnp.where(cut, places[box], highs[box]), highs[box]]),
        )
        new = (*halves, *jax.vmap(_best_cut, (None, 0, 0))(below, *halves))
        # if no box can be cut, both halves are dropped
        slots = jnp.where(gains[box] > 0, jnp.stack([box, turn]), MOST_COLOURS)
        lows, highs, *cuts = (
            old.at[slots].set(value, mode="drop") for old, value in zip((lows, highs, *cuts), new, strict=True)
        )
        return lows, highs, tuple(cuts), used + (gains[box] > 0)

    turns = jnp.asarray(count).astype(jnp.int32)
    lows, highs, _, used = jax.lax.fori_loop(1, turns, split, (lows, highs, cuts, jnp.int32(1)))
    sums = jnp.zeros((MOST_COLOURS, 4), jnp.int32)
    for ends in itertools.product((0, 1), repeat=3):
        corner = sum((lows, highs)[end][:, axis] * _STRIDES[axis] for axis, end in enumerate(ends))
        sums += (-1) ** (3 - sum(ends)) * below[corner]
    return _means(sums), used


def _best_cut(
    below: Int[Array, "35937 4"], low: Int[Array, "3"], high: Int[Array, "3"]
) -> tuple[Float[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """By how much the best cut of a box lowers its squared error (0 if there is none), its axis and its place."""
    ends = jnp.stack([low, high]) * _STRIDES
    lines = []  # where the box's four edges along each axis meet the corners of cells
    for axis in range(3):
        one, other = (ends[:, side] for side in range(3) if side != axis)
        lines.append((one[:, None] + other).reshape(4, 1) + np.arange(CELLS + 1) * _STRIDES[axis])
    signs = np.array([1, -1, -1, 1])[:, None, None]
    slabs = (below[jnp.stack(lines)] * signs).sum(1)  # [axis, place, moment] of the box, from the cube's side to there
    left = slabs - jnp.take_along_axis(slabs, low[:, None, None], 1)
    right = jnp.take_along_axis(left, high[:, None, None], 1) - left
    place = np.arange(CELLS + 1)
    inside = (place > low[:, None]) & (place < high[:, None]) & (left[..., 0] > 0) & (right[..., 0] > 0)
    n, m = (jnp.maximum(half[..., 0], 1).astype(jnp.float32) for half in (left, right))
    apart = left[..., 1:] / n[..., None] - right[..., 1:] / m[..., None]
    gains = jnp.where(inside, n / (n + m) * m * (apart**2).sum(-1), 0).reshape(-1)
    best = gains.argmax()
    return gains[best], best // (CELLS + 1), best % (CELLS + 1)


def _means(moments: Int[Array, "n 4"]) -> Int[Array, "n 3"]:
    """Mean codes, rounded; 0 if there is no pixel."""
    pixels = moments[:, :1]
    whole, rest = moments[:, 1:] // jnp.maximum(pixels, 1), moments[:, 1:] % jnp.maximum(pixels, 1)
    return whole + (2 * rest >= jnp.maximum(pixels, 1))


def nearest_colours(
    moments: Int[Array, "32768 4"], palette: Int[Array, "64 3"], used: Int[Array, ""]
) -> Int[Array, " 32768"]:
    """The inverse colour map: for each cell the nearest of the first `used` colours, as R 2^16 + G 2^8 + B.

    A cell stands for the mean of its pixels, or for its centre if there is none: an image of few colours that lie
    in different cells keeps them.
    """
    centres = 8 * np.stack(np.unravel_index(np.arange(CELLS**3), (CELLS,) * 3)).astype(np.int32) + 4
    points = jnp.where(moments[:, 0] > 0, _means(moments).T, centres)

    def consider(number: Int[Array, ""], best: Int[Array, " 32768"]) -> Int[Array, " 32768"]:
        # distance and number in one word: a minimum of words is the least distance, and among equals the first colour
        distance = ((points - palette[number][:, None]) ** 2).sum(0)
        return jnp.minimum(best, distance * MOST_COLOURS + number)

    start = jnp.full(CELLS**3, np.iinfo(np.int32).max)
    nearest = palette[jax.lax.fori_loop(0, used, consider, start) % MOST_COLOURS]
    return (nearest[:, 0] << 16) | (nearest[:, 1] << 8) | nearest[:, 2]


def dither(levels: Int[Array, "h w 3"], table: Int[Array, " 32768"]) -> Int[Array, "h w 3"]:
    """Codes 0..255 of the colours that Floyd and Steinberg's serial algorithm picks from `table` [`nearest_colours`].

    `levels` are 0..1020, in quarters of a code, which is the precision of the errors passed on. All integers: the
    result is the same on every machine. One step of a scan handles all pixels (r, c) of one value of c + 2 r.
    """
    height, width, _ = levels.shape
    # 10 bits a channel in one word
    fronts = _skewed((levels[..., 0] << 20) | (levels[..., 1] << 10) | levels[..., 2])

    def step(errors: tuple, front: Int[Array, " s"]) -> tuple[tuple, Int[Array, " s"]]:
        last, second, third = errors  # of the last three steps
        above = 3 * last + 5 * second + third  # belongs to the row below
        passed = 7 * last + jnp.concatenate([above[:, -1:], above[:, :-1]], axis=1)
        level = (front >> np.array([[20], [10], [0]])) & 1023
        wanted = jnp.clip(level + ((passed + 8) >> 4), 0, 255 << FRACTION)
        colour = table[_cell(*(wanted >> (FRACTION + 3)))]
        error = jnp.where(front == _NO_PIXEL, 0, wanted - (((colour >> np.array([[16], [8], [0]])) & 255) << FRACTION))
        return (error, last, second), colour

    nothing = jnp.zeros((3, fronts.shape[1]), jnp.int32)
    colours = _straight(jax.lax.scan(step, (nothing,) * 3, fronts)[1], height, width)
    return jnp.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1)


def _cell(red: Array, green: Array, blue: Array) -> Array:
    return (red * CELLS + green) * CELLS + blue


def _slots(height: int, width: int) -> tuple[int, int, int, int]:
    """Slots s, turns of rows through them, steps from one row of a slot to its next, steps in all."""
    # row r is at work in steps 2 r .. 2 r + width - 1 and takes slot r modulo s: s is the least that keeps a slot's
    # rows a step apart, and one slot at rest before the first row
    slots = min(height + 1, width // 2 + 1)
    return slots, -(-height // slots), max(2 * slots, width), width + 2 * (height - 1)


def _skewed(plane: Int[Array, "h w"]) -> Int[Array, "t s"]:
    """`plane` by step and slot; -1 where a slot rests."""
    height, width = plane.shape
    slots, turns, period, steps = _slots(height, width)
    long = max(steps, turns * period - 2)
    plane = jnp.pad(plane, ((0, turns * slots - height), (0, period - width)), constant_values=_NO_PIXEL)
    rows = plane.reshape(turns, slots, period).transpose(1, 0, 2).reshape(slots, turns * period)
    # rows of `long` + 2 read as rows of `long`: each starts 2 steps after the one before it
    rows = jnp.pad(rows, ((0, 0), (0, long + 2 - turns * period)), constant_values=_NO_PIXEL)
    return rows.reshape(-1)[: slots * long].reshape(slots, long)[:, :steps].T


def _straight(fronts: Int[Array, "t s"], height: int, width: int) -> Int[Array, "h w"]:
    """The inverse of `_skewed`."""
    slots, turns, period, steps = _slots(height, width)
    long = max(steps, turns * period - 2)
    rows = jnp.pad(fronts.T, ((0, 0), (0, long - steps))).reshape(-1)
    rows = jnp.pad(rows, (0, 2 * slots)).reshape(slots, long + 2)[:, : turns * period]
    return rows.reshape(slots, turns, period).transpose(1, 0, 2).reshape(-1, period)[:height, :width]
