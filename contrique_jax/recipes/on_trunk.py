"""What recipes share whose own network stands on a frozen trunk: the trunk is a constant of the step, and its hash ties the two
together in a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from contrique_jax.data.pipeline import Tree, in_turn
from contrique_jax.errors import UserError
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.networks.trunk import load_trunk, trunk_of
from contrique_jax.recipes.recipe import Variables


def constants(config: Any) -> Tree:
    """The trunk."""
    return load_trunk(config.model)


def finish_row(config: Any, role: int, example: Any) -> Any:
    """Nothing is left to do: an example is what the trunk made of a record."""
    return example


def finish(config: Any, examples: tuple[Any, ...]) -> Any:
    """The rows of the roles in turn."""
    return type(examples[0])(*(in_turn(parts, jnp.stack) for parts in zip(*examples, strict=True)))


def finished(config: Any, variables: Variables, constants: Tree) -> tuple[Any, Variables]:
    """Trunk and what was trained on it; the trunk's weights are named by their hash."""
    model = dataclasses.replace(config.model, trunk_hash=content_hash(config.model.of_trunk, constants))
    return model, {part: constants[part] | variables[part] for part in ("params", "batch_stats")}


def check(model: Any, variables: Variables) -> None:
    """Raises UserError if the trunk's weights are not those that the rest was trained on."""
    found = content_hash(model.of_trunk, trunk_of(variables))
    if found != model.trunk_hash:
        raise UserError(
            f"the trunk's weights are {found} and the rest was trained on {model.trunk_hash}; copy the model again."
        )


def taken_over(
    config: Any, drawn: Variables, model: Any, theirs: Variables, kind: type[Any], widths: Callable[[Any], Any]
) -> Variables:
    """Another model's weights in place of the drawn ones. Raises UserError if it is no model of this recipe (`kind`), stands on
    another trunk, or has other `widths`."""
    spec = config.train.init_from
    if not isinstance(model, kind):
        raise UserError(
            f"config.train.init_from={spec}: is no model of this recipe; give {spec} as config.model.trunk, or another."
        )
    trunk = content_hash(config.model.of_trunk, constants(config))
    if model.trunk_hash != trunk:
        raise UserError(
            f"config.train.init_from={spec}: its trunk is {model.trunk_hash} and config.model.trunk={config.model.trunk} is "
            f"{trunk}; name a model on the same trunk."
        )
    if widths(model) != widths(config.model):
        raise UserError(
            f"config.train.init_from={spec}: its widths are {widths(model)}; take the same or draw new weights."
        )
    return {part: {key: theirs[part][key] for key in drawn[part]} for part in drawn}
