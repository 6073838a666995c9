"""Quantisation by thresholds: type 22 (docs/distortions.md)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

BINS = 256
MOST_THRESHOLDS = 20
MOST_SAMPLES = 2**24  # whose sum of centred bins fits in 32 bits
EQUAL = 1e-6  # samples this close to a threshold are at it


def quantise(key: PRNGKeyArray, image: Float[Array, "h w 3"], count: Float[Array, ""]) -> Float[Array, "h w 3"]:
    """Type 22. The best `count` thresholds (1..20) over all samples; a sample becomes the least threshold at or above it.

    Samples up to the first threshold become 0, those above the last one 1. A flat image stays as it is.
    """
    low, high = image.min(), image.max()
    span = jnp.where(high > low, high - low, 1)
    bins = jnp.floor((BINS - 1) * (image - low) / span + 0.5).astype(jnp.int32).reshape(-1)
    bins = bins[:: 1 + (bins.size - 1) // MOST_SAMPLES]
    found = multi_otsu(jnp.zeros(BINS, jnp.int32).at[bins].add(1), count)
    thresholds = found.astype(jnp.float32) / (BINS - 1) * span + low
    values = jnp.where(jnp.arange(1, MOST_THRESHOLDS + 1) < count, jnp.roll(thresholds, -1), 1)
    quantised = jnp.zeros_like(image)
    for k in range(MOST_THRESHOLDS):
        quantised = jnp.where((k < count) & (image > thresholds[k] + EQUAL), values[k], quantised)
    return jnp.where(high > low, quantised, image)


def multi_otsu(histogram: Int[Array, "256"], count: Float[Array, ""]) -> Int[Array, "20"]:
    """The `count` ascending thresholds (bins; what follows them is padding) of the largest between-class variance.

    A threshold is the last bin of its class. Exact, by dynamic programming over the 256 bins; among equals, the lowest.
    Where there are more classes than bins in use, some are empty and the first thresholds may be -1. At most 2^24
    samples.
    """
    weights, sums = (
        jnp.pad(jnp.cumsum(histogram * factor), (1, 0)) for factor in (1, np.arange(BINS, dtype=np.int32) - BINS // 2)
    )
    weight, total = ((sum - sum[:, None]).astype(jnp.float32) for sum in (weights, sums))
    # of a class from bin i up to bin j - 1; the means' common part cancels
    gain = jnp.where(weight > 0, total * (total / jnp.maximum(weight, 1)), 0)
    gain = jnp.where(np.tri(BINS + 1, k=-1, dtype=bool), -jnp.inf, gain)

    def add_class(best: Float[Array, "257"], _: None) -> tuple[Float[Array, "257"], Float[Array, "257"]]:
        return (best[:, None] + gain).max(0), best

    _, best = jax.lax.scan(add_class, gain[0], None, MOST_THRESHOLDS)  # [k - 1, j]: k classes over the bins below j

    def trace(end: Int[Array, ""], step: tuple[Int[Array, ""], Float[Array, "257"]]) -> tuple[Array, Array]:
        number, best = step
        start = jnp.where(number <= count, (best + gain[:, end]).argmax(), end)
        return start, start - 1

    steps = (jnp.arange(1, MOST_THRESHOLDS + 1), best)
    return jax.lax.scan(trace, jnp.int32(BINS), steps, reverse=True)[1]
