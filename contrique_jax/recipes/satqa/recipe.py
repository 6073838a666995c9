"""SaTQA (arXiv 2312.06995): scores of single images, learned from opinions on a frozen ViT and on the frozen encoder of
`pretrain`.

Where ours departs from the authors' program: docs/fidelity.md.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float, UInt32

from contrique_jax.data.pipeline import Tree
from contrique_jax.networks.satqa import Judge, Size
from contrique_jax.networks.skeleton import Skeleton, skeleton
from contrique_jax.recipes.opinions import judge, on_backbones, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.recipe import Variables, all_or_no_norm, judges_alone
from contrique_jax.recipes.satqa import frozen
from contrique_jax.recipes.satqa.config import SatqaConfig as Config
from contrique_jax.recipes.satqa.config import SatqaModel

name = "satqa"
rows_together = 1
gives = "score"
takes_reference = judges_alone
roles, canvas, describe = rows.roles, rows.canvas, rows.describe
prepared, draw, load, example_shapes = rows.prepared, rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, objective, score_range = judge.after_update, judge.objective, judge.score_range
finished, check = on_backbones.finished, on_backbones.check


def constants(config: Config) -> Tree:
    """The frozen networks, as far as they are used."""
    return frozen.load(config.model)


def init(config: Config, seed: int) -> Variables:
    return judge.begun(config, _network(config.model).init(seed))


def variable_shapes(config: Config) -> Variables:
    own, below = _network(config.model).shapes(), frozen.shapes(config.model)
    return {part: below[part] | own[part] for part in own}


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """Blocks, cross-attention and head, of the same widths on the same frozen networks."""

    def widths(model: SatqaModel) -> Size:
        return model.size._replace(dropout=0.0, dtype="")

    taken = on_backbones.taken_over(config, constants(config), drawn, model, theirs, widths)
    return taken, "its blocks, cross-attention and head"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, " n"], Variables]:
    """Scores of crops, as the loss compares them."""
    bound = _network(config.model).bind(variables)
    return bound(*frozen.given(config.model, constants, batch.image), keys, config.train.remat), {}


def decays(config: Config, variables: Variables) -> Tree:
    """All parameters, as in the original, or with "no_norm" all but biases."""
    return all_or_no_norm(config, variables, _network(config.model).decays)


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, " n"]:
    """Scores of whole images, the mean over test crops."""
    model = config.model
    below, bound = on_backbones.frozen_of(model, variables), _network(model).bind(variables)

    def network(images: Array, references: Array | None) -> Float[Array, " n"]:
        return bound(*frozen.given(model, below, images))

    return judge.score_of(model, judge.mean_over_crops(model, network, stack, valid))


def _network(model: SatqaModel) -> Skeleton[Judge]:
    return skeleton(Judge, model.size)
