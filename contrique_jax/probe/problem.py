"""What is given to a fit: checked, standardised, its rows by group. Without jax, which reading a probe and scoring by it do
not need."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from contrique_jax.errors import UserError


def checked_problem(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], alphas: Float[np.ndarray, " a"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"], Float[np.ndarray, " a"]]:
    """The three in float64. Raises UserError for NaN, lengths that differ and alphas not above 0."""
    x, y, alphas = (np.asarray(values, np.float64) for values in (x, y, alphas))
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise UserError(f"ridge: features {list(x.shape)} and scores {list(y.shape)} do not fit; give [N, D] and [N].")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("ridge: a feature or score is NaN or infinite; leave such images out.")
    if alphas.ndim != 1 or not len(alphas) or not (np.isfinite(alphas).all() and (alphas > 0).all()):
        raise UserError("ridge: every alpha must be a number above 0.")
    return x, y, alphas


def rows_by_group(names: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " rows"]]:
    """Rows of each group, ascending, in the order of the names."""
    order = np.argsort(names, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(names[order])) + 1)


def standard(
    features: Float[np.ndarray, "n d"],
    centre: Float[np.ndarray, " d"],
    deviation: Float[np.ndarray, " d"],
    farthest: float,
) -> Float[np.ndarray, "n d"]:
    """In deviations from the centre, held within `farthest` of it: a flat or synthetic image is further out than any that
    was fitted on."""
    return np.clip((features - centre) / deviation, -farthest, farthest)
