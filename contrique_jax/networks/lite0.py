"""What EfficientNet-Lite0 is, and its evaluation in NumPy: a first few photographs are judged before jax could be imported and
a program compiled. `efficientnet` is the network that is trained, exported and at work on more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.networks.host_pooling import HostMap

EPSILON = 1e-3  # of every BatchNorm: the package's and TensorFlow's
STEM, HEAD = 32, 1280  # channels after the first and the last convolution
# kernel, stride of the first block, expansion, channels, blocks: of each stage
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STAGE_WIDTHS = tuple(channels for _, _, _, channels, _ in STAGES)
# of bytes: what EfficientNet-Lite's released weights expect taken off and divided by
CENTRE, HALF_RANGE = 127.0, 128.0
STRIP, CHUNK = 1 << 18, 1 << 16  # numbers of an expanded map and of a depthwise result that are at hand at a time

Array = Float[np.ndarray, "..."]


def same_pads(side: int, size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a side of so many pixels: TensorFlow's SAME for a kernel of `size`."""
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total // 2, total - total // 2


class _Layer(NamedTuple):
    """A convolution and the normalisation after it, in one."""

    kernel: Array  # [inputs, outputs], or [k, k, channels] of a depthwise one
    offset: Float[np.ndarray, " c"]


class _Block(NamedTuple):
    expand: _Layer | None
    depthwise: _Layer
    contract: _Layer
    stride: int


class Lite0OnHost:
    """The frozen network up to its seven stages, for one image at a time; float32. A block's expanded map, the largest, is
    there a few rows at a time."""

    def __init__(self, flat: Mapping[str, np.ndarray]):
        """`flat`: the tensors of a model's file (`weights_file.read_flat`). Raises KeyError if one is missing."""
        stem, offset = _folded(flat, "encoder.conv_stem", "encoder.bn1")
        self._stem = _Layer(stem.transpose(2, 3, 1, 0).reshape(-1, STEM), offset)
        self._stages = [
            [_block(flat, f"encoder.blocks.{i}.{j}.", stage[2] > 1, stage[1] if j == 0 else 1) for j in range(stage[4])]
            for i, stage in enumerate(STAGES)
        ]

    def stages(self, image: UInt8[np.ndarray, "h w 3"]) -> list[HostMap]:
        """The last map of each of the seven stages, of `STAGE_WIDTHS` channels."""
        x, maps = self._first(image), []
        for blocks in self._stages:
            for block in blocks:
                x = _through(x, block)
            maps.append(x)
        return maps

    def _first(self, image: UInt8[np.ndarray, "h w 3"]) -> HostMap:
        """The stem's map."""
        height, width, channels = image.shape
        (top, bottom), (left, right) = (same_pads(side, 3, 2) for side in (height, width))
        x = np.zeros((top + height + bottom, left + width + right, channels), np.float32)
        x[top : top + height, left : left + width] = (image - np.float32(CENTRE)) / np.float32(HALF_RANGE)
        rows, columns = -(-height // 2), -(-width // 2)
        out = np.empty((rows, columns, STEM), np.float32)
        at_once = max(CHUNK // (columns * len(self._stem.kernel)), 1)
        for y in range(0, rows, at_once):
            count = min(at_once, rows - y)
            taps = [tap for _, _, tap in _taps(x[2 * y :], 3, 2, count, columns)]
            seen = np.concatenate(taps, axis=2).reshape(-1, len(self._stem.kernel))
            out[y : y + count] = _relu6(_linear(seen, self._stem)).reshape(count, columns, STEM)
        return out


def _block(flat: Mapping[str, np.ndarray], name: str, expands: bool, stride: int) -> _Block:
    layers = (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))
    if not expands:
        layers = (("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2"))
    expand, depthwise, contract = ((name + conv, name + norm) for conv, norm in layers)
    taps, offset = _folded(flat, *depthwise)
    taps = np.ascontiguousarray(taps[:, 0].transpose(1, 2, 0))
    return _Block(
        _pointwise(flat, *expand) if expands else None, _Layer(taps, offset), _pointwise(flat, *contract), stride
    )


def _pointwise(flat: Mapping[str, np.ndarray], conv: str, norm: str) -> _Layer:
    kernel, offset = _folded(flat, conv, norm)
    return _Layer(np.ascontiguousarray(kernel[:, :, 0, 0].T), offset)


def _folded(flat: Mapping[str, np.ndarray], conv: str, norm: str) -> tuple[Array, Float[np.ndarray, " c"]]:
    """The kernel [outputs, inputs, k, k] and offset of a convolution with the normalisation after it."""
    weight, bias, mean, variance = (
        flat[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = weight / np.sqrt(variance + EPSILON)
    kernel = flat[f"{conv}.weight"] * factor[:, None, None, None]
    return kernel.astype(np.float32), (bias - mean * factor).astype(np.float32)


def _through(x: HostMap, block: _Block) -> HostMap:
    """A block's map, some rows at a time."""
    height, width, inputs = x.shape
    size, stride, channels = block.depthwise.kernel.shape[0], block.stride, block.depthwise.kernel.shape[2]
    (top, _), (left, right) = (same_pads(side, size, stride) for side in (height, width))
    rows, columns = -(-height // stride), -(-width // stride)
    outputs = len(block.contract.offset)
    out = np.empty((rows, columns, outputs), np.float32)
    at_once = max((STRIP // (width * channels) - size) // stride + 1, 1)
    for y in range(0, rows, at_once):
        count = min(at_once, rows - y)
        begin, end = y * stride - top, (y + count - 1) * stride + size - top
        first, last = max(begin, 0), min(end, height)
        seen = np.zeros((end - begin, left + width + right, channels), np.float32)
        inside = x[first:last]
        if block.expand is not None:
            wide = _relu6(_linear(inside.reshape(-1, inputs), block.expand))
            inside = wide.reshape(last - first, width, channels)
        seen[first - begin : last - begin, left : left + width] = inside
        spatial = _depthwise(seen, block.depthwise, stride, count, columns)
        out[y : y + count] = _linear(spatial.reshape(-1, channels), block.contract).reshape(count, columns, outputs)
    if stride == 1 and inputs == outputs:
        out += x
    return out


def _depthwise(x: HostMap, layer: _Layer, stride: int, rows: int, columns: int) -> HostMap:
    """Tap by tap, so few rows at a time that they stay in the processor's cache; with the activation."""
    size, _, channels = layer.kernel.shape
    out = np.empty((rows, columns, channels), np.float32)
    at_once = max(CHUNK // (columns * channels), 1)
    product = np.empty((min(at_once, rows), columns, channels), np.float32)
    for y in range(0, rows, at_once):
        part = out[y : y + at_once]
        part[:] = layer.offset
        for i, j, tap in _taps(x[y * stride :], size, stride, len(part), columns):
            part += np.multiply(tap, layer.kernel[i, j], out=product[: len(part)])
        _relu6(part)
    return out


def _taps(x: HostMap, size: int, stride: int, rows: int, columns: int) -> list[tuple[int, int, HostMap]]:
    """What each element of a kernel meets for so many rows of results, row by row of the kernel."""
    down, across = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    return [(i, j, x[i : i + down : stride, j : j + across : stride]) for i in range(size) for j in range(size)]


def _linear(x: Float[np.ndarray, "n i"], layer: _Layer) -> Float[np.ndarray, "n o"]:
    out = x @ layer.kernel
    out += layer.offset
    return out


def _relu6(x: Array) -> Array:
    """In place."""
    np.maximum(x, 0, out=x)
    return np.minimum(x, 6, out=x)
