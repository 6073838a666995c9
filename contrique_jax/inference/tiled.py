"""Features of one image of any size in bounded memory: piece by piece of the network, tile by tile of each map.

The numbers are those of the whole network at once. What is held is the map that a piece reads and the one that it makes, of
which a residual block's takes the place of its input row by row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from contrique_jax.config import ModelConfig
from contrique_jax.io.machine import trim_heap
from contrique_jax.networks.encoder import Variables
from contrique_jax.networks.host_pooling import LEAST_VARIANCE, WINDOWS
from contrique_jax.networks.pooling import window_shares
from contrique_jax.networks.tiles import Cut, Piece, cut, fitted, pieces_of, sides_of

HostMap = Float[np.ndarray, "h w c"]
# (piece, its weights, tile, places) -> a tile of its output, which may still be on its way
Run = Callable[[Piece, tuple[Any, Any], np.ndarray, np.ndarray], Any]
WAITING = 1  # tiles on their way beside the one that is begun: more only hold memory
ROWS = 64  # of a map that statistics look at together


def tiled_features(
    model: ModelConfig,
    variables: Variables,
    image: Shaped[np.ndarray, "h w 3"],
    run: Run,
    windows: bool,
    unit: bool = True,
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "g g d"] | None]:
    """What `encode` (with `windows` `encode_windows`) gives for one uint8 image; pooled features L2-normalised if `unit`."""
    found, parts = [], []
    x: np.ndarray = image
    pieces = pieces_of(model)
    for piece in pieces:
        x = _made(model, fitted(piece, *x.shape[:2]), _weights(variables, piece), x, run)
        if piece.ends and (model.features == "stages" or piece is pieces[-1]):
            mean, deviation = _statistics(x)
            found.append((mean, deviation))
            if windows:
                parts.append(_window_statistics(x, mean))
    if model.features == "stages":
        vector = np.concatenate([values for pair in found for values in pair])
        grid = np.concatenate([values for pair in parts for values in pair], axis=2) if windows else None
        return vector.astype(np.float32), None if grid is None else grid.astype(np.float32)
    grid = _normalised(parts[-1][0]).astype(np.float32) if windows else None
    vector = found[-1][0]
    return (_normalised(vector) if unit else vector).astype(np.float32), grid


def map_bytes(model: ModelConfig, variables: Variables, height: int, width: int) -> int:
    """What the maps of `tiled_features` take at most [bytes]: besides them there are the image, tiles and weights."""
    most, before, x = 0, 0, (height, width)
    for piece in pieces_of(model):
        x = sides_of(piece, x[0])[-1], sides_of(piece, x[1])[-1]
        after = 4 * x[0] * x[1] * _channels(_weights(variables, piece)[0])
        most, before = max(most, after if after <= before else before + after), after
    return most


def tile_arguments(model: ModelConfig, variables: Variables) -> Iterator[tuple[Piece, Any, Any, Any]]:
    """Each piece with what it is run with: weights, and the shapes of a tile and of places."""
    channels, kind = 3, jnp.uint8
    for piece in pieces_of(model):
        weights = _weights(variables, piece)
        rows, columns = (cut(model, piece, 1 << 20, 0, axis).length[0] for axis in (0, 1))
        tile = jax.ShapeDtypeStruct((1, rows, columns, channels), kind)
        yield piece, weights, tile, jax.ShapeDtypeStruct((len(piece.steps), 4), jnp.int32)
        channels, kind = _channels(weights[0]), jnp.float32


def _made(model: ModelConfig, piece: Piece, weights: tuple[Any, Any], x: np.ndarray, run: Run) -> HostMap:
    """The piece's whole output, in the memory of its input if it is no larger."""
    rows, columns = (sides_of(piece, side)[-1] for side in x.shape[:2])
    channels = _channels(weights[0])
    if x.dtype == np.float32 and _fits(model, piece, x, columns * channels, rows):
        out = x.reshape(-1)[: rows * columns * channels].reshape(rows, columns, channels)
    else:
        out = np.empty((rows, columns, channels), np.float32)
    late: list[tuple[int, np.ndarray]] = []  # what takes the place of rows that the next tiles still read
    for row in range(0, rows, piece.tile[0]):
        band = _band(model, piece, x, row, columns, lambda tile, places: run(piece, weights, tile, places))
        for column, made in late:
            _put(out, row - piece.tile[0], column, made)
        late = band
        trim_heap()
    for column, made in late:
        _put(out, (rows - 1) // piece.tile[0] * piece.tile[0], column, made)
    return out


def _fits(model: ModelConfig, piece: Piece, x: np.ndarray, row_size: int, rows: int) -> bool:
    """Whether no row of output, written when the band below it is made, falls on rows that a later band reads."""
    for row in range(0, rows, piece.tile[0]):
        later = row + 2 * piece.tile[0]
        if (
            later < rows
            and (row + piece.tile[0]) * row_size > max(cut(model, piece, len(x), later, 0).first[0], 0) * x[0].size
        ):
            return False
    return rows * row_size <= x.size


def _band(
    model: ModelConfig, piece: Piece, x: np.ndarray, row: int, columns: int, run: Callable[..., Any]
) -> list[tuple[int, np.ndarray]]:
    """(first column, tile) of the row of tiles that begins at `row`."""
    waiting: deque[Any] = deque()
    down, band = cut(model, piece, x.shape[0], row, 0), []
    for column in range(0, columns, piece.tile[1]):
        right = cut(model, piece, x.shape[1], column, 1)
        made = run(_padded(x, down, right), _places(down, right))
        band.append((column, made))
        waiting.append(made)
        if len(waiting) > WAITING:
            waiting.popleft().block_until_ready()
    return [(column, np.asarray(made)) for column, made in band]


def _padded(x: np.ndarray, down: Cut, right: Cut) -> Shaped[np.ndarray, "1 t t c"]:
    """A part of the map, zeros around it."""
    tile = np.zeros((1, down.length[0], right.length[0], x.shape[2]), x.dtype)
    (top, bottom), (left, end) = (
        (max(c.first[0], 0), min(c.first[0] + c.length[0], c.whole[0])) for c in (down, right)
    )
    tile[0, top - down.first[0] : bottom - down.first[0], left - right.first[0] : end - right.first[0]] = x[
        top:bottom, left:end
    ]
    return tile


def _places(down: Cut, right: Cut) -> Int[np.ndarray, "steps 4"]:
    steps = zip(down.first, down.whole, right.first, right.whole, strict=True)
    return np.array(list(steps)[:-1], np.int32)


def _put(out: HostMap, row: int, column: int, tile: np.ndarray) -> None:
    part = out[row : row + tile.shape[1], column : column + tile.shape[2]]
    part[...] = tile[0, : part.shape[0], : part.shape[1]]


def _statistics(x: HostMap) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Means and deviations over the map, in float64."""
    count, runs = x.shape[0] * x.shape[1], [x[i : i + ROWS] for i in range(0, len(x), ROWS)]
    mean = sum(run.sum((0, 1), dtype=np.float64) for run in runs) / count
    variance = sum(np.square(run - mean.astype(np.float32)).sum((0, 1), dtype=np.float64) for run in runs) / count
    return mean, np.sqrt(variance + LEAST_VARIANCE)


def _window_statistics(x: HostMap, mean: np.ndarray) -> tuple[Float[np.ndarray, "g g c"], Float[np.ndarray, "g g c"]]:
    rows, columns = (np.asarray(window_shares(side, jnp.array([side])))[0] for side in x.shape[:2])

    def means(power: int) -> Float[np.ndarray, "g g c"]:
        total = np.zeros((WINDOWS, x.shape[1], x.shape[2]), np.float64)
        for i in range(0, len(x), ROWS):
            off = (x[i : i + ROWS] - mean.astype(np.float32)) ** power
            total += np.tensordot(rows[:, i : i + ROWS], off, 1)
        return np.tensordot(columns, total, (1, 1)).swapaxes(0, 1)

    shift = means(1)
    return mean + shift, np.sqrt(np.maximum(means(2) - np.square(shift), 0) + LEAST_VARIANCE)


def _normalised(values: np.ndarray) -> np.ndarray:
    return values / np.sqrt(np.maximum(np.square(values).sum(-1, keepdims=True), 1e-24))


def _weights(variables: Variables, piece: Piece) -> tuple[Any, Any]:
    """Parameters and statistics of the piece's module."""
    trees = [variables[kind]["encoder"] for kind in ("params", "batch_stats")]
    for name in piece.path:
        trees = [tree[name] for tree in trees]
    return trees[0], trees[1]


def _channels(params: Any) -> int:
    """Of the map that a piece makes."""
    if "layer1" in params:  # the start of a ResNet goes on to its first block
        return _channels(params["layer1"]["0"])
    if "blocks" in params:  # the start of an EfficientNet-Lite0 goes on to its first stage
        return int(params["blocks"]["0"]["0"]["conv_pw"]["weight"].shape[-1])
    last = next(name for name in ("conv_pwl", "conv3", "conv2", "conv1") if name in params)
    return int(params[last]["weight"].shape[-1])
