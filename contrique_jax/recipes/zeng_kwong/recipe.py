"""One network that judges an image alone and beside its reference, trained on both at once; of the kind that the abstract of
Zeng and Kwong (arXiv 2112.00485) promises. Neither its text nor code could be had: every choice is ours (docs/fidelity.md).

A batch may hold images with references and without: those without teach the no-reference head alone.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from contrique_jax.data.pipeline import Tree
from contrique_jax.losses.opinion import mean_over
from contrique_jax.networks import encoder, token_mixer
from contrique_jax.networks.pairs import apart, in_turn
from contrique_jax.networks.token_mixer import Judged, Maps
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes.opinions import judge, on_tokens, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.opinions.scale import seen
from contrique_jax.recipes.recipe import Reference, Variables, all_rows
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig as Config
from contrique_jax.recipes.zeng_kwong.config import TwoModeModel

name = "zeng_kwong"
rows_together = 1
gives = "score"
roles, canvas, describe = rows.roles, rows.canvas, rows.describe
draw, load, example_shapes = rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, score_range = judge.after_update, judge.score_range
constants, check, finished = on_tokens.constants, on_tokens.check, on_tokens.finished
init, variable_shapes, take_over, decays = (
    on_tokens.init,
    on_tokens.variable_shapes,
    on_tokens.take_over,
    on_tokens.decays,
)
REFERENCE: dict[str, Reference] = {"both": "optional", "full-reference": "needed", "no-reference": "never"}


def prepared(config: Config, sources: Any, broken: Any) -> Any:
    """References are needed if the full-reference head is to be trained on them alone."""
    needed = config.loss.reference_share == 1 or config.model.mode == "full-reference"
    return (rows.needing_references if needed else rows.prepared)(config, sources, broken)


def takes_reference(config: Config) -> Reference:
    return REFERENCE[config.model.mode]


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Judged, Variables]:
    """Both heads' outputs of each crop; those beside a black reference mean nothing."""
    maps, reference = _maps(config.model, constants, batch.image, batch.reference)
    return token_mixer.judge(config.model.widths, variables, maps, reference, keys), {}


def objective(
    config: Config, variables: Variables, outputs: Judged, batch: Rows, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """Of images with references (1 - share) times the no-reference loss and share times the full-reference one, of others the
    no-reference loss; and what the second head teaches the first."""
    assert outputs.beside is not None and outputs.beside_hidden is not None
    share = config.loss.reference_share
    weights = 1 - share * batch.paired, share * batch.paired
    alone, parts = judge.opinion_loss(config, outputs.alone, batch, axis, weights[0])
    beside, theirs = judge.opinion_loss(config, outputs.beside, batch, axis, weights[1])
    shares = [jnp.mean(all_rows(each, axis)) for each in weights]
    loss = shares[0] * alone + shares[1] * beside
    if config.loss.distillation:
        apart = jnp.mean((outputs.alone_hidden - jax.lax.stop_gradient(outputs.beside_hidden)) ** 2, axis=1)
        loss += config.loss.distillation * mean_over(all_rows(apart, axis), all_rows(batch.paired, axis))
    return loss, seen(batch.scale, axis), parts | {f"{part}_beside": value for part, value in theirs.items()}


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, " n"]:
    """Scores of whole images, the mean over test crops: beside the reference if there is one."""
    model = config.model

    def network(images: Array, references: Array | None) -> Float[Array, " n"]:
        maps, theirs = _maps(model, trunk_of(variables), images, references)
        found = token_mixer.judge(model.widths, variables, maps, theirs)
        return found.alone if found.beside is None else found.beside

    return judge.score_of(model, judge.mean_over_crops(model, network, stack, valid, reference))


def _maps(model: TwoModeModel, trunk: Variables, images: Array, references: Array | None) -> tuple[Maps, Maps | None]:
    """The last maps of strides 16 and 32, of images and of references, which go through the trunk together."""
    if references is None:
        return encoder.last_two_maps(model.of_trunk, trunk, images), None
    return apart(encoder.last_two_maps(model.of_trunk, trunk, in_turn(images, references)))
