"""The half of a recipe on opinions that trains and judges: losses of all rows, a mean of the weights, and test crops.

A recipe's network gives outputs [n], higher is better; `score_of` brings them to the units of the opinions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from contrique_jax.losses.opinion import weighted_sum
from contrique_jax.recipes.opinions.config import Judge
from contrique_jax.recipes.opinions.rows import Rows, mirrored
from contrique_jax.recipes.opinions.scale import fresh, kept, seen
from contrique_jax.recipes.recipe import Variables, all_rows

Network = Callable[[Float[Array, "n s s 3"], Float[Array, "n s s 3"] | None], Float[Array, " n"]]


def begun(config: Any, network: Variables) -> Variables:
    """A run's variables, of a network's fresh params and batch_stats: with the line of the scores, and the weights' mean."""
    mean = {"average": jax.tree.map(np.copy, network["params"])} if config.train.average else {}
    return network | {"scale": fresh()} | mean


def after_update(config: Any, variables: Variables) -> Variables:
    """The moving average of the weights, if one is kept."""
    if not config.train.average:
        return variables
    stays = config.train.average
    moved = jax.tree.map(lambda old, new: stays * old + (1 - stays) * new, variables["average"], variables["params"])
    return variables | {"average": moved}


def with_line(config: Any, variables: Variables) -> tuple[Any, Variables]:
    """For `finished`: the config whose model has the line of the scores, and the variables with the averaged weights if there
    are some (`on_trunk.finished` takes both)."""
    config = dataclasses.replace(config, model=kept(config.model, variables))
    return config, variables | {"params": variables.get("average", variables["params"])}


def opinion_loss(
    config: Any, outputs: Float[Array, " n"], batch: Rows, axis: str, weights: Float[Array, " n"] | None = None
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of `config.loss` between outputs and targets over the whole batch, inside a `shard_map`; and its parts by name.
    `weights`: of the rows, default 1 each."""
    weights = jnp.ones_like(batch.target) if weights is None else weights
    found, given, counted = (all_rows(x, axis) for x in (outputs, batch.target, weights))
    return weighted_sum(config.loss.terms, found, given, counted)


def objective(
    config: Any, variables: Variables, outputs: Float[Array, " n"], batch: Rows, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """That of a recipe with one output a row."""
    loss, parts = opinion_loss(config, outputs, batch, axis)
    return loss, seen(batch.scale, axis), parts


def score_range(config: Any) -> tuple[float, float, bool]:
    return config.model.score_low, config.model.score_high, config.model.score_unit > 0


def score_of(model: Judge, outputs: Float[Array, " n"]) -> Float[Array, " n"]:
    """Outputs of a network in the units of the opinions."""
    return model.score_zero + model.score_unit * outputs


# test crops


def places(model: Judge) -> tuple[Float[np.ndarray, "c 2"], Bool[np.ndarray, " c"]]:
    """Of each test crop its corner, as a share of the room there is, and whether it is mirrored."""
    if model.crops == "ten":
        five = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)])
        return np.tile(five, (2, 1)), np.arange(10) >= 5
    if model.crops == "random":
        return np.random.default_rng(model.crop_seed).random((model.crop_count, 2)), np.zeros(model.crop_count, bool)
    side = math.isqrt(model.crop_count)
    along = np.linspace(0, 1, side) if side > 1 else np.array([0.5])
    return np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2), np.zeros(side * side, bool)


def mean_over_crops(
    model: Judge,
    network: Network,
    images: Float[Array, "n h w 3"],
    valid: Int[Array, "n 2"] | None,
    reference: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, " n"]:
    """The mean of what `network` gives of each test crop, the same ones of image and reference; one crop of all images at a
    time. Images lie in the top left corner of their canvas, of the sizes `valid`."""
    sizes = jnp.tile(jnp.array(images.shape[1:3]), (len(images), 1)) if valid is None else valid
    corners, flips = places(model)

    def of_crop(corner_and_flip: tuple[Array, Array]) -> Float[Array, " n"]:
        corner, flip = corner_and_flip

        def cut(image: Array, size: Array) -> Array:
            room = jnp.maximum(size - model.crop_size, 0)
            start = jnp.round(corner * room).astype(jnp.int32)
            along = jnp.arange(model.crop_size)
            rows, columns = (mirrored(start[axis] + along, size[axis]) for axis in (0, 1))
            return image[rows[:, None], jnp.where(flip, columns[::-1], columns)[None, :]]

        return network(jax.vmap(cut)(images, sizes), None if reference is None else jax.vmap(cut)(reference, sizes))

    outputs = lax.map(of_crop, (jnp.asarray(corners, jnp.float32), jnp.asarray(flips)))
    return jnp.mean(outputs, axis=0)
