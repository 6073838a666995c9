"""CONTRIQUE (arXiv 2110.13266): distortion types and levels, and single photographs, as classes of a contrastive loss."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt32

from contrique_jax.augment.views import ViewDraw, draw_at
from contrique_jax.config import Config
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.losses.nt_xent import nt_xent_of_patches
from contrique_jax.networks import encoder
from contrique_jax.recipes.contrique import order
from contrique_jax.recipes.contrique.batches import (
    Batch,
    Canvases,
    Crops,
    batch_of,
    cropped_views,
    load_canvas,
    load_crops,
    synthetic_views,
)
from contrique_jax.recipes.recipe import (
    Variables,
    as_given,
    as_moved,
    as_trained,
    check_same_encoder,
    judges_alone,
    nothing_more,
)

name = "contrique"
roles = ("pristine", "authentic")
rows_together = 2
gives = "features"
takes_reference = judges_alone
prepared, after_update, finished, check = as_given, as_moved, as_trained, nothing_more


def canvas(config: Config) -> tuple[int, int]:
    return config.data.height, config.data.width


def _ready(sources: Sources | None) -> bool:
    """Whether the photographs to distort come distorted, with their classes."""
    return sources is not None and sources["pristine"].classes is not None


def describe(config: Config, sources: Sources) -> str:
    kind = "ready distorted" if _ready(sources) else "pristine"
    return f"{len(sources['pristine'])} {kind} and {len(sources['authentic'])} authentic images"


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[order.Draws, order.Draws]:
    counts = len(sources["pristine"]), len(sources["authentic"])
    return order.draw(config.data, config.train.seed, counts, step, rows)


def load(
    config: Config, sources: Sources, role: int, draws: order.Draws, row: int, broken: BrokenLog
) -> Canvases | Crops:
    source, data = sources[roles[role]], config.data
    record, class_id, views = int(draws.record[row]), draws.class_id[row], draw_at(draws.views, row)
    if role == 0 and not _ready(sources):
        image = load_canvas(source, record, data.height, data.width, broken)
        return Canvases(image, class_id, draws.key[row], views)  # type: ignore[arg-type]
    crops, read = load_crops(source, record, views, data.view_size, broken)
    own = class_id if source.classes is None else np.int32(source.classes[read])
    return Crops(crops, own, views)  # type: ignore[arg-type]


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Canvases | Crops, Crops]:
    def array(*shape: int, dtype: Any = np.uint8) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    data = config.data
    kinds = (np.int32, np.float32, np.float32, np.int32, np.bool_)
    views, number = ViewDraw(*(array(2, dtype=kind) for kind in kinds)), array(dtype=np.int32)
    crops = Crops(array(2, data.view_size, data.view_size, 3), number, views)
    if _ready(sources):
        return crops, crops
    return Canvases(array(data.height, data.width, 3), number, array(2, dtype=np.uint32), views), crops


def finish_row(config: Config, role: int, example: Canvases | Crops) -> Batch:
    if isinstance(example, Crops):
        return Batch(cropped_views(example.images, example.views), example.classes)
    image, class_id, key, views = example
    types, _ = order.type_table(config.data.type_weights)
    size, minmax = config.data.view_size, config.data.minmax
    return Batch(synthetic_views(key, image, class_id, views, size=size, types=types, minmax=minmax), class_id)


def finish(config: Config, examples: tuple[Canvases | Crops, ...]) -> Batch:
    types, _ = order.type_table(config.data.type_weights)
    return Batch(*batch_of(examples, size=config.data.view_size, types=types, minmax=config.data.minmax))


def init(config: Config, seed: int) -> Variables:
    return encoder.init_model(config.model, seed)


def variable_shapes(config: Config) -> Variables:
    return encoder.variable_shapes(config.model)


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The encoder; the projector too if all its arrays have the shapes of this config's."""
    check_same_encoder(config, model)
    fits = all(
        "projector" in theirs[part] and _shapes(theirs[part]["projector"]) == _shapes(drawn[part]["projector"])
        for part in drawn
    )
    kept = ("encoder", "projector") if fits else ("encoder",)
    variables = {part: drawn[part] | {key: theirs[part][key] for key in kept} for part in drawn}
    return variables, "its encoder and its projector" if fits else "its encoder and a projector of fresh weights"


def _shapes(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def constants(config: Config) -> Tree:
    return {}


def forward(
    config: Config, variables: Variables, constants: Tree, batch: Batch, keys: UInt32[Array, "n 2"], axis: str | None
) -> tuple[Float[Array, "n v p d"], Variables]:
    """Projections of the patches of both views."""
    z, stats = encoder.project(config.model, variables, batch[0], remat=config.train.remat, axis=axis)
    return z.swapaxes(0, 1), {"batch_stats": stats}


def objective(
    config: Config, variables: Variables, outputs: Float[Array, "n v p d"], batch: Batch, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """Multi-positive NT-Xent; each patch inherits its image's class, and an authentic image is a class of its own."""
    loss = nt_xent_of_patches(
        outputs.swapaxes(0, 1),
        batch[1],
        num_classes=NUM_CLASSES + config.data.batch_size // 2,
        shared_classes=NUM_CLASSES,
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        axis=axis,
    )
    return loss, {}, {}


def decays(config: Config, variables: Variables) -> Tree:
    """By `optim.decay_mask`: "no_norm" spares every BatchNorm. "original" spares what the original's rule (a name that
    contains "bn") meets once its encoder is wrapped in a Sequential: the BatchNorms inside blocks; the stem's, the
    downsamplings' and the projector's have lost their names there and are decayed. "all" spares nothing."""
    if config.optim.decay_mask == "no_norm":
        return encoder.decays(config.model)

    def touched(path: tuple[jax.tree_util.DictKey, ...], _: Array) -> bool:
        parent, module = (str(part.key) for part in path[-3:-1]) if len(path) > 2 else ("", str(path[-2].key))
        return config.optim.decay_mask == "all" or not (module.startswith("bn") and parent != "encoder")

    return jax.tree_util.tree_map_with_path(touched, variables["params"])


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n d"]:
    return encoder.encode(config.model, variables, stack, valid)
