"""Models of recipes other than CONTRIQUE at work, and several side by side: features for a probe, or scores that need none."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from contrique_jax.augment.half import half_scale
from contrique_jax.config import Config
from contrique_jax.data.sizes import half_size
from contrique_jax.errors import UserError
from contrique_jax.inference.extractor import MAX_MEGAPIXELS, RGB, Extractor
from contrique_jax.inference.pairs import BesideReference
from contrique_jax.inference.runner import Runner, Started, limits
from contrique_jax.io.machine import available_cores
from contrique_jax.networks.ensemble import ENSEMBLE
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe
from contrique_jax.recipes import recipe_named, recipe_of
from contrique_jax.recipes.recipe import Variables, judges_alone
from contrique_jax.training.load import is_ensemble, load_any, load_ensemble, load_network, recipe_behind


class RecipeExtractor(BesideReference):
    """Features of a recipe's `apply` at full and half size; of one that gives scores the score, at the image's own size."""

    def __init__(
        self, config: Any, variables: dict[str, Any], *, max_megapixels: float = MAX_MEGAPIXELS,
        shorter_side: int | None = None, workers: int = 0, sign: int = 1, memory: float | None = None,
    ):  # fmt: skip
        """As `Extractor`; `config` of the recipe, with the model's architecture. What comes out is multiplied by `sign`."""
        self.config = config = _in_float32(config)  # as `Extractor`
        self.recipe: Any = config if isinstance(config, Members) else recipe_named(config.recipe)
        self.sign = sign
        tiled = encodes(config) if (encodes := getattr(self.recipe, "encodes", None)) else None
        self.scales = 1 if self.recipe.gives == "score" else 2
        self.model, self.variables = config.model, jax.device_put(variables)
        self.model_hash = _name_of(variables, _taken(config))
        self.shorter_side, self.memory = shorter_side, memory
        self._workers, self._windows = workers or available_cores(), False
        self.max_megapixels, size = limits(max_megapixels, memory, tiled, variables)
        self.takes_reference = self.recipe.takes_reference(config)
        channels = 6 if self.takes_reference == "needed" else 3
        one = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
        self.width = self.scales * jax.eval_shape(self._applied, variables, one).shape[1]

        def encode(variables: Any, images: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, None]:
            return self._applied(variables, images.astype(jnp.float32) / 255, valid), None

        width = self.width // self.scales
        self._runner_of = functools.cache(
            functools.partial(Runner, encode, self.variables, width, "", tiled, windows=False, memory=size)
        )
        self._runner = self._runner_of(channels=channels)

    @property
    def gives_scores(self) -> bool:  # type: ignore[override]
        return self.scales == 1

    def _applied(self, variables: Any, images: Array, valid: Array | None = None) -> Float[Array, "n d"]:
        pair = (images, None) if images.shape[3] == 3 else jnp.split(images, 2, axis=3)
        found = self.recipe.apply(self.config, variables, pair[0], valid, pair[1])
        return self.sign * (found[:, None] if self.gives_scores else found)

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        return (image,) if self.gives_scores else super()._scaled(image)

    def apply(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        """The same of a batch of images of one size, float in [0, 1]: pure."""
        if self.gives_scores:
            return self._applied(variables, images)
        return jnp.concatenate([self._applied(variables, images), self._applied(variables, half_scale(images))], axis=1)

    def with_maps(self) -> Extractor:
        raise UserError(f"map: a model of the recipe {self.recipe.name!r} has no maps of its image's quality.")

    def with_sign(self, sign: int, shorter_side: int | None) -> RecipeExtractor:
        """The same model for images of another size, its scores turned round or not."""
        return type(self)(
            self.config,
            self.variables,
            max_megapixels=self.max_megapixels,
            shorter_side=shorter_side,
            sign=sign,
            memory=self.memory,
        )

    def probe(self) -> Probe:
        """The probe that takes the score as it is."""
        low, high, higher_is_better = self.recipe.score_range(self.config)
        reads = FULL_REFERENCE if self.takes_reference == "needed" else NO_REFERENCE
        return Probe(
            coefficients=np.ones(1), intercept=0.0, alpha=0.0, feature_name=reads, model_hash=self.model_hash,
            data_set=f"{self.recipe.name}'s own scale", score_low=low, score_high=high, higher_is_better=higher_is_better,
        )  # fmt: skip


class ClipExtractor(RecipeExtractor):
    """Of a recipe of clips: what it makes of every frame's features by its trunk, block by block, at full and half size; an
    image is a clip of one frame. The half size is bilinear, as in training."""

    seconds_between = 0.0

    def __init__(self, config: Config, variables: dict[str, Any], **options: Any):
        super().__init__(config, variables, **options)
        self.block_frames = int(config.model.block_frames)  # type: ignore[attr-defined]
        self.model_hash = _name_of(variables, f"blocks of {self.block_frames}")
        model, trunk = self.recipe.frame_encoder(config, self.variables)
        self.frames = _Frames(
            model, trunk, max_megapixels=self.max_megapixels, shorter_side=self.shorter_side, memory=self.memory
        )
        self._of_block = jax.jit(functools.partial(self.recipe.of_frames, config))

    def of_block(self, images: list[RGB]) -> Float[np.ndarray, " d"]:
        return self.of_vectors(self.frames.of_frames(images))

    def of_vectors(self, vectors: Float[np.ndarray, "t 2*i"]) -> Float[np.ndarray, " d"]:
        """Features of a block from those of its frames, at most `block_frames`, full size first."""
        lengths = np.full(2, len(vectors), np.int32)
        sizes = np.zeros((2, self.block_frames, vectors.shape[1] // 2), np.float32)  # one shape for all
        sizes[:, : len(vectors)] = np.split(vectors, 2, axis=1)
        return np.asarray(self._of_block(self.variables, sizes, lengths)).reshape(-1)

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        return image, half_size(image, Image.Resampling.BILINEAR)

    def apply(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        half = half_scale(images, "linear")
        return jnp.concatenate([self._applied(variables, images), self._applied(variables, half)], axis=1)


class _Frames(Extractor):
    """The trunk, of frames at both sizes."""

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        return image, half_size(image, Image.Resampling.BILINEAR)


def extractor_of(config: Config, variables: dict[str, Any], **options: Any) -> RecipeExtractor:
    """That of a recipe other than CONTRIQUE: of images, or of clips if it has `of_frames`."""
    kind = ClipExtractor if hasattr(recipe_named(config.recipe), "of_frames") else RecipeExtractor
    return kind(config, variables, **options)


@dataclass
class Members:
    """The configs of an ensemble's models by name: what a recipe's config is to one."""

    configs: dict[str, Config]

    name, gives, recipe = ENSEMBLE, "features", ENSEMBLE
    takes_reference = staticmethod(judges_alone)

    @property
    def model(self) -> Members:
        return self

    @property
    def encoder(self) -> str:
        return " + ".join(f"{name}: {config.model.encoder}" for name, config in self.configs.items())

    def apply(
        self, config: Members, variables: dict[str, Variables], images: Array, valid: Array | None, reference: None
    ) -> Float[Array, "n d"]:
        """Of images of one size, each member's features in turn."""
        found = [recipe_of(own).apply(own, variables[name], images, valid, None) for name, own in self.configs.items()]
        return jnp.concatenate(found, axis=1)


class EnsembleExtractor(RecipeExtractor):
    """Features of all members: of the first at full and half size, of the next, and so on."""

    def __init__(self, members: dict[str, tuple[Config, Variables]], **limits: Any):
        """As `RecipeExtractor`. Raises UserError if a member gives scores."""
        for name, (config, _) in members.items():
            recipe = recipe_of(config)
            if recipe.gives != "features" or hasattr(recipe, "of_frames"):
                gives = "scores" if recipe.gives != "features" else "features of clips"
                raise UserError(
                    f"member {name!r} of the ensemble is of the recipe {config.recipe!r}, which gives {gives}; only features "
                    "of images stand side by side."
                )
        self._members = members
        configs = {name: config for name, (config, _) in members.items()}
        super().__init__(Members(configs), {name: weights for name, (_, weights) in members.items()}, **limits)
        one = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        widths = [
            jax.eval_shape(
                lambda x, own=own, weights=weights: recipe_of(own).apply(own, weights, x, None, None), one
            ).shape[1]
            for own, weights in members.values()
        ]
        starts = np.cumsum([0, *widths[:-1]])
        # all members' full size, then their half size -> one member after the other
        self._order = np.concatenate(
            [
                start + scale * sum(widths) + np.arange(width)
                for start, width in zip(starts, widths, strict=True)
                for scale in range(self.scales)
            ]
        )

    def _finish(self, started: Started) -> tuple[Any, Any, dict[int, str]]:
        features, windows, failed = super()._finish(started)
        return features[:, self._order], windows, failed

    def apply(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        return super().apply(variables, images)[:, self._order]

    def with_sign(self, sign: int, shorter_side: int | None) -> EnsembleExtractor:
        return EnsembleExtractor(
            self._members, max_megapixels=self.max_megapixels, shorter_side=shorter_side, memory=self.memory
        )


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


def _in_float32(config: Any) -> Any:
    """The config of a model that computes in float32 whatever it was trained in, so that a probe fits on every machine."""
    if isinstance(config, Members):
        return Members({name: _in_float32(own) for name, own in config.configs.items()})
    if not hasattr(config.model, "compute_dtype"):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, compute_dtype="float32"))


def _taken(config: Any) -> str:
    """What else than weights decides on the features, if it is not what the recipe's models have by default."""
    if isinstance(config, Members):
        return " ".join(f"{name} {_taken(own)}" for name, own in config.configs.items())
    usual = getattr(type(config)().model, "input_scaling", "")
    features, scaling = getattr(config.model, "features", "pooled"), getattr(config.model, "input_scaling", "")
    return ("" if features == "pooled" else features) + ("" if scaling == usual else f" of {scaling}")


def _name_of(variables: dict[str, Any], taken: str) -> str:
    """Twelve hexadecimal digits that name these weights, and what is taken of them."""
    digest = hashlib.sha256(taken.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf, np.float32)).data)
    return digest.hexdigest()[:12]
