"""CONTRIQUE with a frozen trunk: a small head learns on the statistics of its stages, which are computed once.

Classes and loss are CONTRIQUE's. A photograph has a fixed number of views, each a full-size and a half-size crop; a record
is a view. An authentic photograph is a class of its own, of all its views in the batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float16, Int

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.losses.nt_xent import nt_xent_of_patches
from contrique_jax.networks import encoder, head
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes import on_trunk
from contrique_jax.recipes.contrique_head.config import HeadConfig as Config
from contrique_jax.recipes.contrique_head.config import HeadModel
from contrique_jax.recipes.contrique_head.statistics import Described, described
from contrique_jax.recipes.recipe import Variables, as_moved, judges_alone

name = "contrique_head"
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


class Rows(NamedTuple):
    """Views of photographs; of one row, without the axis n."""

    vectors: Float16[Array, "n 2 d"]
    classes: Int[Array, " n"]


def canvas(config: Config) -> tuple[int, int]:
    return config.data.height, config.data.width


def describe(config: Config, sources: Sources) -> str:
    counts = {role: len(source) // config.data.views for role, source in sources.items()}
    said = " and ".join(f"{count} {role}" for role, count in counts.items())
    return f"a head on {config.model.trunk}, {said} photographs in {config.data.views} views each"


def prepared(config: Config, sources: Sources, broken: BrokenLog) -> Sources:
    return described(config, sources, constants(config), broken)


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[Draws, Draws]:
    numbers, share, found = np.arange(rows.start, rows.stop), config.data.batch_size // 2, []
    for role, key in enumerate(roles):
        every, classes = records(config.train.seed, step, role, len(sources[key]), share), sources[key].classes
        if classes is None:
            # the place in the batch of the photograph's first view
            _, first, which = np.unique(every // config.data.views, return_index=True, return_inverse=True)
            own = NUM_CLASSES + first[which]
        else:
            own = classes[every]
        mine = numbers[numbers % 2 == role] // 2
        found.append(Draws(every[mine], own[mine].astype(np.int32)))
    return found[0], found[1]


def load(config: Config, sources: Sources, role: int, draws: Draws, row: int, broken: BrokenLog) -> Rows:
    source = sources[roles[role]]
    assert isinstance(source, Described)
    return Rows(source.vectors[draws.record[row]], draws.class_id[row])


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Rows, Rows]:
    vectors = jax.ShapeDtypeStruct((2, _widths(config.model).inputs), np.float16)
    return 2 * (Rows(vectors, jax.ShapeDtypeStruct((), np.int32)),)  # type: ignore[arg-type,return-value]


def init(config: Config, seed: int) -> Variables:
    return skeleton(head.Head, _widths(config.model)).init(seed)


def variable_shapes(config: Config) -> Variables:
    model = config.model
    own, trunk = skeleton(head.Head, _widths(model)).shapes(), encoder.variable_shapes(model.of_trunk)
    return {part: own[part] | trunk_of(trunk)[part] for part in own}


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The head and its projector, of a head of the same widths on the same trunk."""
    return on_trunk.taken_over(config, drawn, model, theirs, HeadModel, _widths), "its head and its projector"


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Rows, keys: Array, axis: str | None
) -> tuple[Float[Array, "n 2 p"], Variables]:
    """Projections of both crops."""
    z, stats = head.project(_widths(config.model), variables, batch[0], axis)
    return z, {"batch_stats": stats}


def objective(
    config: Config, variables: Variables, outputs: Float[Array, "n 2 p"], batch: Rows, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """Multi-positive NT-Xent; views of an authentic photograph may lie on any device."""
    classes = NUM_CLASSES + config.data.batch_size // 2
    loss = nt_xent_of_patches(
        outputs.swapaxes(0, 1)[:, :, None],
        batch[1],
        num_classes=classes,
        shared_classes=classes,
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        axis=axis,
    )
    return loss, {}, {}


def decays(config: Config, variables: Variables) -> Tree:
    return skeleton(head.Head, _widths(config.model)).decays()


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n d"]:
    statistics = encoder.encode(config.model.of_trunk, trunk_of(variables), stack, valid)
    return of_statistics(config.model, variables, statistics)


def of_statistics(model: HeadModel, variables: Variables, statistics: Float[Array, "n i"]) -> Float[Array, "n d"]:
    """What `apply` gives, of the trunk's statistics at one size."""
    return head.features(_widths(model), variables, statistics, model.features)


def _widths(model: HeadModel) -> head.Widths:
    inputs = encoder.feature_width(model.of_trunk)
    return head.Widths(inputs, model.hidden_width, model.head_width, model.projection_dim)
