"""The model of a folder, of any recipe, ready for its `apply`."""

from __future__ import annotations

from pathlib import Path

from contrique_jax.config import Config
from contrique_jax.errors import UserError
from contrique_jax.networks.description import DESCRIPTION, read_description, stored_architecture
from contrique_jax.networks.model_folder import read_weights
from contrique_jax.recipes import recipe_named
from contrique_jax.recipes.recipe import Variables


def stored_model(folder: Path) -> tuple[Config, Variables]:
    """A config of the recipe that the folder names, of which `model` is the architecture, and the weights. Raises UserError if
    there is no such recipe, or files are broken or do not belong together."""
    description = read_description(folder)
    name = str(description.get("recipe", Config.recipe))
    recipe = recipe_named(name)
    config: Config = recipe.Config()
    config.model = stored_architecture(description.get("architecture"), type(config.model), folder / DESCRIPTION)
    try:
        config.model.validate()
    except UserError as error:
        raise UserError(f"{folder / DESCRIPTION}: not an architecture of the recipe {name!r} ({error})") from error
    variables = read_weights(folder, recipe.variable_shapes(config))
    try:
        recipe.check(config.model, variables)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return config, variables
