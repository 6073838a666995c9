"""ARNIQA (arXiv 2310.14918): crops of two photographs under one chain of distortions have like embeddings.

Of each record two photographs A and B, of each a crop at full and one at half size. The positive of a crop is the other
photograph's at the same size; all else, the same chain at the other size too, is negative.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8, UInt32

from contrique_jax.config import ModelConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_image
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.data.sizes import half_size
from contrique_jax.io.machine import host_device
from contrique_jax.losses.nt_xent import nt_xent
from contrique_jax.networks import encoder, pair_projector
from contrique_jax.networks.layers import Statistics
from contrique_jax.recipes.arniqa.chain import Chain, degrade, degrade_many, draw_chain
from contrique_jax.recipes.arniqa.config import FIVE, ArniqaModel, network_of
from contrique_jax.recipes.arniqa.config import ArniqaConfig as Config
from contrique_jax.recipes.arniqa.groups import TYPES
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

name = "arniqa"
roles = ("pristine",)
rows_together = 1
gives = "features"
takes_reference = judges_alone
prepared, after_update, finished, check = as_given, as_moved, as_trained, nothing_more
CROPS = 4  # A full, A half, B full, B half


class Draws(NamedTuple):
    """The choices for n records."""

    record: Int[np.ndarray, " n"]  # photograph A
    other: Int[np.ndarray, " n"]  # photograph B, any of all
    corner: Float[np.ndarray, "n 4 2"]  # of each crop, as a share of the room there is, in [0, 1)
    key: UInt32[np.ndarray, "n 2"]  # what is random inside the distortions
    chain: Chain  # fields [n, 7]


class Example(NamedTuple):
    """Four crops before they are distorted; of one record, without the axis n."""

    crops: UInt8[Array, "n 4 s s 3"]
    key: UInt32[Array, "n 2"]
    chain: Chain


def canvas(config: Config) -> tuple[int, int]:
    return 384, 512  # as KADIS's photographs are


def describe(config: Config, sources: Sources) -> str:
    return f"{len(sources['pristine'])} pristine images"


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[Draws]:
    data, count = config.data, len(sources["pristine"])
    ids = records(config.train.seed, step, 0, count, data.batch_size)[rows.start : rows.stop]
    settings = (data.longest_chain, data.undistorted_share, data.level_deviation, tuple(data.types))
    with jax.default_device(host_device()):
        chosen = _choices(config.train.seed, step, np.arange(rows.start, rows.stop), count, settings)
        other, corner, key, chain = jax.tree.map(np.asarray, chosen)
    return (Draws(ids, other, corner, key, chain),)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _choices(
    seed: int, step: int, rows: Int[Array, " n"], count: int, settings: tuple[int, float, float, tuple[int, ...]]
) -> tuple[Array, Array, Array, Chain]:
    batch_key = jax.random.fold_in(jax.random.key(seed), step)

    def one(row: Array) -> tuple[Array, Array, Array, Chain]:
        other, corner, inside, chain = jax.random.split(jax.random.fold_in(batch_key, row), 4)
        return (
            jax.random.randint(other, (), 0, count),
            jax.random.uniform(corner, (CROPS, 2)),
            jax.random.key_data(inside),
            draw_chain(chain, *settings),
        )

    return jax.vmap(one)(rows)


def load(config: Config, sources: Sources, role: int, draws: Draws, row: int, broken: BrokenLog) -> Example:
    source, crops = sources["pristine"], []
    for photograph, number in enumerate((draws.record[row], draws.other[row])):
        (image, *_), _ = load_image(source, int(number), broken)
        for size, whole in enumerate((image, half_size(image))):
            crops.append(_crop(whole, draws.corner[row, 2 * photograph + size], config.data.view_size))
    return Example(np.stack(crops), draws.key[row], Chain(*(part[row] for part in draws.chain)))  # type: ignore[arg-type]


def _crop(image: UInt8[np.ndarray, "h w 3"], corner: Float[np.ndarray, "2"], side: int) -> UInt8[np.ndarray, "s s 3"]:
    """A crop; what the image lacks is black at the right and below."""
    top, left = (int(share * max(length - side + 1, 1)) for share, length in zip(corner, image.shape, strict=False))
    part = image[top : top + side, left : left + side]
    out = np.zeros((side, side, 3), np.uint8)
    out[: part.shape[0], : part.shape[1]] = part
    return out


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Example]:
    def array(*shape: int, dtype: Any = np.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    side = config.data.view_size
    return (Example(array(CROPS, side, side, 3, dtype=np.uint8), array(2, dtype=np.uint32), Chain(array(7), array(7))),)


def finish_row(config: Config, role: int, example: Example) -> dict[str, Array]:
    return {"views": degrade(example.key, example.crops, example.chain, _types(config))}


def finish(config: Config, examples: tuple[Example, ...]) -> dict[str, Array]:
    (example,) = examples
    return {"views": degrade_many(example.key, example.crops, example.chain, _types(config))}


def _types(config: Config) -> tuple[int, ...]:
    return tuple(config.data.types) or TYPES


def init(config: Config, seed: int) -> Variables:
    return pair_projector.init(network_of(config.model), seed)


def variable_shapes(config: Config) -> Variables:
    return pair_projector.variable_shapes(network_of(config.model))


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The encoder."""
    check_same_encoder(config, model)
    return {part: drawn[part] | {"encoder": theirs[part]["encoder"]} for part in drawn}, "its encoder"


def constants(config: Config) -> Tree:
    return {}


def forward(
    config: Config,
    variables: Variables,
    constants: Tree,
    batch: dict[str, Float[Array, "n 4 s s 3"]],
    keys: UInt32[Array, "n 2"],
    axis: str | None,
) -> tuple[Float[Array, "n 4 d"], Variables]:
    """Projections; BatchNorm sees A's crops of both sizes together, then B's, as in the original's two passes."""
    views = batch["views"]
    n, side = len(views), views.shape[2]
    in_turn = views.reshape(n, 2, 2, side, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)  # size, then photograph
    statistics = Statistics(2 if config.model.norm_per_view else 1, axis)
    z, stats = pair_projector.project(
        network_of(config.model), variables, in_turn, statistics, remat=config.train.remat
    )
    return z.reshape(n, 2, 2, -1).swapaxes(1, 2).reshape(n, CROPS, -1), {"batch_stats": stats}


def objective(
    config: Config, variables: Variables, outputs: Float[Array, "n 4 d"], batch: Tree, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """NT-Xent; a class is a record at one size, of which only this device has the members."""
    n = len(outputs)
    classes = jnp.tile(jnp.arange(2 * n).reshape(n, 2), (1, 2))  # sizes of A, then of B
    loss = nt_xent(
        outputs.reshape(CROPS * n, -1),
        classes.reshape(-1),
        num_classes=2 * n,
        shared_classes=0,
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        axis=axis,
    )
    return loss, {}, {}


def decays(config: Config, variables: Variables) -> Tree:
    """All parameters, as in the original, or with "no_norm" neither BatchNorm's nor biases."""
    return all_or_no_norm(config, variables, lambda: pair_projector.decays(network_of(config.model)))


def encodes(config: Config) -> ModelConfig:
    return dataclasses.replace(network_of(config.model), projection_dim=0)


def crop_side(config: Config) -> int | None:
    model = config.model
    return model.crop_size if isinstance(model, ArniqaModel) and model.crops == FIVE else None


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n d"]:
    """Features of all of each image, or of each crop (`crop_side`)."""
    kept = {part: {"encoder": variables[part]["encoder"]} for part in ("params", "batch_stats")}
    return encoder.encode(encodes(config), kept, stack, valid)
