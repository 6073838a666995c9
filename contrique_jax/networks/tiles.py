"""Encoders in evaluation piece by piece and tile by tile: whatever the size of the image, the same few small programs.

A piece is a residual block, or the layers before the first one. Its map is made in tiles of one shape, each from the part of
the piece's input that it needs, zeros beyond the image. The numbers are those of the whole network. What calls the
pieces keeps the maps between them, so the memory that it takes is that of two maps.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from contrique_jax.config import ModelConfig
from contrique_jax.networks.convolution import convolve, max_pool_inside
from contrique_jax.networks.efficientnet import Block, EfficientNetLite0, relu6
from contrique_jax.networks.encoder import encoder_of, scaled
from contrique_jax.networks.layers import RUNNING, Map
from contrique_jax.networks.lite0 import STAGES, same_pads
from contrique_jax.networks.resnet import ARCHITECTURES, BasicBlock, Bottleneck

Step = tuple[int, int]  # kernel and stride of what sees neighbours
SIDE, FIRST_SIDE = 64, 128  # of a tile of a piece's output, of the first piece's
NARROW = 16  # maps with a side of at most that have tiles as narrow, and longer


class Piece(NamedTuple):
    """Layers from one map to the next."""

    path: tuple[str, ...]  # of their module in the encoder, () is the encoder itself
    # of the module, a tile and ones where the image is, before each step
    layer: Callable[[Any, Map, Sequence[Map]], Map]
    steps: tuple[Step, ...]
    ends: bool  # its map is the last of a stage
    tile: tuple[int, int] = (SIDE, SIDE)  # rows and columns that are made at a time


class Cut(NamedTuple):
    """Where a tile lies: the first row (or column) and how many, of the piece's input and after each of its steps, and the
    length of the whole side there."""

    first: tuple[int, ...]
    length: tuple[int, ...]
    whole: tuple[int, ...]


def pieces_of(model: ModelConfig) -> list[Piece]:
    """The encoder in its order; "stages" of an EfficientNet-Lite0 needs no head."""
    if model.encoder == "efficientnet_lite0":
        pieces = [Piece((), _lite_start, ((3, 2), (3, 1)), True, (FIRST_SIDE, FIRST_SIDE))]
        for i, (size, stride, _, _, depth) in enumerate(STAGES[1:], start=1):
            for j in range(depth):
                step = (size, stride if j == 0 else 1)
                pieces.append(Piece(("blocks", str(i), str(j)), _lite_block, (step,), j == depth - 1))
        return pieces if model.features == "stages" else [*pieces, Piece((), _lite_head, ((1, 1),), True)]
    kind, depths = ARCHITECTURES[model.encoder]
    pieces = []
    for i, depth in enumerate(depths):
        for j in range(depth):
            first = (3, 2 if i and j == 0 else 1)
            steps: tuple[Step, ...] = (first,) if kind is Bottleneck else (first, (3, 1))
            layer = _bottleneck if kind is Bottleneck else _basic_block
            pieces.append(Piece((f"layer{i + 1}", str(j)), layer, steps, j == depth - 1))
    # the start goes with the first block: the map between them is never kept beside the block's
    block = pieces[0]
    start = functools.partial(_resnet_start, block.layer)
    return [block._replace(path=(), layer=start, steps=((7, 2), (3, 2), *block.steps)), *pieces[1:]]


def sides_of(piece: Piece, side: int) -> tuple[int, ...]:
    """A side of the piece's input, and after each of its steps."""
    sides = [side]
    for _, stride in piece.steps:
        sides.append(-(-sides[-1] // stride))
    return tuple(sides)


def fitted(piece: Piece, height: int, width: int) -> Piece:
    """The piece with tiles as long and narrow as its input of that size asks for."""
    rows, columns = (sides_of(piece, side)[-1] for side in (height, width))
    if min(rows, columns) > NARROW:
        return piece
    long = piece.tile[0] * piece.tile[1] // NARROW
    return piece._replace(tile=(NARROW, long) if rows <= columns else (long, NARROW))


def cut(model: ModelConfig, piece: Piece, side: int, start: int, axis: int) -> Cut:
    """What the tile of the output that begins at `start` of an axis (0: rows, 1: columns) needs, where the piece's input has
    `side` of them."""
    sides = sides_of(piece, side)
    first, count = [start], [piece.tile[axis]]
    for (size, stride), length in zip(reversed(piece.steps), sides[-2::-1], strict=True):
        same = model.encoder == "efficientnet_lite0"
        before = same_pads(length, size, stride)[0] if same else (size - 1) // 2
        first.insert(0, first[0] * stride - before)
        count.insert(0, (count[0] - 1) * stride + size)
    return Cut(tuple(first), tuple(count), sides)


def run_tile(
    model: ModelConfig, piece: Piece, weights: tuple[Any, Any], tile: Map, places: Int[Array, "steps 4"]
) -> Float[Array, "1 t t c"]:
    """A tile of the piece's output, of a model that computes in float32.

    `weights`: parameters and statistics of the module at `piece.path`; `tile`: uint8 for the first piece; `places`: before
    each step the first row, all rows, the first column, all columns (`Cut`).
    """
    graph, params, statistics = _module(dataclasses.astuple(model), piece.path)
    params, statistics = (jax.tree.map(lambda leaf: leaf, state) for state in (params, statistics))
    nnx.replace_by_pure_dict(params, weights[0])
    nnx.replace_by_pure_dict(statistics, weights[1])
    lengths = (cut(model, piece, 1 << 20, 0, axis).length for axis in (0, 1))
    real = []
    for *counts, (top, rows, left, columns) in zip(*lengths, places, strict=False):
        along = (
            (count, first, whole) for count, first, whole in zip(counts, (top, left), (rows, columns), strict=True)
        )
        down, right = (_between(jnp.arange(count) + first, whole) for count, first, whole in along)
        real.append((down[:, None] & right[None, :])[None, :, :, None].astype(jnp.float32))
    x = scaled(model, tile) * real[0] if tile.dtype == jnp.uint8 else tile
    return piece.layer(nnx.merge(graph, params, statistics), x, real)


def _between(at: Int[Array, " n"], whole: Int[Array, ""]) -> Array:
    return (at >= 0) & (at < whole)


@functools.lru_cache(maxsize=256)
def _module(model: tuple[Any, ...], path: tuple[str, ...]) -> tuple[nnx.GraphDef[Any], nnx.State, nnx.State]:
    module = nnx.eval_shape(lambda: encoder_of(ModelConfig(*model)))
    for name in path:
        module = getattr(module, name)
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    return graph, states[0], states[1]


def _lite_start(encoder: EfficientNetLite0, x: Map, real: Sequence[Map]) -> Map:
    return encoder.first(x, real[1])


def _lite_block(block: Block, x: Map, real: Sequence[Map]) -> Map:
    return block.inner(x, real[0])


def _lite_head(encoder: EfficientNetLite0, x: Map, real: Sequence[Map]) -> Map:
    return relu6(encoder.bn2(encoder.conv_head(x), RUNNING))


def _resnet_start(block: Callable[..., Map], encoder: Any, x: Map, real: Sequence[Map]) -> Map:
    out = jax.nn.relu(encoder.bn1(convolve(x, encoder.conv1.weight[...], 2), RUNNING)) * real[1]
    # zeros beyond the image are no more than what it holds
    return block(getattr(encoder.layer1, "0"), max_pool_inside(out) * real[2], real[2:])


def _bottleneck(block: Bottleneck, x: Map, real: Sequence[Map]) -> Map:
    out = jax.nn.relu(block.bn1(block.conv1(x), RUNNING)) * real[0]
    out = jax.nn.relu(block.bn2(convolve(out, block.conv2.weight[...], block.stride), RUNNING))
    return jax.nn.relu(block.bn3(block.conv3(out), RUNNING) + _shortcut(block, x, out.shape, 1))


def _basic_block(block: BasicBlock, x: Map, real: Sequence[Map]) -> Map:
    out = jax.nn.relu(block.bn1(convolve(x, block.conv1.weight[...], block.stride), RUNNING)) * real[1]
    out = block.bn2(convolve(out, block.conv2.weight[...]), RUNNING)
    return jax.nn.relu(out + _shortcut(block, x, out.shape, 1 + block.stride))


def _shortcut(block: BasicBlock | Bottleneck, x: Map, shape: tuple[int, ...], before: int) -> Map:
    rows, columns = ((n - 1) * block.stride + 1 for n in shape[1:3])
    x = x[:, before : before + rows, before : before + columns]
    return block.downsample(x, RUNNING) if hasattr(block, "downsample") else x
