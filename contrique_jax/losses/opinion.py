"""Losses between predicted and given opinions, of the rows of a whole batch; weights of 0 leave rows out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rows = Float[Array, " n"]
TINY = 1e-8


def mean_over(values: Rows, weights: Rows) -> Float[Array, ""]:
    """The weighted mean; 0 if all weights are."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), TINY)


def mse(predicted: Rows, given: Rows, weights: Rows) -> Float[Array, ""]:
    return mean_over(jnp.square(predicted - given), weights)


def mae(predicted: Rows, given: Rows, weights: Rows) -> Float[Array, ""]:
    return mean_over(jnp.abs(predicted - given), weights)


def ranking(predicted: Rows, given: Rows, weights: Rows) -> Float[Array, ""]:
    """Mean over pairs of max(0, |a - b| - s (p - q)): a, b the given scores, p, q the predicted, s the sign of a - b. A pair
    costs nothing if it is at least as far apart as it should be, in the right direction; pairs of equal scores are left out."""
    apart = given[:, None] - given[None, :]
    found = predicted[:, None] - predicted[None, :]
    counted = weights[:, None] * weights[None, :] * (apart != 0)
    cost = jax.nn.relu(jnp.abs(apart) - jnp.sign(apart) * found)
    return jnp.sum(cost * counted) / jnp.maximum(jnp.sum(counted), TINY)


def correlation(predicted: Rows, given: Rows, weights: Rows) -> Float[Array, ""]:
    """(1 - Pearson's correlation) / 2: 0 if they rise together on a line, 1 if one falls; .5 if one of them is constant."""
    a, b = (x - mean_over(x, weights) for x in (predicted, given))
    variances = mean_over(a * a, weights) * mean_over(b * b, weights)
    return (1 - mean_over(a * b, weights) * jax.lax.rsqrt(variances + TINY**2)) / 2


TERMS = {"mse": mse, "mae": mae, "ranking": ranking, "correlation": correlation}


def weighted_sum(
    terms: dict[str, float], predicted: Rows, given: Rows, weights: Rows
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The sum of the named losses, each times its number, and each by itself; those of 0 are left out."""
    parts = {name: TERMS[name](predicted, given, weights) for name, share in terms.items() if share}
    return sum((terms[name] * part for name, part in parts.items()), jnp.zeros(())), parts
