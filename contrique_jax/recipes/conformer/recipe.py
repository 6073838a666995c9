"""IQA-Conformer (arXiv 2204.12819): Conformer blocks on a frozen network's maps of an image and its reference; or, without
cross-attention, of the image alone.

Where ours departs from the authors' program: docs/fidelity.md.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from contrique_jax.augment.rotation import rotated
from contrique_jax.data.pipeline import Tree
from contrique_jax.networks.conformer import Conformer
from contrique_jax.networks.layers import RUNNING, Statistics
from contrique_jax.networks.pairs import apart, in_turn
from contrique_jax.networks.plain_transformer import PlainTransformer
from contrique_jax.networks.skeleton import Skeleton, moved, skeleton
from contrique_jax.recipes.conformer import frozen
from contrique_jax.recipes.conformer.config import ConformerConfig as Config
from contrique_jax.recipes.conformer.config import ConformerModel
from contrique_jax.recipes.opinions import judge, on_backbones, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.recipe import Reference, Variables

name = "conformer"
rows_together = 1
gives = "score"
roles, canvas, describe = rows.roles, rows.canvas, rows.describe
draw, load, example_shapes = rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, objective, score_range = judge.after_update, judge.objective, judge.score_range
finished, check = on_backbones.finished, on_backbones.check
TURN = 1 << 20  # the place of the rotation's draw, apart from dropout's


def prepared(config: Config, sources: Any, broken: Any) -> Any:
    return (rows.needing_references if config.model.paired else rows.prepared)(config, sources, broken)


def takes_reference(config: Config) -> Reference:
    return "needed" if config.model.paired else "never"


def constants(config: Config) -> Tree:
    """The frozen network."""
    return frozen.load(config.model)


def init(config: Config, seed: int) -> Variables:
    return judge.begun(config, _network(config.model).init(seed))


def variable_shapes(config: Config) -> Variables:
    own, below = _network(config.model).shapes(), frozen.shapes(config.model)
    return {part: below[part] | own[part] for part in own}


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """Both Conformers and the head, of the same widths on the same frozen network."""
    taken = on_backbones.taken_over(config, constants(config), drawn, model, theirs, lambda model: model.widths)
    return taken, "its Conformer blocks and head"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, " n"], Variables]:
    """Outputs of crops, turned by each row's angle, and the moved statistics."""
    model, network = config.model, _network(config.model).bind(variables)
    images = [batch.image, batch.reference] if model.paired else [batch.image]
    if config.data.rotation:
        images = [_turned(each, keys, math.radians(config.data.rotation)) for each in images]
    maps = _maps(model, constants, *images)
    outputs = network(*maps, Statistics(1, axis), keys if model.dropout else None)
    return outputs, {"batch_stats": moved(network)}


def decays(config: Config, variables: Variables) -> Tree:
    return _network(config.model).decays()


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, " n"]:
    """Scores of whole images, beside their references if the model compares, the mean over test crops."""
    model, below = config.model, on_backbones.frozen_of(config.model, variables)
    network = _network(model).bind(variables)

    def of_crop(images: Array, references: Array | None) -> Float[Array, " n"]:
        return network(*_maps(model, below, images, references), RUNNING)

    outputs = judge.mean_over_crops(model, of_crop, stack, valid, reference if model.paired else None)
    return judge.score_of(model, outputs)


def _maps(model: ConformerModel, below: Variables, images: Array, references: Array | None = None) -> tuple[Any, Any]:
    """Of images, and of their references if there are any."""
    if references is None:
        return frozen.maps(model, below, images), None
    return apart(frozen.maps(model, below, in_turn(images, references)))


def _turned(images: Array, keys: UInt32[Array, "n 2"], most: float) -> Float[Array, "n h w 3"]:
    """Bytes -> floats in [0, 1], each image turned by an angle of its row."""

    def one(image: Array, key: Array) -> Array:
        own = jax.random.fold_in(jax.random.wrap_key_data(key), TURN)
        return rotated(image.astype(jnp.float32) / 255, jax.random.uniform(own, (), minval=-most, maxval=most), 0.5)

    return jax.vmap(one)(images, keys)


def _network(model: ConformerModel) -> Skeleton[Any]:
    return skeleton(PlainTransformer if model.widths.plain else Conformer, model.widths, jnp.dtype(model.compute_dtype))
