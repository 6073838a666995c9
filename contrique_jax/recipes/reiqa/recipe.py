"""Re-IQA (arXiv 2304.00451): two encoders trained by momentum contrast, of what a photograph shows and of how good it is.

A query is compared with its key, which the momentum encoder makes of the pair's other crop, and with a queue of keys of earlier
steps. Every device holds the whole queue, 33 MB of 65,536 keys: its length then need not divide by the devices, a query meets
it without an exchange, and of a step only the keys travel. They enter in the order of the global batch, after the loss.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8, UInt32

from contrique_jax.config import ModelConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.order import records
from contrique_jax.data.pipeline import Sources, Tree
from contrique_jax.errors import UserError
from contrique_jax.io.machine import host_device
from contrique_jax.losses.queue_nce import entered, queue_nce
from contrique_jax.networks import encoder, pair_projector
from contrique_jax.networks.layers import Statistics
from contrique_jax.networks.pooling import normalise
from contrique_jax.recipes.recipe import (
    Variables,
    all_or_no_norm,
    all_rows,
    as_given,
    as_trained,
    check_same_encoder,
    judges_alone,
    nothing_more,
)
from contrique_jax.recipes.reiqa import content, quality
from contrique_jax.recipes.reiqa.config import ReiqaConfig as Config

name = "reiqa"
roles = ("authentic",)
rows_together = 1
gives = "features"
takes_reference = judges_alone
prepared, finished, check = as_given, as_trained, nothing_more
STATE = ("momentum", "momentum_stats", "queue")  # collections beside params and batch_stats


def _pairs(config: Config) -> ModuleType:
    """How the kind's pairs are made."""
    return content if config.model.kind == "content" else quality


def canvas(config: Config) -> tuple[int, int]:
    return config.data.height, config.data.width


def describe(config: Config, sources: Sources) -> str:
    return f"the {config.model.kind} encoder on {len(sources['authentic'])} photographs"


def draw(config: Config, sources: Sources, step: int, rows: range) -> tuple[Tree]:
    every = records(config.train.seed, step, 0, len(sources["authentic"]), config.data.batch_size)
    with jax.default_device(host_device()):
        return (_pairs(config).draw(config, every[rows.start : rows.stop], step, rows),)


def load(config: Config, sources: Sources, role: int, draws: Tree, row: int, broken: BrokenLog) -> Tree:
    return _pairs(config).load(config, sources["authentic"], draws, row, broken)


def example_shapes(config: Config, sources: Sources | None = None) -> tuple[Tree]:
    return (_pairs(config).example_shapes(config),)


def finish_row(config: Config, role: int, example: Tree) -> dict[str, Array]:
    return {"views": _pairs(config).finish_row(config, example)}


def finish(config: Config, examples: tuple[Tree, ...]) -> dict[str, Array]:
    return {"views": _pairs(config).finish(config, examples[0])}


def init(config: Config, seed: int) -> Variables:
    """The momentum encoder begins as a copy, the queue as random unit rows."""
    variables = pair_projector.init(config.model.network, seed)
    shape = (config.loss.queue, config.model.projection_dim)
    rows = np.random.default_rng([seed, len(STATE)]).standard_normal(shape, np.float32)
    keys = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return _with_slow(variables) | {"queue": {"keys": keys, "pointer": np.zeros((), np.int32)}}


def _with_slow(variables: Variables) -> Variables:
    slow = {"momentum": variables["params"], "momentum_stats": variables["batch_stats"]}
    return variables | jax.tree.map(np.copy, slow)


def variable_shapes(config: Config) -> Variables:
    return pair_projector.variable_shapes(config.model.network)


def take_over(config: Config, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The encoder, and of a Re-IQA model of the same kind and widths its projector; the momentum encoder is their copy."""
    kind = getattr(model, "kind", None)
    if kind not in (None, config.model.kind):
        raise UserError(
            f"config.train.init_from={config.train.init_from}: is a {kind} model, and this run's config.model.kind is "
            f"{config.model.kind!r}; name a {config.model.kind} model."
        )
    check_same_encoder(config, model)
    whole = kind is not None and model.projection_dim == config.model.projection_dim
    kept = ("encoder", "projector") if whole else ("encoder",)
    parts = ("params", "batch_stats")
    taken = {part: drawn[part] | {key: theirs[part][key] for key in kept if key in theirs[part]} for part in parts}
    return _with_slow(drawn | taken), "its encoder and its projector" if whole else "its encoder"


def constants(config: Config) -> Tree:
    return {}


def forward(
    config: Config,
    variables: Variables,
    constants: Tree,
    batch: dict[str, UInt8[Array, "n p 2 s s 3"]],
    keys: UInt32[Array, "n 2"],
    axis: str | None,
) -> tuple[dict[str, Float[Array, "n p d"]], Variables]:
    """Unit queries of the first crops and keys of the second ones. Each encoder's BatchNorm sees all of its crops together."""
    n, pairs, _, side = batch["views"].shape[:4]
    crops = [batch["views"][:, :, place].reshape(-1, side, side, 3) for place in (0, 1)]

    @jax.jit  # traced once for both
    def projected(weights: Variables, images: Array) -> tuple[Array, Tree]:
        return pair_projector.project(
            config.model.network, weights, images, Statistics(1, axis), remat=config.train.remat, unit=False
        )

    with jax.named_scope("queries"):
        q, stats = projected({part: variables[part] for part in ("params", "batch_stats")}, crops[0])
    with jax.named_scope("keys"):
        slow = {"params": variables["momentum"], "batch_stats": variables["momentum_stats"]}
        k, slow_stats = projected(jax.lax.stop_gradient(slow), crops[1])
    outputs = {name: normalise(z).reshape(n, pairs, -1) for name, z in (("q", q), ("k", k))}
    return outputs, {"batch_stats": stats, "momentum_stats": slow_stats}


def objective(
    config: Config, variables: Variables, outputs: dict[str, Float[Array, "n p d"]], batch: Tree, axis: str
) -> tuple[Float[Array, ""], Variables, dict[str, Array]]:
    """InfoNCE against the queue and, by `loss.negatives`, keys of the step; then all its keys enter the queue."""
    q, k = (outputs[name].reshape(-1, config.model.projection_dim) for name in ("q", "k"))
    queue = variables["queue"]
    loss = queue_nce(
        q,
        k,
        queue["keys"],
        temperature=config.loss.temperature,
        block_size=config.loss.block_size,
        group=config.data.copies if config.loss.negatives == "picture" else 1,
        everyone=config.loss.negatives == "batch",
        axis=axis,
    )
    with jax.named_scope("loss: keys"):
        keys = all_rows(jax.lax.stop_gradient(k), axis)
    rows, pointer = entered(queue["keys"], queue["pointer"], keys)
    return loss, {"queue": {"keys": rows, "pointer": pointer}}, {}


def after_update(config: Config, variables: Variables) -> Variables:
    """The momentum encoder's parameters follow; its BatchNorm statistics are its own."""
    share = config.loss.momentum
    slow = jax.tree.map(lambda old, new: share * old + (1 - share) * new, variables["momentum"], variables["params"])
    return variables | {"momentum": slow}


def decays(config: Config, variables: Variables) -> Tree:
    """Kernels and matrices, or with "all" everything; LARS scales what is decayed."""
    return all_or_no_norm(config, variables, lambda: pair_projector.decays(config.model.network))


def encodes(config: Config) -> ModelConfig:
    return dataclasses.replace(config.model.network, projection_dim=0)


def apply(
    config: Config,
    variables: Variables,
    stack: Float[Array, "n h w 3"],
    valid: Array | None,
    reference: Array | None = None,
) -> Float[Array, "n d"]:
    """Means over the last map, not divided by their length."""
    kept = {part: {"encoder": variables[part]["encoder"]} for part in ("params", "batch_stats")}
    return encoder.encode(encodes(config), kept, stack, valid, unit=config.model.unit_features)
