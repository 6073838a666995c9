"""ResNet-10, 18, 34, 50, 101 and 152 in torchvision's layout: the parameter tree carries torchvision's names.

Kernels are zero as built: `encoder.init_model` draws them, a model folder or a checkpoint fills them in.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.convolution import max_pool
from contrique_jax.networks.layers import BatchNorm, Conv, Map, Sizes, Statistics, halved, inside, kept_or_again


class Downsample(nnx.Module):
    """The 1x1 shortcut where a block changes width or resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, dtype: jnp.dtype):
        setattr(self, "0", Conv(inputs, outputs, 1, stride, dtype=dtype))
        setattr(self, "1", BatchNorm(outputs))

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        return getattr(self, "1")(getattr(self, "0")(x), statistics)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions: the block of ResNet-10, 18 and 34."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: jnp.dtype):
        self.stride = stride
        self.conv1 = Conv(inputs, width, 3, stride, dtype=dtype)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, dtype=dtype)
        self.bn2 = BatchNorm(width)
        if stride != 1 or inputs != width:
            self.downsample = Downsample(inputs, width, stride, dtype=dtype)

    def __call__(self, x: Map, statistics: Statistics, valid: Sizes | None) -> Map:
        after = halved(valid, self.stride)
        out = _relu(self.bn1(self.conv1(x), statistics), after)
        out = self.bn2(self.conv2(out), statistics)
        return _relu(out + (self.downsample(x, statistics) if hasattr(self, "downsample") else x), after)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (which takes the stride), 1x1: the block of ResNet-50 and deeper ones."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, *, dtype: jnp.dtype):
        outputs = self.expansion * width
        self.stride = stride
        self.conv1 = Conv(inputs, width, 1, dtype=dtype)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride, dtype=dtype)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, outputs, 1, dtype=dtype)
        self.bn3 = BatchNorm(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample = Downsample(inputs, outputs, stride, dtype=dtype)

    def __call__(self, x: Map, statistics: Statistics, valid: Sizes | None) -> Map:
        after = halved(valid, self.stride)
        out = _relu(self.bn1(self.conv1(x), statistics), valid)
        out = _relu(self.bn2(self.conv2(out), statistics), after)
        out = self.bn3(self.conv3(out), statistics)
        return _relu(out + (self.downsample(x, statistics) if hasattr(self, "downsample") else x), after)


class Stage(nnx.Module):
    """The blocks of one resolution, named "0", "1", ..."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        inputs: int,
        width: int,
        depth: int,
        stride: int,
        *,
        dtype: jnp.dtype,
    ):
        self.depth, self.stride = depth, stride
        for i in range(depth):
            setattr(self, str(i), block(inputs, width, stride if i == 0 else 1, dtype=dtype))
            inputs = block.expansion * width

    def __call__(self, x: Map, statistics: Statistics, valid: Sizes | None, remat: bool) -> tuple[Map, Sizes | None]:
        return self.blocks(x, statistics, valid, remat)[-1]

    def blocks(
        self, x: Map, statistics: Statistics, valid: Sizes | None = None, remat: bool = False
    ) -> list[tuple[Map, Sizes | None]]:
        """The map behind each block, and the part of it that `valid` covers."""
        maps = []
        for i in range(self.depth):
            block = getattr(self, str(i))
            x = kept_or_again(type(block).__call__, remat)(block, x, statistics, valid)
            valid = halved(valid, self.stride) if i == 0 else valid
            maps.append((x, valid))
        return maps


ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet10": (BasicBlock, (1, 1, 1, 1)),
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nnx.Module):
    """The network up to its last map, a 32nd of the image a side, or of fewer layers than four; no pooling, no classifier."""

    def __init__(self, name: str, base_width: int, *, dtype: jnp.dtype, layers: int = 4):
        block, depths = ARCHITECTURES[name]
        self.conv1 = Conv(3, base_width, 7, 2, dtype=dtype)
        self.bn1 = BatchNorm(base_width)
        self.layers, widths = layers, (base_width, *stage_widths(name, base_width))
        for i, (depth, inputs) in enumerate(zip(depths[:layers], widths, strict=False)):
            stage = Stage(block, inputs, base_width << i, depth, 1 if i == 0 else 2, dtype=dtype)
            setattr(self, f"layer{i + 1}", stage)

    def __call__(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, valid: Sizes | None = None, remat: bool = False
    ) -> tuple[Map, Sizes | None]:
        """The last map, and the part of it that `valid` (height and width of the image in the top left corner) covers.

        With `valid`, whatever lies outside is zero after every activation, just as a convolution pads: inside, the map
        equals that of the image alone. With `remat` a backward pass keeps the input of the stem and of each block only, and
        computes the rest again.
        """
        return self.stages(images, statistics, valid, remat)[-1]

    def stages(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, valid: Sizes | None = None, remat: bool = False
    ) -> list[tuple[Map, Sizes | None]]:
        """The last map of each layer, and the part of it that `valid` covers; see `__call__`."""
        x = self.stem(images, statistics, valid, remat)
        valid = halved(halved(valid, 2), 2)
        maps = []
        for i in range(1, self.layers + 1):
            x, valid = getattr(self, f"layer{i}")(x, statistics, valid, remat)
            maps.append((x, valid))
        return maps

    def stem(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, valid: Sizes | None = None, remat: bool = False
    ) -> Map:
        """What the first layer is given."""
        return kept_or_again(_stem, remat)(self.conv1, inside(images, valid), statistics, valid, self.bn1)


def stage_widths(name: str, base_width: int) -> tuple[int, ...]:
    """Channels of the last map of each layer: 256, 512, 1024, 2048 for a ResNet-50 of base width 64."""
    block, depths = ARCHITECTURES[name]
    return tuple(block.expansion * (base_width << i) for i in range(len(depths)))


def _stem(conv: Conv, images: Map, statistics: Statistics, valid: Sizes | None, norm: BatchNorm) -> Map:
    valid = halved(valid, 2)
    x = _relu(norm(conv(images), statistics), valid)
    return inside(max_pool(x), halved(valid, 2))  # a window just outside still sees the last row inside


def _relu(x: Map, valid: Sizes | None) -> Map:
    return inside(jax.nn.relu(x), valid)
