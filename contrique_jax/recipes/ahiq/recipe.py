"""AHIQ (arXiv 2204.10485): a score of an image beside its reference, from the maps of two frozen networks.

Where ours departs from the authors' program: docs/fidelity.md.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from contrique_jax.data.pipeline import Tree
from contrique_jax.networks.ahiq import Ahiq
from contrique_jax.networks.pairs import apart, in_turn
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.recipes.ahiq import frozen
from contrique_jax.recipes.ahiq.config import AhiqConfig as Config
from contrique_jax.recipes.ahiq.config import AhiqModel
from contrique_jax.recipes.opinions import judge, on_backbones, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.recipe import Reference, Variables, all_or_no_norm

name = "ahiq"
rows_together = 1
gives = "score"
roles, canvas, describe = rows.roles, rows.canvas, rows.describe
prepared, draw, load, example_shapes = rows.needing_references, rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, objective, score_range = judge.after_update, judge.objective, judge.score_range
finished, check = on_backbones.finished, on_backbones.check


def takes_reference(config: Config) -> Reference:
    return "needed"


def constants(config: Config) -> Tree:
    """The frozen networks, as far as they are used."""
    return frozen.load(config.model)


def init(config: Config, seed: int) -> Variables:
    return judge.begun(config, _network(config.model).init(seed))


def variable_shapes(config: Config) -> Variables:
    own, below = _network(config.model).shapes(), frozen.shapes(config.model)
    return {part: below[part] | own[part] for part in own}


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """Deformable convolution and regressor, of the same widths on the same frozen networks."""
    taken = on_backbones.taken_over(config, constants(config), drawn, model, theirs, lambda model: model.widths)
    return taken, "its deformable convolution and regressor"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, " n"], Variables]:
    """Scores of crops beside their references, as the loss compares them."""
    return _scores(config.model, variables, constants, batch.image, batch.reference), {}


def decays(config: Config, variables: Variables) -> Tree:
    """All parameters, as in the original, or with "no_norm" all but biases."""
    return all_or_no_norm(config, variables, _network(config.model).decays)


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, " n"]:
    """Scores of whole images beside their references, the mean over test crops."""
    assert reference is not None
    below = on_backbones.frozen_of(config.model, variables)

    def network(images: Array, references: Array | None) -> Float[Array, " n"]:
        assert references is not None
        return _scores(config.model, variables, below, images, references)

    outputs = judge.mean_over_crops(config.model, network, stack, valid, reference)
    return judge.score_of(config.model, outputs)


def _scores(model: AhiqModel, variables: Variables, below: Variables, images: Array, references: Array) -> Array:
    image, reference = apart(frozen.maps(model, below, in_turn(images, references)))
    return _network(model).bind(variables)(image, reference).score


def _network(model: AhiqModel) -> Skeleton[Ahiq]:
    return skeleton(Ahiq, model.widths, jnp.dtype(model.compute_dtype))
