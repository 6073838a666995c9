"""Models that are the meter: their recipe gives a score, and no probe is needed."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrique_jax.config import Config
from contrique_jax.errors import UserError
from contrique_jax.inference.extractor import MAX_MEGAPIXELS, RGB, Extractor
from contrique_jax.io.machine import available_cores
from contrique_jax.networks.model_folder import DESCRIPTION, read_description, read_folder
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.recipes import recipe_named
from contrique_jax.training.load import load_network, model_folder


class OwnScores(Extractor):
    """A model whose features are one number, its score, taken of an image at its own size."""

    scales = 1

    def __init__(
        self, config: Config, variables: dict[str, Any], *, max_megapixels: float = MAX_MEGAPIXELS,
        shorter_side: int | None = None, workers: int = 0, sign: int = 1,
    ):  # fmt: skip
        """As `Extractor`; `config` with the model's architecture, of the recipe that gives the scores; they are multiplied by
        `sign`."""
        if not max_megapixels > 0:
            raise UserError(f"--max-megapixels {max_megapixels}: must be above 0.")
        self.config, self.width = config, 1
        self.variables = jax.device_put(variables)
        self.model_hash = _name_of(variables)
        self.max_megapixels, self.shorter_side = max_megapixels, shorter_side
        self._workers, self._windows = workers or available_cores(), False
        recipe = recipe_named(config.recipe)
        constants = recipe.constants(config)

        def scores(variables: Any, images: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, None]:
            found = recipe.apply(config, variables, constants, images.astype(jnp.float32) / 255, valid, None)
            return sign * found[:, None], None

        self._encode = jax.jit(scores)

    @property
    def model(self) -> Any:  # type: ignore[override]
        return self.config.model

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """Scores [n, 1] of a batch of images of one size, float in [0, 1]: pure."""
        recipe = recipe_named(self.config.recipe)
        return recipe.apply(self.config, variables, recipe.constants(self.config), images, None, None)[:, None]

    def with_maps(self) -> Extractor:
        raise UserError(f"map: {self.config.recipe} gives one score an image; maps are of models that give features.")

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        return (image,)

    def probe(self) -> Probe:
        """The probe that takes the score as it is."""
        recipe = recipe_named(self.config.recipe)
        low, high, higher_is_better = recipe.score_range(self.config)
        return Probe(
            coefficients=np.ones(1), intercept=0.0, alpha=0.0, feature_name=NO_REFERENCE, model_hash=self.model_hash,
            data_set=f"{recipe.name}'s own scale", score_low=low, score_high=high, higher_is_better=higher_is_better,
        )  # fmt: skip


def own_scores(spec: str, **limits: Any) -> OwnScores | None:
    """The model that --model names if its recipe gives scores, None if it gives features. Raises UserError if its files
    are broken or its recipe is not known."""
    folder = None if spec.startswith("random:") else model_folder(spec)
    name = Config.recipe if folder is None else read_description(folder).get("recipe", Config.recipe)
    if folder is None or name == Config.recipe:
        return None
    recipe = recipe_named(name)
    if recipe.gives != "score":
        return None
    description, variables = read_folder(folder)
    config = recipe.Config()
    try:
        config.model = type(config.model)(**description["architecture"])
        config.model.validate()
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / DESCRIPTION}: not an architecture of the recipe {name!r} ({error}).") from error
    return OwnScores(config, variables, **limits)


def open_extractor(spec: str, *, windows: bool = False, **limits: Any) -> Extractor:
    """What turns images into features, or into scores, with the model that --model names."""
    own = own_scores(spec, **limits)
    if own is None:
        return Extractor(*load_network(spec), windows=windows, **limits)
    if windows:
        raise UserError(f"--map: {spec} gives one score an image; maps are of models that give features.")
    return own


def _name_of(variables: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that name these weights."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf, np.float32)).data)
    return digest.hexdigest()[:12]
