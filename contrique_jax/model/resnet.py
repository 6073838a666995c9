"""ResNet-18, 34, 50, 101 and 152 in torchvision's layout: the parameter tree carries torchvision's names.

Maps are NHWC, kernels HWIO. Parameters and BatchNorm statistics are float32; convolutions run in the compute dtype.
Kernels are zero as built: `contrique.init_model` draws them, a model folder or a checkpoint fills them in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from contrique_jax.model.convolution import convolve, max_pool

MOMENTUM = 0.1  # torch's sense: the share of the new batch in the running statistics
EPSILON = 1e-5

Map = Float[Array, "n h w c"]
Sizes = Int[Array, "n 2"]


class Statistics(NamedTuple):
    """Whose mean and variance BatchNorm takes."""

    batches: (
        int  # the first axis holds so many batches in turn, and each has its own; 0: the running ones, of the module
    )
    axis: str | None = None  # inside a `shard_map`: the mesh axis over which the rows of every batch are split


RUNNING = Statistics(0)


class Conv(nnx.Module):
    """A square convolution without bias, padded by (size - 1) // 2."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, dtype: jnp.dtype):
        self.stride, self.padding, self.dtype = stride, (size - 1) // 2, dtype
        self.weight = nnx.Param(jnp.zeros((size, size, inputs, outputs), jnp.float32))

    def __call__(self, x: Map) -> Map:
        return convolve(x.astype(self.dtype), self.weight[...].astype(self.dtype), self.stride, self.padding)


class BatchNorm(nnx.Module):
    """Normalises over all axes but the last, in float32, and returns the dtype it was given.

    In training the first axis holds several batches in turn (the two views of each image), and each is normalised by its
    own statistics, as if it went through alone; a batch is the global one, however it is sharded. The running ones move
    by `MOMENTUM` once a batch; the running variance is the unbiased one, as in torch.
    """

    def __init__(self, width: int):
        self.weight = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))
        self.running_mean = nnx.BatchStat(jnp.zeros((width,), jnp.float32))
        self.running_var = nnx.BatchStat(jnp.ones((width,), jnp.float32))

    def __call__(self, x: Float[Array, "n *rest c"], statistics: Statistics) -> Float[Array, "n *rest c"]:
        wide = x.astype(jnp.float32)
        if statistics.batches:
            mean, variance = self._batch_statistics(wide, statistics)
        else:
            mean, variance = self.running_mean[...], self.running_var[...]
        scale = self.weight[...] * lax.rsqrt(variance + EPSILON)
        offset = self.bias[...] - mean * scale
        if statistics.batches:
            scale, offset = _each_row(scale, x.shape), _each_row(offset, x.shape)
        return (wide * scale + offset).astype(x.dtype)

    def _batch_statistics(
        self, x: Float[Array, "n *rest c"], statistics: Statistics
    ) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
        def mean_of_batches(x: Array) -> Array:
            # each row first: the map keeps its shape, which a reshape of it to batches would cost in copies
            rows = jnp.mean(x, tuple(range(1, x.ndim - 1)))
            mean = jnp.mean(rows.reshape(-1, statistics.batches, x.shape[-1]), 0)
            return mean if statistics.axis is None else lax.pmean(mean, statistics.axis)

        mean = mean_of_batches(x)
        here, devices = mean, 1
        if statistics.axis is not None:  # or the backward pass would sum over devices what belongs to single rows
            here, devices = lax.pcast(mean, statistics.axis, to="varying"), lax.axis_size(statistics.axis)
        variance = mean_of_batches(jnp.square(x - _each_row(here, x.shape)))
        count = x.size // x.shape[-1] // statistics.batches * devices
        unbiased = variance * (count / max(count - 1, 1))
        for batch in range(statistics.batches):
            for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
                running[...] = (1 - MOMENTUM) * running[...] + MOMENTUM * lax.stop_gradient(new[batch])
        return mean, variance


def _each_row(of_batch: Float[Array, "b c"], shape: tuple[int, ...]) -> Float[Array, "n *ones c"]:
    """What belongs to each batch, at each row of a map of that shape."""
    rows = jnp.tile(of_batch, (shape[0] // len(of_batch), 1))
    return rows.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1])


class Downsample(nnx.Module):
    """The 1x1 shortcut where a block changes width or resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, dtype: jnp.dtype):
        setattr(self, "0", Conv(inputs, outputs, 1, stride, dtype=dtype))
        setattr(self, "1", BatchNorm(outputs))

    def __call__(self, x: Map, statistics: Statistics) -> Map:
        return getattr(self, "1")(getattr(self, "0")(x), statistics)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions: the block of ResNet-18 and 34."""

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
        after = _halved(valid, self.stride)
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
        after = _halved(valid, self.stride)
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
        for i in range(self.depth):
            block = getattr(self, str(i))
            x = _call(type(block).__call__, remat)(block, x, statistics, valid)
            if i == 0:
                valid = _halved(valid, self.stride)
        return x, valid


ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nnx.Module):
    """The network up to its last map, a 32nd of the image a side; no pooling, no classifier."""

    def __init__(self, name: str, base_width: int, *, dtype: jnp.dtype):
        block, depths = ARCHITECTURES[name]
        self.conv1 = Conv(3, base_width, 7, 2, dtype=dtype)
        self.bn1 = BatchNorm(base_width)
        inputs = base_width
        for i, depth in enumerate(depths):
            width = base_width << i
            stage = Stage(block, inputs, width, depth, 1 if i == 0 else 2, dtype=dtype)
            setattr(self, f"layer{i + 1}", stage)
            inputs = block.expansion * width

    def __call__(
        self, images: Float[Array, "n h w 3"], statistics: Statistics, valid: Sizes | None = None, remat: bool = False
    ) -> tuple[Map, Sizes | None]:
        """The last map, and the part of it that `valid` (height and width of the image in the top left corner) covers.

        With `valid`, whatever lies outside is zero after every activation, just as a convolution pads: inside, the map
        equals that of the image alone. With `remat` a backward pass keeps the input of the stem and of each block only, and
        computes the rest again.
        """
        x = _call(_stem, remat)(self.conv1, _inside(images, valid), statistics, valid, self.bn1)
        valid = _halved(_halved(valid, 2), 2)
        for i in range(1, 5):
            x, valid = getattr(self, f"layer{i}")(x, statistics, valid, remat)
        return x, valid


def _call(layer: Callable[..., Map], remat: bool) -> Callable[..., Map]:
    """A layer as a function of (module, map, statistics, ...), its inside kept for the backward pass or computed again."""
    return nnx.remat(layer, static_argnums=(2,)) if remat else layer


def _stem(conv: Conv, images: Map, statistics: Statistics, valid: Sizes | None, norm: BatchNorm) -> Map:
    valid = _halved(valid, 2)
    x = _relu(norm(conv(images), statistics), valid)
    return _inside(max_pool(x), _halved(valid, 2))  # a window just outside still sees the last row inside


def _halved(valid: Sizes | None, stride: int) -> Sizes | None:
    """Sizes after a strided layer: every one here has padding (k - 1) // 2, which makes it ceil(size / stride)."""
    return valid if valid is None or stride == 1 else (valid - 1) // stride + 1


def _inside(x: Map, valid: Sizes | None) -> Map:
    if valid is None:
        return x
    rows = jnp.arange(x.shape[1])[None, :] < valid[:, :1]
    columns = jnp.arange(x.shape[2])[None, :] < valid[:, 1:]
    mask = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(mask, x, jnp.zeros((), x.dtype))


def _relu(x: Map, valid: Sizes | None) -> Map:
    return _inside(jax.nn.relu(x), valid)
