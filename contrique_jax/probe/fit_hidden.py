"""Trains a probe's hidden layer on opinions and on copies that are known to be worse.

AdamW on mixed pairs of images (mixup, arXiv 1710.09412) with dropout. The layer also learns which part of the data set an
image is of, what the scores of each part are above the others' where images look equally good, and, more slowly, what else
people look for in each part. Beside the opinions it sees, as the ridge of `falls` does, photographs beside copies of
themselves that are known to be worse: the difference of the two scores should be the fall. Measured with some thousand
opinions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from contrique_jax.errors import UserError
from contrique_jax.probe.falls import LEAST_DEVIATION, kind_numbers
from contrique_jax.probe.hidden import FARTHEST, Hidden
from contrique_jax.probe.problem import checked_problem, standard

DROPPED = 0.3, 0.5  # shares of inputs and of hidden units, in training
MIXED = 0.4  # both parameters of the beta distribution that weights of mixed pairs come from
RATE, DECAY = 3e-4, 0.1  # of AdamW at the peak of its one cycle
EPOCHS = 25  # of some thousand opinions
ROWS = 128  # opinions a step, and as many pairs of a photograph and a copy
APART = 0.3  # of the rate at which a kind's own outputs are learned
BETWEEN = 0.3  # of the log-odds of kinds in the scores: what is taken for the wrong kind then costs less


class Copies(NamedTuple):
    """Photographs and worse copies: features [p, d] of both, for each of m copies the rows of its original and of itself, and
    by how much the score falls, in units of the scores (0 or more)."""

    features: Float[np.ndarray, "p d"]
    originals: Int[np.ndarray, " m"]
    copies: Int[np.ndarray, " m"]
    falls: Float[np.ndarray, " m"]


def fit_hidden(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    copies: Copies | None = None,
    *,
    kinds: Sequence[str] | None = None,
    weights: Float[np.ndarray, " n"] | None = None,
    width: int = 512,
    epochs: int = EPOCHS,
    fall_weight: float = 0.01,
    higher_is_better: bool = True,
    seed: int = 0,
) -> Hidden:
    """By `seed` the same each time on one kind of machine; with 10,000 images of 3,000 features half a minute of two cores.

    `kinds`: the part of the data set that each image is of (default: all of one). `weights`: what each opinion counts, above 0
    and used relative to their mean (default: all the same); less for those that people agree on less. `epochs`: more for
    fewer opinions. `fall_weight`: what the squared error of a fall counts beside that of an opinion, both in deviations of the
    opinions.

    Raises UserError for NaN, lengths that differ, fewer than ROWS images, scores that are all the same and a weight that is
    not above 0.
    """
    x, y, _ = checked_problem(features, scores, np.ones(1))
    if len(y) < ROWS:
        raise UserError(f"probe: {len(y)} images, and a hidden layer needs {ROWS} at least; fit a ridge.")
    mean, unit = float(y.mean()), float(y.std())
    if unit < LEAST_DEVIATION:
        raise UserError("probe: every score is the same, so nothing can be learned; check the scores.")
    centre, deviation = x.mean(axis=0), np.maximum(x.std(axis=0), LEAST_DEVIATION)
    targets = ((y - mean) / unit).astype(np.float32)
    counts = _relative(weights, len(y))
    kind = kind_numbers(kinds, len(y))
    count = int(kind.max()) + 1
    rng = np.random.default_rng(seed)
    params = _drawn(rng, x.shape[1], width, count)
    params["shifts"] = jnp.asarray([targets[kind == i].mean() for i in range(count)], jnp.float32)
    one_hot = np.eye(count, dtype=np.float32)[kind]
    per_epoch = len(y) // ROWS
    steps = epochs * per_epoch
    step, state = _trainer(steps, fall_weight, params)
    z = jnp.asarray(standard(x, centre, deviation, FARTHEST), jnp.float32)
    told = None
    if copies is not None and len(copies.falls):
        rows, wanted = _checked(copies, x.shape[1], unit, higher_is_better)
        told = jnp.asarray(standard(copies.features, centre, deviation, FARTHEST), jnp.float32)
    key = jax.random.key(seed)
    for number in range(steps):
        if number % per_epoch == 0:
            order = rng.permutation(len(y))
        place = number % per_epoch * ROWS
        own = order[place : place + ROWS]
        other, share = own[rng.permutation(ROWS)], np.float32(rng.beta(MIXED, MIXED))
        batch: dict[str, Any] = {"target": share * targets[own] + (1 - share) * targets[other]}
        batch["kinds"] = share * one_hot[own] + (1 - share) * one_hot[other]
        batch["counts"] = share * counts[own] + (1 - share) * counts[other]
        batch["rows"] = own, other, share
        if told is not None:
            chosen = rng.integers(0, len(wanted), ROWS)
            batch |= {"pairs": rows[:, chosen], "falls": wanted[chosen]}
        params, state = step(params, state, z, told, batch, jax.random.fold_in(key, number))
    found = {name: np.asarray(value) for name, value in params.items()}
    return Hidden(
        centre=centre.astype(np.float32),
        deviation=deviation.astype(np.float32),
        weights=found["weights"].T.astype(np.float16),
        offsets=found["offsets"],
        outputs=unit * found["outputs"],
        intercept=mean + unit * float(found["intercept"]),
        kinds=BETWEEN * found["kinds"].T,
        kind_offsets=BETWEEN * found["kind_offsets"],
        apart=unit * APART * found["apart"].T,
        shifts=unit * found["shifts"],
    )


def _drawn(rng: np.random.Generator, inputs: int, width: int, kinds: int) -> dict[str, Array]:
    """Uniform within one over the root of a layer's inputs."""

    def uniform(reach: float, *shape: int) -> Array:
        return jnp.asarray(rng.uniform(-reach, reach, shape), jnp.float32)

    first, second = inputs**-0.5, width**-0.5
    return {
        "weights": uniform(first, inputs, width),
        "offsets": uniform(first, width),
        "outputs": uniform(second, width),
        "intercept": uniform(second),
        "kinds": uniform(second, width, kinds),
        "kind_offsets": uniform(second, kinds),
        "apart": jnp.zeros((width, kinds), jnp.float32),
    }


def _relative(weights: Float[np.ndarray, " n"] | None, images: int) -> Float[np.ndarray, " n"]:
    """Divided by their mean."""
    counts = np.ones(images) if weights is None else np.asarray(weights, np.float64)
    if counts.shape != (images,) or not (np.isfinite(counts).all() and (counts > 0).all()):
        raise UserError(f"probe: each of the {images} opinions needs a weight above 0.")
    return (counts / counts.mean()).astype(np.float32)


def _checked(
    copies: Copies, width: int, unit: float, higher_is_better: bool
) -> tuple[Int[np.ndarray, "2 m"], Float[np.ndarray, " m"]]:
    """Rows of originals and of copies, and the change in score in deviations of the opinions."""
    falls = np.asarray(copies.falls, np.float64)
    if copies.features.shape[1] != width or not np.isfinite(copies.features).all():
        raise UserError(f"probe: features of copies must be {width} numbers a row, none of them NaN.")
    if not (np.isfinite(falls).all() and (falls >= 0).all()):
        raise UserError("probe: a degraded copy's fall must be 0 or more.")
    change = (-falls if higher_is_better else falls) / unit
    return np.stack([copies.originals, copies.copies]), change.astype(np.float32)


def _trainer(steps: int, fall_weight: float, params: dict[str, Array]) -> tuple[Any, Any]:
    optimiser = optax.adamw(optax.cosine_onecycle_schedule(steps, RATE), weight_decay=DECAY)

    def units(params: dict[str, Array], x: Float[Array, "n d"], key: Array) -> Float[Array, "n h"]:
        for share, layer, number in ((DROPPED[0], None, 0), (DROPPED[1], "weights", 1)):
            if layer:
                x = jax.nn.gelu(x @ params["weights"] + params["offsets"], approximate=False)
            # the same units of a photograph and its copy, or their difference would be mostly of units dropped
            kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - share, (min(len(x), 2 * ROWS), x.shape[1]))
            kept = jnp.concatenate([kept, kept[ROWS:]])
            x = jnp.where(kept, x / (1 - share), 0)
        return x

    def loss(params: dict[str, Array], z: Array, told: Array | None, batch: dict[str, Any], key: Array) -> Array:
        own, other, share = batch["rows"]
        x = share * z[own] + (1 - share) * z[other]
        if told is not None:
            x = jnp.concatenate([x, told[batch["pairs"][0]], told[batch["pairs"][1]]])
        found = units(params, x, key)
        kinds = found[:ROWS] @ params["kinds"] + params["kind_offsets"]
        # of one kind, these would only be its outputs once more
        of_kinds = APART * (params["apart"].shape[1] > 1) * found[:ROWS] @ params["apart"] + params["shifts"]
        found = found @ params["outputs"] + params["intercept"]
        scores = found[:ROWS] + jnp.sum(batch["kinds"] * of_kinds, axis=1)
        total = jnp.mean(batch["counts"] * jnp.square(scores - batch["target"]))
        total += jnp.mean(optax.softmax_cross_entropy(kinds, batch["kinds"]))
        if told is not None:
            original, copy = found[ROWS:].reshape(2, ROWS)
            total += fall_weight * jnp.mean(jnp.square(copy - original - batch["falls"]))
        return total

    @jax.jit
    def step(params: dict[str, Array], state: Any, z: Array, told: Array | None, batch: Any, key: Array) -> Any:
        gradients = jax.grad(loss)(params, z, told, batch, key)
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return step, optimiser.init(params)
