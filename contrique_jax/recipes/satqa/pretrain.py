"""SaTQA's pre-training (arXiv 2312.06995): photographs under one distortion at one level have like embeddings.

A row is a photograph under a distortion and itself, each cropped and flipped on its own. Classes are the distortions' levels;
all undistorted photographs are one class. An anchor alone in its class is left out of the mean.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from contrique_jax.augment.grouped import by_kind
from contrique_jax.augment.views import crop_or_pad
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.distort import bank
from contrique_jax.io.machine import host_device
from contrique_jax.losses.nt_xent import nt_xent
from contrique_jax.networks.encoder import scaled
from contrique_jax.networks.grid_encoder import GridEncoder
from contrique_jax.networks.layers import RUNNING, Statistics
from contrique_jax.networks.skeleton import Skeleton, moved, skeleton
from contrique_jax.recipes.contrique.batches import load_canvas
from contrique_jax.recipes.contrique.order import type_table
from contrique_jax.recipes.recipe import (
    Variables,
    all_or_no_norm,
    as_given,
    as_moved,
    as_trained,
    check_same_encoder,
    judges_alone,
    nothing_more,
)
from contrique_jax.recipes.satqa.config import GridModel
from contrique_jax.recipes.satqa.config import PretrainConfig as Config

name = "satqa_pretrain"
roles = ("pristine",)
rows_together = 1
gives = "features"
takes_reference = judges_alone
prepared, after_update, finished, check = as_given, as_moved, as_trained, nothing_more


class Draws(NamedTuple):
    """The choices for n rows; places and flips are of the distorted photograph, then of the other."""

    record: Int[np.ndarray, " n"]
    class_id: Int[np.ndarray, " n"]  # 0..124
    key: UInt32[np.ndarray, "n 2"]  # what the distortion draws from
    place: Float[np.ndarray, "n 2 2"]  # down and right, as a share of the room there is, in [0, 1)
    flips: Bool[np.ndarray, "n 2 2"]  # upside down, left to right


class Example(NamedTuple):
    """A photograph and what is to become of it; of one row, without the axis n."""

    images: UInt8[Array, "n height width 3"]
    classes: Int[Array, " n"]
    key: UInt32[Array, "n 2"]
    place: Float[Array, "n 2 2"]
    flips: Bool[Array, "n 2 2"]


def canvas(config: Config) -> tuple[int, int]:
    return config.data.height, config.data.width


def describe(config: Config, sources: Sources) -> str:
    return f"{len(sources['pristine'])} pristine images"


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[Draws]:
    data, seed = config.data, config.train.seed
    ids = records(seed, step, 0, len(sources["pristine"]), data.batch_size)[rows.start : rows.stop]
    with jax.default_device(host_device()):
        found = _choices(seed, step, np.arange(rows.start, rows.stop), *type_table(data.type_weights))
        class_id, *rest = jax.tree.map(np.asarray, found)
    if data.merge_identity_classes:
        class_id = np.where(np.isin(class_id, bank.IDENTITIES), np.int32(bank.PRISTINE), class_id)
    return (Draws(ids, class_id, *rest),)


@functools.partial(jax.jit, static_argnames=("types", "shares"))
def _choices(
    seed: Int[Array, ""],
    step: Int[Array, ""],
    rows: Int[Array, " n"],
    types: tuple[int, ...],
    shares: tuple[float, ...],
) -> tuple[Array, Array, Array, Array]:
    batch_key = jax.random.fold_in(jax.random.key(seed), step)
    bounds = jnp.asarray(np.cumsum(shares)[:-1], jnp.float32)

    def one(row: Array) -> tuple[Array, Array, Array, Array]:
        kind_key, level_key, inside, place, flip = jax.random.split(jax.random.fold_in(batch_key, row), 5)
        chosen = jnp.searchsorted(bounds, jax.random.uniform(kind_key), side="right")
        level = jax.random.randint(level_key, (), 0, bank.NUM_LEVELS)
        return (
            (jnp.asarray(types, jnp.int32)[chosen] - 1) * bank.NUM_LEVELS + level,
            jax.random.key_data(inside),
            jax.random.uniform(place, (2, 2)),
            jax.random.bernoulli(flip, 0.5, (2, 2)),
        )

    return jax.vmap(one)(rows)


def load(config: Config, sources: Sources, role: int, draws: Draws, row: int, broken: BrokenLog) -> Example:
    image = load_canvas(sources["pristine"], int(draws.record[row]), config.data.height, config.data.width, broken)
    return Example(image, draws.class_id[row], draws.key[row], draws.place[row], draws.flips[row])  # type: ignore[arg-type]


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Example]:
    def array(*shape: int, dtype: Any = np.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    image = array(config.data.height, config.data.width, 3, dtype=np.uint8)
    pairs = array(2, 2, dtype=np.float32), array(2, 2, dtype=np.bool_)
    return (Example(image, array(), array(2, dtype=np.uint32), *pairs),)


def finish_row(config: Config, role: int, example: Example) -> dict[str, Array]:
    types, _ = type_table(config.data.type_weights)
    distorted = bank.distort(example.key, example.images, example.classes, types=types, minmax=config.data.minmax)
    return {"views": _views(config, distorted, example), "classes": example.classes}


def finish(config: Config, examples: tuple[Example, ...]) -> dict[str, Array]:
    (example,) = examples
    types, _ = type_table(config.data.type_weights)
    kinds, levels = bank.kind_and_level(example.classes)

    def one(kind: Array, key: Array, image: Array, level: Array) -> Array:
        return bank.distort_kind(key, image, kind, level, types=types, minmax=config.data.minmax)

    distorted = by_kind(one, kinds, (example.key, example.images, levels), kinds=bank.NUM_TYPES + 1)
    return {"views": jax.vmap(functools.partial(_views, config))(distorted, example), "classes": example.classes}


def _views(config: Config, distorted: UInt8[Array, "h w 3"], example: Example) -> UInt8[Array, "2 s s 3"]:
    views = []
    for image, (y, x), (down, across) in zip((distorted, example.images), example.place, example.flips, strict=True):
        view = crop_or_pad(image, y, x, config.data.view_size)
        view = jnp.where(down, view[::-1], view)
        views.append(jnp.where(across, view[:, ::-1], view))
    return jnp.stack(views)


def init(config: Config, seed: int) -> Variables:
    return network(config.model).init(seed)


def variable_shapes(config: Config) -> Variables:
    return network(config.model).shapes()


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The encoder; all of a model of this recipe with the same widths."""
    check_same_encoder(config, model)
    if isinstance(model, GridModel) and model.grid._replace(dtype="") == config.model.grid._replace(dtype=""):
        return theirs, "all its weights"
    return {part: drawn[part] | {"encoder": theirs[part]["encoder"]} for part in drawn}, "its encoder"


def constants(config: Config) -> Tree:
    return {}


def forward(
    config: Config,
    variables: Variables,
    constants: Tree,
    batch: dict[str, Array],
    keys: UInt32[Array, "n 2"],
    axis: str | None,
) -> tuple[Float[Array, "n 2 d"], Variables]:
    """Projections of the distorted photograph and of the other; BatchNorm sees those of all rows apart, as in two passes."""
    views, bound = batch["views"], network(config.model).bind(variables)
    statistics = Statistics(2 if config.model.norm_per_view else 1, axis)
    images = scaled(config.model, views.reshape(-1, *views.shape[2:]))
    z = bound.projected(bound.grid(images, statistics, remat=config.train.remat), statistics)
    return z.reshape(len(views), 2, -1), {"batch_stats": moved(bound)}


def objective(
    config: Config, variables: Variables, outputs: Float[Array, "n 2 d"], batch: dict[str, Array], axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """Multi-positive NT-Xent without lone anchors."""
    classes = jnp.stack([batch["classes"], jnp.full_like(batch["classes"], bank.PRISTINE)], axis=1)
    loss = nt_xent(
        outputs.reshape(-1, outputs.shape[-1]),
        classes.reshape(-1),
        num_classes=bank.NUM_CLASSES,
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        axis=axis,
        skip_lone=True,
    )
    return loss, {}, {}


def decays(config: Config, variables: Variables) -> Tree:
    """All parameters, as in the original, or with "no_norm" neither BatchNorm's nor biases."""
    return all_or_no_norm(config, variables, network(config.model).decays)


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n c"]:
    """What the projector is given, of the whole image."""
    bound = network(config.model).bind(variables)
    return bound.features(bound.grid(scaled(config.model, stack), RUNNING, valid))


def network(model: GridModel) -> Skeleton[GridEncoder]:
    """Encoder and projector."""
    return skeleton(GridEncoder, model.grid)
