"""Models of any recipe at work, and several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from contrique_jax.config import Config
from contrique_jax.data.sizes import MAX_MEGAPIXELS
from contrique_jax.errors import UserError
from contrique_jax.inference.extractor import RGB, Extractor
from contrique_jax.inference.recipe_extractor import RecipeExtractor, extractor_of, name_of, taken_of
from contrique_jax.io.machine import available_cores
from contrique_jax.recipes import recipe_named, recipe_of
from contrique_jax.recipes.recipe import Variables
from contrique_jax.training.load import is_ensemble, load_any, load_ensemble, load_network, recipe_behind


@dataclass(frozen=True)
class SideBySide:
    """What an ensemble has for an architecture."""

    encoder: str


class EnsembleExtractor(Extractor):
    """Features of all members: of the first at full and half size, of the next, and so on. Each is at work by itself, so that
    an image takes no more memory than the member that needs most."""

    def __init__(
        self, members: dict[str, tuple[Config, Variables]], *, max_megapixels: float = MAX_MEGAPIXELS,
        shorter_side: int | None = None, workers: int = 0, memory: float | None = None,
    ):  # fmt: skip
        """As `RecipeExtractor`. Raises UserError if a member gives scores."""
        for name, (config, _) in members.items():
            recipe = recipe_of(config)
            if recipe.gives != "features" or hasattr(recipe, "of_frames"):
                gives = "scores" if recipe.gives != "features" else "features of clips"
                raise UserError(
                    f"member {name!r} of the ensemble is of the recipe {config.recipe!r}, which gives {gives}; only features "
                    "of images stand side by side."
                )
        self._members, self._workers, self._windows = members, workers or available_cores(), False
        self.memory, self.shorter_side = memory, shorter_side
        options: dict[str, Any] = {
            "max_megapixels": max_megapixels, "memory": memory, "shorter_side": shorter_side, "workers": workers
        }  # fmt: skip
        self._parts = {name: _alone(*member, **options) for name, member in members.items()}
        parts = self._parts.values()
        self.max_megapixels = min(part.max_megapixels for part in parts)
        self.width = sum(part.width for part in parts)
        self.variables = {name: part.variables for name, part in self._parts.items()}
        self.model: Any = SideBySide(" + ".join(f"{name}: {part.model.encoder}" for name, part in self._parts.items()))
        taken = " ".join(f"{name} {taken_of(config)}" for name, (config, _) in members.items())
        self.model_hash = name_of({name: weights for name, (_, weights) in members.items()}, taken)

    def _compile(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        for part in self._parts.values():
            part._compile(sizes, pool)

    def fix_shapes(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        for part in self._parts.values():
            part.fix_shapes(sizes, pool)

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        """What each member looks at, in turn."""
        return tuple(x for part in self._parts.values() for x in part._scaled(image))

    def _start(self, pairs: list[tuple[RGB, ...]]) -> list[tuple[RGB, ...]]:
        """Nothing yet: members at work at once would take the memory of all."""
        return pairs

    def _finish(self, pairs: list[tuple[RGB, ...]]) -> tuple[Any, Any, dict[int, str]]:
        features, first = [], 0
        failed: dict[int, str] = {}
        for part in self._parts.values():
            last = first + part.scales * part.views
            rows, _, failures = part._finish(part._start([pair[first:last] for pair in pairs]))
            features.append(rows)
            failed |= failures
            first = last
        return np.concatenate(features, axis=1), None, failed

    def apply(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        return jnp.concatenate([part.apply(variables[name], images) for name, part in self._parts.items()], axis=1)

    def with_maps(self) -> Extractor:
        raise UserError("map: models side by side have no maps of an image's quality.")

    def with_sign(self, sign: int, shorter_side: int | None) -> EnsembleExtractor:
        """The same models for images of another size; what gives features has no sign."""
        return EnsembleExtractor(
            self._members, max_megapixels=self.max_megapixels, shorter_side=shorter_side, workers=self._workers,
            memory=self.memory,
        )  # fmt: skip


def _alone(config: Config, variables: dict[str, Any], **options: Any) -> Extractor:
    """A model by itself."""
    if config.recipe == Config.recipe:
        return Extractor(config.model, variables, **options)
    return extractor_of(config, variables, **options)


def own_scores(spec: str, **limits: Any) -> RecipeExtractor | None:
    """The model that --model names if its recipe gives scores, None if it gives features. Raises UserError if its files
    are broken or its recipe is not known."""
    if is_ensemble(spec) or recipe_named(recipe_behind(spec)).gives != "score":
        return None
    config, variables = load_any(spec)
    return RecipeExtractor(config, variables, **limits)


def open_extractor(spec: str, *, windows: bool = False, **limits: Any) -> Extractor:
    """What turns images into features, or into scores, with the model that --model names, or the models of an ensemble."""
    members = load_ensemble(spec)
    if not members and recipe_behind(spec) == Config.recipe:
        return Extractor(*load_network(spec), windows=windows, **limits)
    extractor = EnsembleExtractor(members, **limits) if members else extractor_of(*load_any(spec), **limits)
    return extractor.with_maps() if windows else extractor
