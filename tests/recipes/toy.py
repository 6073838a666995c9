"""A recipe with all that CONTRIQUE lacks: a moving average, a queue, a frozen teacher, noise, one role, and scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from contrique_jax.data.broken import load as load_image
from contrique_jax.data.order import records
from contrique_jax.networks.pooling import normalise
from contrique_jax.recipes.recipe import all_rows, as_given, as_trained, judges_alone, nothing_more
from tests.recipes.toy_config import ToyConfig as Config

__all__ = ["Config"]

name = "toy"
roles = ("authentic",)
rows_together = 1
gives = "score"
takes_reference = judges_alone
prepared, finished, check = as_given, as_trained, nothing_more
KEPT = 32  # rows of the queue
SIDE = 16


def canvas(config):
    return 64, 64


def describe(config, sources):
    return f"{len(sources['authentic'])} photographs"


def draw(config, sources, step, rows):
    ids = records(config.train.seed, step, 0, len(sources["authentic"]), config.data.batch_size)[list(rows)]
    return ({"record": ids, "flip": (ids + step) % 2 == 0},)


def load(config, sources, role, draws, row, broken):
    (image,), _ = load_image(sources["authentic"], int(draws["record"][row]), broken)
    return {"image": image[:SIDE, :SIDE], "flip": np.bool_(draws["flip"][row])}


def example_shapes(config, sources=None):
    return ({"image": jax.ShapeDtypeStruct((SIDE, SIDE, 3), np.uint8), "flip": jax.ShapeDtypeStruct((), np.bool_)},)


def finish_row(config, role, example):
    image = example["image"].astype(jnp.float32) / 255
    return {"x": jnp.where(example["flip"], image[:, ::-1], image)}


def finish(config, examples):
    return jax.vmap(lambda example: finish_row(config, 0, example))(examples[0])


def init(config, seed):
    generator, width = np.random.default_rng(seed), config.model.width
    weight = (generator.standard_normal((SIDE * SIDE * 3, width)) / 30).astype(np.float32)
    params = {"encoder": {"weight": weight}, "head": {"weight": np.eye(width, dtype=np.float32)}}
    queue = generator.standard_normal((KEPT, width)).astype(np.float32) / np.sqrt(np.float32(width))
    slow = jax.tree.map(np.copy, params)
    return {"params": params, "batch_stats": {}, "momentum": slow, "queue": {"rows": queue}}


def variable_shapes(config):
    drawn = init(config, 0)
    return {part: drawn[part] for part in ("params", "batch_stats")}


def take_over(config, drawn, model, theirs):
    return drawn, "nothing"


def constants(config):
    return {"teacher": np.random.default_rng(7).standard_normal((SIDE * SIDE * 3, 1)).astype(np.float32) / 30}


def _encoded(params, x):
    return normalise(x.reshape(len(x), -1) @ params["encoder"]["weight"] @ params["head"]["weight"])


def forward(config, variables, constants, batch, keys, axis):
    x = batch["x"]
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.wrap_key_data(key), x.shape[1:]))(keys)
    taught = jnp.tanh(x.reshape(len(x), -1) @ constants["teacher"])
    slow = jax.lax.stop_gradient(_encoded(variables["momentum"], x))
    return {"fast": _encoded(variables["params"], x + 0.05 * noise), "slow": slow, "taught": taught}, {}


def objective(config, variables, outputs, batch, axis):
    """Each row towards its own slow encoding and away from the queue, its first number as the teacher says."""
    positive = jnp.sum(outputs["fast"] * outputs["slow"], 1, keepdims=True)
    negative = outputs["fast"] @ variables["queue"]["rows"].T
    taught = (outputs["fast"][:, 0] - outputs["taught"][:, 0]) ** 2
    of_row = taught - config.loss.temperature * positive[:, 0] + 0.01 * jnp.mean(negative**2, 1)
    mean = jax.lax.pmean(jnp.mean(of_row), axis)
    rows = jnp.concatenate([all_rows(jax.lax.stop_gradient(outputs["slow"]), axis), variables["queue"]["rows"]])[:KEPT]
    return mean, {"queue": {"rows": rows}}, {"similarity": jax.lax.pmean(jnp.mean(positive), axis)}


def after_update(config, variables):
    slow = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, variables["momentum"], variables["params"])
    return variables | {"momentum": slow}


def decays(config, variables):
    return jax.tree.map(lambda leaf: True, variables["params"])


def score_range(config):
    return -1.0, 1.0, True


def apply(config, variables, stack, valid, reference=None):
    return _encoded(variables["params"], stack[:, :SIDE, :SIDE])[:, 0]
