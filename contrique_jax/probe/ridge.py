"""Ridge regression in closed form: one decomposition for a whole path of penalties, what is left out predicted too.

alpha means what scikit-learn's Ridge means by it: |y - X w - b|^2 + alpha |w|^2, the intercept b not penalised.

The leverage of an image is 1/n + x' (X'X + alpha)^-1 x, x less the mean of the n fitted rows: how far it lies from what
the ridge has seen. In the Bayesian reading (w ~ N(0, noise / alpha), flat on b) the variance of its score about the
prediction is noise * (1 + leverage).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from contrique_jax.errors import UserError
from contrique_jax.probe.problem import checked_problem, rows_by_group

Members = tuple[Int[Array, "groups size"], ...]


class HeldOut(NamedTuple):
    """Every row as a fit sees it that was made without it (and without its group, where there are groups)."""

    predictions: Float[Array, "a n"]
    leverages: Float[Array, "a n"]


class Axes(NamedTuple):
    """Rows in the principal axes of the rows that are fitted."""

    values: Float[Array, " r"]  # sums of squares of the fitted rows along each axis
    coordinates: Float[Array, "n r"]
    rest: Float[Array, " n"]  # squared distance from the space of the axes


@contextmanager
def float64() -> Iterator[None]:
    """Context: JAX computes in float64 on the host's processor, whatever accelerator there is."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names an accelerator alone
        host = jax.local_devices()[0]
    with jax.enable_x64(True), jax.default_device(host):
        yield


def ridge_path(
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    alphas: Float[Array, " a"],
    weights: Float[Array, " n"] | None = None,
) -> tuple[Float[Array, "a d"], Float[Array, " a"]]:
    """Ridge coefficients and intercepts for every alpha (> 0), from one eigendecomposition of the smaller Gram matrix.

    `weights` weigh the rows' squared errors; a row of weight 0 does not count, so sets of different sizes can be padded
    and mapped over. Pure, in the dtype of `x`: solve in `float64()` where there is a choice. In float32 one step of
    refinement follows, and predictions differ from float64's by less than 4e-7 * (1 + s / alpha) of the spread of y,
    s the largest eigenvalue of the centred Gram matrix, while s / alpha is below 1e6.
    """
    with jax.default_matmul_precision("highest"):  # accelerators would round the factors to fewer bits
        weights = jnp.ones_like(y) if weights is None else weights
        share, root = weights / jnp.sum(weights), jnp.sqrt(weights)
        mean_x, mean_y = share @ x, share @ y
        centred, target = (x - mean_x) * root[:, None], (y - mean_y) * root
        dual = x.shape[0] <= x.shape[1]
        factor = centred if dual else centred.T
        right = target if dual else factor @ target
        values, vectors = jnp.linalg.eigh(factor @ factor.T)
        penalised = jnp.maximum(values, 0)[:, None] + alphas
        solution = vectors @ ((vectors.T @ right)[:, None] / penalised)
        if x.dtype != jnp.float64:  # the rounding of the Gram matrix, mended by residuals that do not read it
            left = target[:, None] - centred @ (factor.T @ solution if dual else solution)
            left = (left if dual else factor @ left) - alphas * solution
            solution = solution + vectors @ ((vectors.T @ left) / penalised)
        if dual:
            solution = factor.T @ solution
        return solution.T, mean_y - mean_x @ solution


def fit_ridge(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    alphas: Float[np.ndarray, " a"],
    weights: Float[np.ndarray, " n"] | None = None,
) -> tuple[Float[np.ndarray, "a d"], Float[np.ndarray, " a"]]:
    """`ridge_path` on host arrays in float64. Raises UserError for NaN, lengths that differ, alphas not above 0, and weights
    below 0 or all 0."""
    x, y, alphas = checked_problem(x, y, alphas)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != y.shape or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UserError(f"ridge: weights must be {len(y)} numbers of at least 0, not all 0.")
    with float64():
        coefficients, intercepts = jax.jit(ridge_path)(x, y, alphas, weights)
        return np.asarray(coefficients), np.asarray(intercepts)


def row_axes(x: Float[Array, "n d"], weights: Float[Array, " n"]) -> Axes:
    """All rows in the axes of the rows with a weight; for more fitted rows than features."""
    centred = x - (weights @ x) / jnp.sum(weights)
    values, vectors = jnp.linalg.eigh((centred * weights[:, None]).T @ centred)
    return Axes(jnp.maximum(values, 0), centred @ vectors, jnp.zeros_like(weights))


def gram_axes(
    block: Float[Array, "n m"], squares: Float[Array, " n"], places: Int[Array, " m"], weights: Float[Array, " m"]
) -> Axes:
    """All rows in the axes of the rows `places`; for fewer fitted rows than features.

    `block`: inner products of all rows with those, `squares`: of each row with itself, about any origin near the mean.
    """
    share, root = weights / jnp.sum(weights), jnp.sqrt(weights)
    with_mean = block @ share
    mean_square = share @ with_mean[places]
    centred = block - with_mean[:, None] - with_mean[places] + mean_square
    values, vectors = jnp.linalg.eigh(root[:, None] * centred[places] * root)
    least = jnp.finfo(block.dtype).eps * len(places) * jnp.max(values)  # below it an axis is rounding
    kept = values > least
    scale = jnp.where(kept, 1 / jnp.sqrt(jnp.where(kept, values, 1)), 0)
    coordinates = centred @ (root[:, None] * vectors * scale)
    rest = squares - 2 * with_mean + mean_square - jnp.sum(coordinates**2, axis=1)
    rest = rest.at[places].multiply(weights == 0)  # the fitted rows span the space: what is left of them is rounding
    return Axes(jnp.maximum(values, 0), coordinates, jnp.maximum(rest, 0))


def held_out(
    axes: Axes, y: Float[Array, " n"], weights: Float[Array, " n"], alphas: Float[Array, " a"], members: Members = ()
) -> HeldOut:
    """Predictions and leverages of every row by the fit without it, in closed form, for every alpha.

    Rows of weight 0 were never in the fit, and get its plain prediction. `members`: rows of each group, left out
    together, each array for groups of a like size and padded with n; rows in none are left out alone. Leaving out group
    G turns the residuals r_G into (I - Q_GG W)^-1 r_G, Q the leverages between rows (for one row, r / (1 - w q): Allen's
    PRESS). Rounding: about 1e-15 s / alpha of the spread of y, s the largest eigenvalue of the centred Gram matrix.
    """
    total = jnp.sum(weights)
    mean_y = weights @ y / total
    inverse = 1 / (axes.values[:, None] + alphas)
    along = axes.coordinates.T @ (weights * (y - mean_y))
    fitted = mean_y + axes.coordinates @ (along[:, None] * inverse)
    residuals = y[:, None] - fitted
    leverages = 1 / total + axes.coordinates**2 @ inverse + axes.rest[:, None] / alphas
    left = 1 - weights[:, None] * leverages
    wider = leverages / left
    predictions, wider, residuals = (fitted - residuals * weights[:, None] * wider).T, wider.T, residuals.T
    for rows in members:
        inside = rows < len(y)
        c = jnp.where(inside[..., None], axes.coordinates[rows], 0)
        rest = jnp.where(inside, axes.rest[rows], 0)
        w = jnp.where(inside, weights[rows], 0)
        error, wide = jax.lax.map(partial(_groups_out, c, rest, w, total), (alphas, inverse.T, residuals[:, rows]))
        known = jnp.where(w > 0, rows, len(y))
        predictions = predictions.at[:, known].set(y[rows] - error, mode="drop")
        wider = wider.at[:, known].set(wide, mode="drop")
    return HeldOut(predictions, wider)


def _groups_out(
    coordinates: Float[Array, "g m r"],
    rest: Float[Array, "g m"],
    weights: Float[Array, "g m"],
    total: Float[Array, ""],
    one_alpha: tuple[Float[Array, ""], Float[Array, " r"], Float[Array, "g m"]],
) -> tuple[Float[Array, "g m"], Float[Array, "g m"]]:
    """Errors and leverages of the rows of g groups, each group left out, for one (alpha, inverse, residuals)."""
    alpha, inverse, residuals = one_alpha
    eye = jnp.eye(weights.shape[1])
    between = 1 / total + (coordinates * inverse) @ coordinates.swapaxes(1, 2) + eye * (rest / alpha)[..., None]
    without = jnp.linalg.inv(eye - between * weights[:, None, :])
    return jnp.einsum("gij,gj->gi", without, residuals), jnp.einsum("gij,gji->gi", without, between)


def held_out_paths(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    trains: Sequence[Int[np.ndarray, " rows"]],
    alphas: Float[np.ndarray, " a"],
    groups: Sequence[str] | None = None,
) -> tuple[Float[np.ndarray, "fits a n"], Float[np.ndarray, "fits a n"]]:
    """`held_out` for ridges fitted on each set of rows in turn, float64: (predictions, leverages).

    A row that was fitted is predicted by the fit without it and the rest of its group (default: every row alone). The
    inner products are computed once for all fits, which follow each other in one compiled program. Raises UserError for
    bad input and for a set of rows that is a single group.
    """
    x, y, alphas = checked_problem(x, y, alphas)
    names = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if any(len(np.unique(names[rows])) < 2 for rows in trains):
        raise UserError("ridge: leaving a group out leaves nothing to fit; at least 2 groups are needed.")
    longest = max(len(rows) for rows in trains)
    places = np.array([np.pad(rows, (0, longest - len(rows))) for rows in trains])
    used = np.array([np.arange(longest) < len(rows) for rows in trains], np.float64)
    dual = longest <= x.shape[1]
    share_gram = dual and len(y) <= 2 * longest

    with float64():
        found = _paths(x, y, places, used, alphas, group_members(names), dual, share_gram)
        return np.asarray(found.predictions), np.asarray(found.leverages)


@partial(jax.jit, static_argnames=("dual", "share_gram"))
def _paths(
    x: Array, y: Array, places: Array, used: Array, alphas: Array, members: Members, dual: bool, share_gram: bool
) -> HeldOut:
    """`held_out` for each fit in `places` [fits, m], of which those with a 1 in `used` count."""
    x = x - jnp.mean(x, axis=0)
    squares = jnp.sum(x * x, axis=1)
    gram = x @ x.T if share_gram else None

    def one(fit: tuple[Array, Array]) -> HeldOut:
        places, used = fit
        weights = jnp.zeros_like(y).at[places].add(used)
        if dual:
            block = x @ x[places].T if gram is None else gram[:, places]
            axes = gram_axes(block, squares, places, used)
        else:
            axes = row_axes(x, weights)
        return held_out(axes, y, weights, alphas, members)

    return jax.lax.map(one, (places, used))  # on a processor, vmap's batched products take ten times as long


def group_members(names: Int[np.ndarray, " n"]) -> Members:
    """Rows of each group with more than one row, an array for all groups of up to 2, 4, 8, ... rows, padded with n."""
    sized: dict[int, list[Int[np.ndarray, " size"]]] = {}
    for rows in rows_by_group(names):
        if len(rows) > 1:
            width = 1 << (len(rows) - 1).bit_length()
            sized.setdefault(width, []).append(np.pad(rows, (0, width - len(rows)), constant_values=len(names)))
    return tuple(jnp.asarray(np.stack(rows)) for _, rows in sorted(sized.items()))
