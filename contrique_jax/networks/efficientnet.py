"""EfficientNet-Lite0 (Google, 2020; Apache-2.0): the parameter tree carries the names of timm's tf_efficientnet_lite0.

Inverted residual blocks of 1x1, depthwise and 1x1 convolutions with ReLU6 and no squeeze-excitation, 224 pixels in its
training. The released weights expect bytes v as (v - 127) / 128: `model.input_scaling` "centred".

Padding is TensorFlow's SAME at any size: max((ceil(n / s) - 1) s + k - n, 0) zeros along a side of n, the smaller half
first, so a strided layer begins one pixel later on an even side than on an odd one. timm's network does the same. The package
efficientnet_lite_pytorch pads at every size as it would at 224 pixels: the numbers are the same where each strided
layer meets an even side, at multiples of 32, and others elsewhere.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from contrique_jax.networks import strips
from contrique_jax.networks.convolution import convolve, depthwise
from contrique_jax.networks.depthwise import Pads
from contrique_jax.networks.layers import (
    RUNNING,
    AtEnd,
    BatchNorm,
    Conv,
    Map,
    Sizes,
    Statistics,
    halved,
    inside,
    kept_or_again,
    parameter,
)
from contrique_jax.networks.lite0 import EPSILON, HEAD, STAGE_WIDTHS, STAGES, STEM, same_pads

MOMENTUM = 0.01  # of every BatchNorm: the package's and TensorFlow's
NO_PADS = ((0, 0), (0, 0))
Corner = Int[Array, "n 2"]
DEEPEST = 32  # pixels a pixel of the last map


def _per_channel(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Kaiming normal over the fan-out, which is of one channel."""
    return generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / (shape[0] * shape[1])))


class Depthwise(nnx.Module):
    """A k x k convolution of each channel alone, without bias, padded as SAME."""

    def __init__(self, width: int, size: int, stride: int, *, dtype: jnp.dtype):
        self.stride, self.dtype = stride, dtype
        self.weight = parameter((size, size, 1, width), _per_channel)

    def __call__(self, x: Map, valid: Sizes | None) -> Map:
        kernel = self.weight[...].astype(self.dtype)
        around = tuple(pads(side, kernel.shape[0], self.stride, valid) for side in x.shape[1:3])
        return depthwise(x.astype(self.dtype), kernel, self.stride, (around[0], around[1]))


class Stem(Conv):
    """The 3x3 convolution of stride 2 that meets the image, padded as SAME."""

    def __call__(self, x: Map, valid: Sizes | None = None) -> Map:
        kernel = self.weight[...].astype(self.dtype)
        return convolve(_padded(x.astype(self.dtype), kernel.shape[0], self.stride, valid), kernel, self.stride)


class Block(nnx.Module):
    """1x1 to `expansion` times the width, depthwise, 1x1 without activation; added to its input if the shape is the same.

    Without expansion the first 1x1 is left out.
    """

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, expansion: int, *, dtype: jnp.dtype):
        self.stride, self.expands, self.adds = stride, expansion > 1, stride == 1 and inputs == outputs
        width = expansion * inputs
        if self.expands:
            self.conv_pw = Conv(inputs, width, 1, dtype=dtype)
            self.bn1 = _norm(width)
            self.conv_dw = Depthwise(width, size, stride, dtype=dtype)
            self.bn2 = _norm(width)
            self.conv_pwl = Conv(width, outputs, 1, dtype=dtype)
            self.bn3 = _norm(outputs)
        else:
            self.conv_dw = Depthwise(width, size, stride, dtype=dtype)
            self.bn1 = _norm(width)
            self.conv_pw = Conv(width, outputs, 1, dtype=dtype)
            self.bn2 = _norm(outputs)

    def __call__(self, x: Map, statistics: Statistics, valid: Sizes | None) -> Map:
        kernel = self.conv_dw.weight
        if not statistics.batches and strips.wanted(x.shape, kernel.shape[3]):
            return self._in_strips(x, valid)
        out = self.expanded(x, statistics)
        out = self.contracted(self.conv_dw(inside(out, valid), valid), statistics)
        return out + x if self.adds else out

    def expanded(self, x: Map, statistics: Statistics) -> Map:
        """What the depthwise convolution sees."""
        return relu6(self.bn1(self.conv_pw(x), statistics)) if self.expands else x

    def contracted(self, x: Map, statistics: Statistics) -> Map:
        """From what the depthwise convolution gives."""
        spatial, last, final = (
            (self.bn2, self.conv_pwl, self.bn3) if self.expands else (self.bn1, self.conv_pw, self.bn2)
        )
        return final(last(relu6(spatial(x, statistics))), statistics)

    def inner(self, x: Map, real: Map) -> Map:
        """The same in evaluation of a part of a map, no zeros around it. `real`: ones inside the image; beyond it the
        depthwise convolution sees zeros, and not what the first 1x1 makes of them."""
        kernel = self.conv_dw.weight[...]
        out = self.contracted(depthwise(self.expanded(x, RUNNING) * real, kernel, self.stride, NO_PADS), RUNNING)
        before = (kernel.shape[0] - 1) // 2  # without stride, as it is if the input is added
        return out + x[:, before : before + out.shape[1], before : before + out.shape[2]] if self.adds else out

    def _in_strips(self, x: Map, valid: Sizes | None) -> Map:
        """The same in evaluation, a few rows at a time: the expanded map, which is the largest, never exists as a whole."""
        kernel, stride = self.conv_dw.weight[...], self.stride
        size, rows = kernel.shape[0], -(-x.shape[1] // stride)
        real = inside(jnp.ones((*x.shape[:3], 1), x.dtype), valid)
        parts = [strips.Part(_padded(each, size, stride, valid), stride, size) for each in (x, real)]
        return strips.by_strips(self.inner, parts, rows, kernel.shape[3])


class BlockStage(nnx.Module):
    """The blocks of one stage, named "0", "1", ..."""

    def __init__(self, inputs: int, stage: tuple[int, int, int, int, int], *, dtype: jnp.dtype):
        size, self.stride, expansion, outputs, self.depth = stage
        for i in range(self.depth):
            block = Block(inputs, outputs, size, self.stride if i == 0 else 1, expansion, dtype=dtype)
            setattr(self, str(i), block)
            inputs = outputs

    def __call__(self, x: Map, statistics: Statistics, valid: Sizes | None, remat: bool) -> tuple[Map, Sizes | None]:
        for i in range(self.depth):
            x = kept_or_again(Block.__call__, remat)(getattr(self, str(i)), x, statistics, valid)
            if i == 0:
                valid = halved(valid, self.stride)
        return x, valid


class Blocks(nnx.Module):
    """The seven stages, named "0", "1", ..."""

    def __init__(self, *, dtype: jnp.dtype):
        for i, (inputs, stage) in enumerate(zip((STEM, *STAGE_WIDTHS), STAGES, strict=False)):
            setattr(self, str(i), BlockStage(inputs, stage, dtype=dtype))


class EfficientNetLite0(nnx.Module):
    """The network up to the activation after the last 1x1 convolution, a 32nd of the image a side; no classifier."""

    def __init__(self, *, dtype: jnp.dtype):
        self.conv_stem = Stem(3, STEM, 3, 2, dtype=dtype)
        self.bn1 = _norm(STEM)
        self.blocks = Blocks(dtype=dtype)
        self.conv_head = Conv(STAGE_WIDTHS[-1], HEAD, 1, dtype=dtype)
        self.bn2 = _norm(HEAD)

    def __call__(
        self,
        images: Float[Array, "n h w 3"],
        statistics: Statistics,
        valid: Int[Array, "n 2"] | None = None,
        remat: bool = False,
    ) -> tuple[Map, Sizes | None]:
        """The last map [n, ceil(h / 32), ceil(w / 32), 1280], and the part of it that `valid` (height and width of the
        image in the top left corner) covers.

        With `valid`, whatever lies outside is zero where a convolution sees it, and the image is moved to the bottom right
        corner, where strided ones meet it as they would alone: inside, the map equals that of the image alone; outside it
        is zero. With `remat` a backward
        pass keeps the input of the stem, of each block and of the head only, and computes the rest again.
        """
        x, place = self.stages(images, statistics, valid, remat)[-1]
        return inside(kept_or_again(_layer, remat)(self.conv_head, x, statistics, self.bn2), place), place

    def stages(
        self,
        images: Float[Array, "n h w 3"],
        statistics: Statistics,
        valid: Int[Array, "n 2"] | None = None,
        remat: bool = False,
    ) -> list[tuple[Map, Sizes | None]]:
        """The last map of each of the seven stages, of `STAGE_WIDTHS` channels, before the head; and the part of it that
        `valid` covers. Outside that the maps hold anything."""
        place: Sizes | None = None
        if valid is not None:
            images, place = at_end(images, valid)
        first = -(-images.shape[1] // 2), -(-images.shape[2] // 2)
        large = not statistics.batches and strips.wanted((len(images), *first), STEM)
        if large:
            x = self._first_in_strips(images, first, place)
        else:
            x = kept_or_again(_layer, remat)(self.conv_stem, images, statistics, self.bn1, place)
        place = halved(place, 2)
        maps: list[tuple[Map, Sizes | None]] = [(x, place)] if large else []
        for i in range(len(maps), len(STAGES)):
            x, place = getattr(self.blocks, str(i))(x, statistics, place, remat)
            maps.append((x, place))
        return maps

    def first(self, x: Map, real: Map, around: Pads = NO_PADS) -> Map:
        """The stem and the first stage in evaluation, of a part of an image with what the stem sees around it; `real`: ones
        where its map is inside the image, `around`: zeros for the depthwise convolution."""
        block: Block = getattr(getattr(self.blocks, "0"), "0")
        out = relu6(self.bn1(convolve(x, self.conv_stem.weight[...], 2), RUNNING)) * real
        return block.contracted(depthwise(out, block.conv_dw.weight[...], 1, around), RUNNING)

    def _first_in_strips(self, images: Float[Array, "n h w 3"], first: tuple[int, int], valid: Sizes | None) -> Map:
        """The stem and the first stage in evaluation, a few rows at a time; `first`: height and width of their maps."""
        # a row more of the stem's map above and below, for the depthwise convolution
        part = strips.Part(jnp.pad(_padded(images, 3, 2, valid), ((0, 0), (2, 2), (0, 0), (0, 0))), 2, 7)
        real = inside(jnp.ones((len(images), *first, 1), images.dtype), halved(valid, 2))
        real = jnp.pad(real, ((0, 0), (1, 1), (0, 0), (0, 0)))

        def layer(strip: Map, real: Map) -> Map:
            return self.first(strip, real, ((0, 0), (1, 1)))

        return strips.by_strips(layer, [part, strips.Part(real, 1, 3)], first[0], STEM // 4)


def pads(side: int, size: int, stride: int, valid: Sizes | None) -> tuple[int, int]:
    """Zeros before and after a side of a map for SAME. Those after it are as many for odd images as for even ones, so in the
    bottom right corner of maps whose sides `stride` divides all meet the kernel alike."""
    return same_pads(side, size, stride) if valid is None else (size // 2 - stride // 2, (size - 1) // 2)


def at_end(images: Float[Array, "n h w 3"], valid: Corner) -> tuple[Float[Array, "n H W 3"], AtEnd]:
    """Images from the top left corner to the bottom right one of canvases of multiples of `DEEPEST`, zeros around them."""
    around = [(0, 0), *((-side % DEEPEST, 0) for side in images.shape[1:3]), (0, 0)]
    images = jnp.pad(inside(images, valid), around)
    shifts = jnp.array(images.shape[1:3]) - valid - jnp.array([pad[0] for pad in around[1:3]])
    return jax.vmap(lambda image, by: jnp.roll(image, by, (0, 1)))(images, shifts), AtEnd(valid)


def _padded(x: Map, size: int, stride: int, valid: Sizes | None) -> Map:
    """A map with the zeros around it that a convolution of that size and stride is SAME with."""
    down, across = (pads(side, size, stride, valid) for side in x.shape[1:3])
    return jnp.pad(x, ((0, 0), down, across, (0, 0)))


def _norm(width: int) -> BatchNorm:
    return BatchNorm(width, momentum=MOMENTUM, epsilon=EPSILON)


def _layer(conv: Conv, x: Map, statistics: Statistics, norm: BatchNorm, valid: Sizes | None = None) -> Map:
    return relu6(norm(conv(x, valid) if isinstance(conv, Stem) else conv(x), statistics))


def relu6(x: Map) -> Map:
    """Between 0 and 6."""
    return jnp.minimum(jax.nn.relu(x), 6)
