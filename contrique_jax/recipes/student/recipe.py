"""A blind noisy student, after "Conformer and Blind Noisy Students" (arXiv 2204.12819), whose student's code is not public.

A teacher, MS-SSIM or any trained model that gives scores, judges pairs of photographs under the bank's distortions; a network
that is shown the distorted one alone, under noise, learns what it says. Fine-tuning on opinions is the same with another
source, from the student's weights; a student is the next generation's teacher.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from contrique_jax.augment.masks import noisy
from contrique_jax.data.pipeline import Tree
from contrique_jax.networks import encoder, token_mixer
from contrique_jax.networks.token_mixer import Widths
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes import on_trunk
from contrique_jax.recipes.opinions import judge, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.recipe import Variables, judges_alone
from contrique_jax.recipes.student.config import StudentConfig as Config
from contrique_jax.recipes.student.config import StudentModel

name = "student"
rows_together = 1
gives = "score"
takes_reference = judges_alone
roles, canvas, describe, prepared = rows.roles, rows.canvas, rows.describe, rows.prepared
draw, load, example_shapes = rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, score_range, objective = judge.after_update, judge.score_range, judge.objective
constants, check, finished = on_trunk.constants, on_trunk.check, judge.finished_on_trunk


def init(config: Config, seed: int) -> Variables:
    return judge.begun(config, token_mixer.init(_widths(config.model), seed))


def variable_shapes(config: Config) -> Variables:
    mixer, trunk = token_mixer.shapes(_widths(config.model)), encoder.variable_shapes(config.model.of_trunk)
    return {part: trunk_of(trunk)[part] | mixer[part] for part in mixer}


def take_over(config: Config, drawn: Variables, model: object, theirs: Variables) -> tuple[Variables, str]:
    """The transformer and its head, of a student of the same widths on the same trunk."""
    network = {part: drawn[part] for part in ("params", "batch_stats")}
    taken = on_trunk.taken_over(config, network, model, theirs, StudentModel, _widths)
    return judge.begun(config, taken), "its transformer and head"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, " n"], Variables]:
    """The output of each crop, under noise of its own."""
    data = config.data
    images = jax.vmap(lambda key, image: noisy(key, image, data.turns, data.cutout, data.grid_mask))(
        keys, batch.image.astype(jnp.float32) / 255
    )
    maps = encoder.last_two_maps(config.model.of_trunk, constants, images)
    return token_mixer.judge(_widths(config.model), variables, maps, keys=keys).alone, {}


def decays(config: Config, variables: Variables) -> Tree:
    return token_mixer.decays(_widths(config.model))


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Float[Array, "n h w 3"] | None = None,
) -> Float[Array, " n"]:
    """Scores of whole images, the mean over test crops, without noise."""
    model, trunk = config.model, trunk_of(variables)

    def network(images: Array, references: Array | None) -> Float[Array, " n"]:
        maps = encoder.last_two_maps(model.of_trunk, trunk, images)
        return token_mixer.judge(_widths(model), variables, maps).alone

    return judge.score_of(model, judge.mean_over_crops(model, network, stack, valid))


def _widths(model: StudentModel) -> Widths:
    maps = encoder.last_two_widths(model.of_trunk)
    return Widths(*maps, model.width, model.depth, model.heads, model.hidden, model.dropout, compares=False)
