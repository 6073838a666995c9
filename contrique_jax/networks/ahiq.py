"""AHIQ's trained half (arXiv 2204.10485): the reference's deep map steers a deformable convolution over both images' shallow
maps; differences and features of both become a map of scores and one of weights, whose weighted mean is the score.

Names are the original's: `deform_net.*` and `regressor.*`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from contrique_jax.networks.deformable import DeformableConv
from contrique_jax.networks.layers import BiasedConv, Map
from contrique_jax.networks.pairs import apart, in_turn


class Widths(NamedTuple):
    """Channels: of the deep and of the shallow map, and of what lies between; the defaults are the paper's."""

    deep: int = 3840
    shallow: int = 768
    fused: int = 768  # of the shallow map behind the deformable convolution
    bottleneck: int = 512
    projected: int = 256  # of an image's maps, as differences are taken of them
    smoothed: int = 1024
    halvings: int = 1  # the deep map's side is the shallow one's, halved so many times: 1 at patches of 8, 2 at 16


class Pair(NamedTuple):
    """Maps of images: deep [n, h, w, d], shallow [n, h 2^halvings, w 2^halvings, s]."""

    deep: Map
    shallow: Map


class Judged(NamedTuple):
    """Scores, not in any fixed range, and what they are the weighted means of."""

    score: Float[Array, " n"]
    score_map: Float[Array, "n h w"]
    weight_map: Float[Array, "n h w"]  # in (0, 1)


class Row(nnx.Module):
    """Convolutions with ReLU between them, numbered as in a torch.nn.Sequential; `last`: one after them too."""

    def __init__(self, *layers: BiasedConv, last: bool = False):
        self.numbers, self.last = tuple(2 * i for i in range(len(layers))), last
        for number, layer in zip(self.numbers, layers, strict=True):
            setattr(self, str(number), layer)

    def __call__(self, x: Map) -> Map:
        for number in self.numbers:
            x = getattr(self, str(number))(jax.nn.relu(x) if number else x)
        return jax.nn.relu(x) if self.last else x


class DeformNet(nnx.Module):
    """A shallow map, seen where offsets of the deep map say, brought to the deep map's grid."""

    def __init__(self, widths: Widths, dtype: jnp.dtype):
        taps = 9
        self.conv_offset = BiasedConv(widths.deep, 2 * taps, 3, dtype=dtype)
        self.deform = DeformableConv(widths.shallow, widths.fused, dtype=dtype)
        self.conv1 = Row(
            BiasedConv(widths.fused, widths.bottleneck, 3, 2, dtype=dtype),
            BiasedConv(widths.bottleneck, widths.fused, 3, widths.halvings, dtype=dtype),
        )

    def offsets(self, deep: Map, times: int) -> Float[Array, "n h w 18"]:
        """Of a deep map, each pixel of which is repeated so many times along each side."""
        return self.conv_offset(jnp.repeat(jnp.repeat(deep, times, 1), times, 2)).astype(jnp.float32)

    def __call__(self, shallow: Map, offsets: Float[Array, "n h w 18"]) -> Map:
        return self.conv1(self.deform(shallow, offsets))


class Regressor(nnx.Module):
    """Maps of both images to the score."""

    def __init__(self, inputs: int, widths: Widths, dtype: jnp.dtype):
        self.down_channel = BiasedConv(inputs, widths.projected, 1, dtype=dtype)
        self.feat_smoothing = Row(
            BiasedConv(3 * widths.projected, widths.smoothed, 3, dtype=dtype),
            BiasedConv(widths.smoothed, widths.bottleneck, 3, dtype=dtype),
        )
        self.conv1 = Row(BiasedConv(widths.bottleneck, widths.projected, 3, dtype=dtype), last=True)
        self.conv_attent = Row(BiasedConv(widths.projected, 1, 1, dtype=dtype))
        self.conv = Row(BiasedConv(widths.projected, 1, 1, dtype=dtype))

    def __call__(self, distorted: Map, reference: Map) -> Judged:
        d, r = self.down_channel(distorted), self.down_channel(reference)
        x = self.conv1(self.feat_smoothing(jnp.concatenate([d - r, d, r], axis=3)))
        scores = self.conv(x)[..., 0].astype(jnp.float32)
        weights = jax.nn.sigmoid(self.conv_attent(x)[..., 0].astype(jnp.float32))
        return Judged(jnp.sum(scores * weights, (1, 2)) / jnp.sum(weights, (1, 2)), scores, weights)


class Ahiq(nnx.Module):
    """What is trained of the system."""

    def __init__(self, widths: Widths, dtype: jnp.dtype):
        self.times = 2**widths.halvings
        self.deform_net = DeformNet(widths, dtype)
        self.regressor = Regressor(widths.deep + widths.fused, widths, dtype)

    def __call__(self, distorted: Pair, reference: Pair) -> Judged:
        """Of maps as the frozen networks make them; both images take the offsets of the reference."""
        offsets = self.deform_net.offsets(reference.deep, self.times)
        both = in_turn(distorted.shallow, reference.shallow)
        fused = apart(self.deform_net(both, in_turn(offsets, offsets)))
        joined = [
            jnp.concatenate([deep.astype(own.dtype), own], axis=3)
            for deep, own in zip((distorted.deep, reference.deep), fused, strict=True)
        ]
        return self.regressor(joined[0], joined[1])
