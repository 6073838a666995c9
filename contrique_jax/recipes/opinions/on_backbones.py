"""What recipes on opinions share whose own network stands on frozen ones: those are constants of the step, a model folder has
them too, and their common hash ties the two together.

A recipe's model is `OnMaps`, and has `frozen`, the names in its variables under which the frozen networks stand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from contrique_jax.data.pipeline import Tree
from contrique_jax.errors import UserError
from contrique_jax.networks import encoder
from contrique_jax.networks.backbones import hash_of
from contrique_jax.networks.trunk import load_trunk
from contrique_jax.recipes.opinions import judge
from contrique_jax.recipes.recipe import Variables
from contrique_jax.recipes.trunk_config import OnMaps

PARTS = ("params", "batch_stats")


def frozen_of(model: Any, variables: Variables) -> Variables:
    """Of a model folder's variables the frozen networks'."""
    return {part: {name: variables[part][name] for name in model.frozen if name in variables[part]} for part in PARTS}


def finished(config: Any, variables: Variables, constants: Tree) -> tuple[Any, Variables]:
    """Frozen networks and what was trained on them; these are named by their hash."""
    config, variables = judge.with_line(config, variables)
    model = dataclasses.replace(config.model, trunk_hash=hash_of(constants))
    return model, {part: constants[part] | variables[part] for part in PARTS}


def check(model: Any, variables: Variables) -> None:
    """Raises UserError if the frozen weights are not those that the rest was trained on."""
    found = hash_of(frozen_of(model, variables))
    if found != model.trunk_hash:
        raise UserError(
            f"its frozen weights are {found} and the rest was trained on {model.trunk_hash}; copy the model again."
        )


def taken_over(
    config: Any, constants: Tree, drawn: Variables, model: Any, theirs: Variables, widths: Callable[[Any], Any]
) -> Variables:
    """A run's variables with another model's weights in place of the drawn ones. Raises UserError if it is of another recipe,
    stands on other frozen weights, or has other `widths`."""
    spec = config.train.init_from
    if type(model) is not type(config.model):
        raise UserError(f"config.train.init_from={spec}: is no model of the recipe {config.recipe!r}; name another.")
    found = hash_of(constants)
    if model.trunk_hash != found:
        raise UserError(
            f"config.train.init_from={spec}: it stands on frozen weights {model.trunk_hash} and this run on {found}; name a "
            "model on the same ones."
        )
    if widths(model) != widths(config.model):
        raise UserError(
            f"config.train.init_from={spec}: its widths are {widths(model)}; take the same or draw new weights."
        )
    return judge.begun(config, {part: {key: theirs[part][key] for key in drawn[part]} for part in PARTS})


def trunk_shapes(model: OnMaps) -> Variables:
    """Of an encoder of ours that stands under a model, without memory for it."""
    return _renamed(encoder.variable_shapes(model.of_trunk))


def load_own(model: OnMaps) -> Variables:
    """The encoder of ours that `config.model.trunk` names. Raises UserError if there is none, or it is another one."""
    return _renamed(load_trunk(model))


def trunk_maps(model: OnMaps, variables: Variables, images: Array) -> list[Array]:
    """The last map of each stage of that encoder, of bytes or floats in [0, 1]."""
    return encoder.stage_maps(model.of_trunk, {part: {"encoder": variables[part]["trunk"]} for part in PARTS}, images)


def _renamed(variables: Variables) -> Variables:
    """IQA-Conformer has an `encoder` of its own."""
    return {part: {"trunk": variables[part]["encoder"]} for part in PARTS}


def still(maps: Any) -> Any:
    """Maps of frozen networks, through which no gradient runs."""
    return jax.tree.map(jax.lax.stop_gradient, maps)


def unit(images: Array) -> Array:
    """Bytes, or floats in [0, 1], as floats in [-1, 1]."""
    scale = 255 if images.dtype == "uint8" else 1
    return 2 * (images.astype("float32") / scale) - 1
