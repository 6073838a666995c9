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
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes.opinions import judge, on_tokens, rows
from contrique_jax.recipes.opinions.rows import Rows
from contrique_jax.recipes.recipe import Variables, judges_alone
from contrique_jax.recipes.student.config import StudentConfig as Config

name = "student"
rows_together = 1
gives = "score"
takes_reference = judges_alone
roles, canvas, describe, prepared = rows.roles, rows.canvas, rows.describe, rows.prepared
draw, load, example_shapes = rows.draw, rows.load, rows.example_shapes
finish_row, finish = rows.finish_row, rows.finish
after_update, score_range, objective = judge.after_update, judge.score_range, judge.objective
constants, check, finished = on_tokens.constants, on_tokens.check, on_tokens.finished
init, variable_shapes, take_over, decays = (
    on_tokens.init,
    on_tokens.variable_shapes,
    on_tokens.take_over,
    on_tokens.decays,
)


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, " n"], Variables]:
    """The output of each crop, under noise of its own."""
    data = config.data
    images = jax.vmap(lambda key, image: noisy(key, image, data.turns, data.cutout, data.grid_mask))(
        keys, batch.image.astype(jnp.float32) / 255
    )
    maps = encoder.last_two_maps(config.model.of_trunk, constants, images)
    return token_mixer.judge(config.model.widths, variables, maps, keys=keys).alone, {}


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
        return token_mixer.judge(model.widths, variables, maps).alone

    return judge.score_of(model, judge.mean_over_crops(model, network, stack, valid))
