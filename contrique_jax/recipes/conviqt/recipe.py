"""CONVIQT (arXiv 2206.14713): a GRU over the frames of a clip, as a frozen trunk sees them, trained without opinions.

A row has two clips of 16 frames of one video, one at full and one at half size, each from a place of its own. Videos under
one synthetic distortion are of one class; an authentic one is a class of its own. The loss is CONTRIQUE's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float16, Int

from contrique_jax.config import ModelConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.losses.nt_xent import nt_xent_of_patches
from contrique_jax.networks import encoder, gru
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes import on_trunk
from contrique_jax.recipes.conviqt.classes import NUM_CLASSES
from contrique_jax.recipes.conviqt.config import ConviqtConfig as Config
from contrique_jax.recipes.conviqt.config import ConviqtModel
from contrique_jax.recipes.conviqt.vectors import DescribedClips, described
from contrique_jax.recipes.recipe import Variables, all_or_no_norm, as_moved, judges_alone

name = "conviqt"
roles = ("pristine", "authentic")
rows_together = 2
gives = "features"
takes_reference = judges_alone
after_update = as_moved
finish_row, finish = on_trunk.finish_row, on_trunk.finish
constants, finished, check = on_trunk.constants, on_trunk.finished, on_trunk.check


class Draws(NamedTuple):
    """The choices for n rows of one role."""

    record: Int[np.ndarray, " n"]
    class_id: Int[np.ndarray, " n"]
    half_first: Int[np.ndarray, " n"]  # 1: the first clip is the one at half size
    start: Float[np.ndarray, "n 2"]  # where each begins, as a share of the places there are, in [0, 1)


class Rows(NamedTuple):
    """Pairs of clips; of one row, without the axis n."""

    vectors: Float16[Array, "n 2 t d"]
    classes: Int[Array, " n"]


def canvas(config: Config) -> tuple[int, int]:
    return config.data.height, config.data.width


def describe(config: Config, sources: Sources) -> str:
    said = " and ".join(f"{len(source)} {role}" for role, source in sources.items())
    return f"a GRU on {config.model.trunk}, {said} clips"


def prepared(config: Config, sources: Sources, broken: BrokenLog) -> Sources:
    return described(config, sources, constants(config), broken)


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[Draws, Draws]:
    numbers, share, found = np.arange(rows.start, rows.stop), config.data.batch_size // 2, []
    for role, key in enumerate(roles):
        every, classes = records(config.train.seed, step, role, len(sources[key]), share), sources[key].classes
        own = NUM_CLASSES + np.arange(share) if classes is None else classes[every]
        chosen = np.random.default_rng([config.train.seed, step, role]).random((share, 3))
        mine = numbers[numbers % 2 == role] // 2
        found.append(
            Draws(every[mine], own[mine].astype(np.int32), (chosen[mine, 0] < 0.5).astype(int), chosen[mine, 1:])
        )
    return found[0], found[1]


def load(config: Config, sources: Sources, role: int, draws: Draws, row: int, broken: BrokenLog) -> Rows:
    source, length = sources[roles[role]], config.model.block_frames
    assert isinstance(source, DescribedClips)
    whole = source.vectors(int(draws.record[row]))
    clips = []
    for place, share in enumerate(draws.start[row]):
        first, size = int(share * (len(whole) - length + 1)), (place + draws.half_first[row]) % 2
        clips.append(whole[first : first + length, size])
    return Rows(np.stack(clips), draws.class_id[row])  # type: ignore[arg-type]


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Rows, Rows]:
    vectors = jax.ShapeDtypeStruct((2, config.model.block_frames, _widths(config.model).inputs), np.float16)
    return 2 * (Rows(vectors, jax.ShapeDtypeStruct((), np.int32)),)  # type: ignore[arg-type,return-value]


def init(config: Config, seed: int) -> Variables:
    return skeleton(gru.ClipNetwork, _widths(config.model)).init(seed)


def variable_shapes(config: Config) -> Variables:
    own, trunk = (
        skeleton(gru.ClipNetwork, _widths(config.model)).shapes(),
        encoder.variable_shapes(config.model.of_trunk),
    )
    return {part: own[part] | trunk_of(trunk)[part] for part in own}


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """GRU and projector, of a model of the same widths on the same trunk."""
    return on_trunk.taken_over(config, drawn, model, theirs, ConviqtModel, _widths), "its GRU and its projector"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: Array, axis: str | None
) -> tuple[Float[Array, "n 2 p"], Variables]:
    """Projections of both clips."""
    z, stats = gru.project(_widths(config.model), variables, batch[0], axis)
    return z, {"batch_stats": stats}


def objective(
    config: Config, variables: Variables, outputs: Float[Array, "n 2 p"], batch: Rows, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """Multi-positive NT-Xent, a row a clip."""
    loss = nt_xent_of_patches(
        outputs.swapaxes(0, 1)[:, :, None],
        batch[1],
        num_classes=NUM_CLASSES + config.data.batch_size // 2,
        shared_classes=NUM_CLASSES,
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        axis=axis,
    )
    return loss, {}, {}


def decays(config: Config, variables: Variables) -> Tree:
    """All parameters, as in the original, or with "no_norm" neither BatchNorm's nor biases."""
    return all_or_no_norm(config, variables, skeleton(gru.ClipNetwork, _widths(config.model)).decays)


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n d"]:
    """An image is a clip of one frame."""
    model, weights = frame_encoder(config, variables)
    return of_frames(config, variables, encoder.encode(model, weights, stack, valid)[:, None])


def frame_encoder(config: Config, variables: Variables) -> tuple[ModelConfig, Variables]:
    return config.model.of_trunk, trunk_of(variables)


def of_frames(
    config: Config, variables: Variables, vectors: Float[Array, "n t i"], lengths: Int[Array, " n"] | None = None
) -> Float[Array, "n d"]:
    return gru.features(_widths(config.model), variables, vectors, lengths)


def _widths(model: ConviqtModel) -> gru.Widths:
    standardised = model.frame_features == "stages"
    return gru.Widths(encoder.feature_width(model.of_trunk), model.hidden_width, model.projection_dim, standardised)
