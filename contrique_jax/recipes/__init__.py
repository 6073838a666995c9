"""The systems that can be trained, one recipe each: a module with the functions that `recipe.Recipe` lists."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from contrique_jax.config import Config
from contrique_jax.errors import UserError

if TYPE_CHECKING:
    from contrique_jax.recipes.recipe import Recipe

# name, as config.json and model.json carry it -> module, imported on demand
RECIPES = {
    "contrique": "contrique_jax.recipes.contrique.recipe",
    "contrique_head": "contrique_jax.recipes.contrique_head.recipe",
    "arniqa": "contrique_jax.recipes.arniqa.recipe",
    "reiqa": "contrique_jax.recipes.reiqa.recipe",
    "conviqt": "contrique_jax.recipes.conviqt.recipe",
    "student": "contrique_jax.recipes.student.recipe",
    "ahiq": "contrique_jax.recipes.ahiq.recipe",
    "conformer": "contrique_jax.recipes.conformer.recipe",
    "zeng_kwong": "contrique_jax.recipes.zeng_kwong.recipe",
    "satqa_pretrain": "contrique_jax.recipes.satqa.pretrain",
    "satqa": "contrique_jax.recipes.satqa.recipe",
}


def recipe_named(name: str) -> Recipe:
    """Raises UserError if there is none of that name."""
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}; choose from {', '.join(sorted(RECIPES))}.")
    return cast("Recipe", importlib.import_module(RECIPES[name]))


def recipe_of(config: Config) -> Recipe:
    """The recipe that the config's type belongs to."""
    return recipe_named(config.recipe)
