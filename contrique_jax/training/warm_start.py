"""The weights that a run starts from: drawn from its seed, or those of another model (`train.init_from`)."""

from __future__ import annotations

import sys

from contrique_jax.config import Config
from contrique_jax.errors import UserError
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.recipe import Variables
from contrique_jax.training import hosts
from contrique_jax.training.load import load_any


def starting_weights(config: Config) -> Variables:
    """Variables before the first step, on the host; with `train.init_from`, what the recipe takes over of that model.

    Says on stderr what that is. Raises UserError if there is no such model or it does not fit.
    """
    recipe = recipe_of(config)
    drawn = recipe.init(config, config.train.seed)
    spec = config.train.init_from
    if not spec:
        return drawn
    try:
        other, theirs = load_any(spec)
    except UserError as error:
        raise UserError(f"config.train.init_from: {error}") from error
    variables, taken = recipe.take_over(config, drawn, other.model, theirs)
    if hosts.is_first():
        print(f"starting from {spec}: {taken}", file=sys.stderr)
    return variables
