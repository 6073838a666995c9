"""A model of a recipe other than CONTRIQUE at work: features for a probe, or scores that need none."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from contrique_jax.augment.five_crops import CROPS, five_crops
from contrique_jax.augment.half import half_scale
from contrique_jax.config import Config
from contrique_jax.data.sizes import MAX_MEGAPIXELS, half_size
from contrique_jax.errors import UserError
from contrique_jax.inference.extractor import RGB, Extractor
from contrique_jax.inference.pairs import BesideReference
from contrique_jax.inference.runner import Runner, limits
from contrique_jax.io.machine import available_cores
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe
from contrique_jax.recipes import recipe_named

LOOKS = ("crops", "crop_count", "crop_size", "crop_seed")  # of a model that gives scores


class RecipeExtractor(BesideReference):
    """Features of a recipe's `apply` at full and half size; of one that gives scores the score, at the image's own size."""

    def __init__(
        self, config: Any, variables: dict[str, Any], *, max_megapixels: float = MAX_MEGAPIXELS,
        shorter_side: int | None = None, workers: int = 0, sign: int = 1, memory: float | None = None,
    ):  # fmt: skip
        """As `Extractor`; `config` of the recipe, with the model's architecture. What comes out is multiplied by `sign`."""
        self.config = config = _in_float32(config)  # as `Extractor`
        self.recipe: Any = recipe_named(config.recipe)
        self.sign = sign
        tiled, self._crop = (
            of(config) if (of := getattr(self.recipe, name, None)) else None for name in ("encodes", "crop_side")
        )
        self.views = CROPS if self._crop else 1
        self.scales = 1 if self.recipe.gives == "score" else 2
        self.model, self.variables = config.model, jax.device_put(variables)
        self.model_hash = name_of(variables, taken_of(config))
        self.shorter_side, self.memory = shorter_side, memory
        self._workers, self._windows = workers or available_cores(), False
        self.max_megapixels, size = limits(max_megapixels, memory, tiled, variables, in_crops=self._crop is not None)
        self.takes_reference = self.recipe.takes_reference(config)
        channels = 6 if self.takes_reference == "needed" else 3
        one = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
        self.width = self.scales * jax.eval_shape(self._applied, variables, one).shape[1]

        def encode(variables: Any, images: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, None]:
            return self._applied(variables, images.astype(jnp.float32) / 255, valid), None

        width, unit = self.width // self.scales, getattr(self.model, "unit_features", True)
        self._runner_of = functools.cache(
            functools.partial(Runner, encode, self.variables, width, "", tiled, windows=False, memory=size, unit=unit)
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
        sizes = (image,) if self.gives_scores else super()._scaled(image)
        return sizes if self._crop is None else tuple(crop for x in sizes for crop in five_crops(x, self._crop))

    def _compile(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        if self._crop is None:
            super()._compile(sizes, pool)
        else:
            self._runner.prepare([(self._crop, self._crop)] * self.views, pool)

    def fix_shapes(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        if self._crop is None:
            super().fix_shapes(sizes, pool)
        else:
            self._compile(sizes, pool)

    def apply(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        """The same of a batch of images of one size, float in [0, 1]: pure."""
        sizes = [images] if self.gives_scores else [images, half_scale(images)]
        return jnp.concatenate([self._looked_at(variables, x) for x in sizes], axis=1)

    def _looked_at(self, variables: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        if self._crop is None:
            return self._applied(variables, images)
        crops = jax.vmap(functools.partial(five_crops, side=self._crop))(jnp.asarray(images))
        found = self._applied(variables, crops.reshape(-1, *crops.shape[2:]))
        return found.reshape(len(images), self.views, -1).mean(1)

    def with_maps(self) -> Extractor:
        raise UserError(f"map: a model of the recipe {self.recipe.name!r} has no maps of its image's quality.")

    def with_sign(self, sign: int, shorter_side: int | None) -> RecipeExtractor:
        """The same model for images of another size, its scores turned round or not."""
        return type(self)(
            self.config,
            self.variables,
            max_megapixels=self.max_megapixels,
            shorter_side=shorter_side,
            workers=self._workers,
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
        self.model_hash = name_of(variables, f"blocks of {self.block_frames}")
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


def _in_float32(config: Any) -> Any:
    """The config of a model that computes in float32 whatever it was trained in, so that a probe fits on every machine."""
    if not hasattr(config.model, "compute_dtype"):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, compute_dtype="float32"))


def taken_of(config: Any) -> str:
    """What else than weights decides on the features, if it is not what the recipe's models have by default."""
    model, usual = config.model, type(config)().model
    features = getattr(model, "features", "pooled")
    other = [name for name in ("input_scaling", *LOOKS) if getattr(model, name, "") != getattr(usual, name, "")]
    taken = ("" if features == "pooled" else features) + (
        f" of {model.input_scaling}" if "input_scaling" in other else ""
    )
    if hasattr(model, "looked_at"):
        return taken + str(model.looked_at)
    return taken + "".join(f" {name} {getattr(model, name)}" for name in other if name in LOOKS)


def name_of(variables: dict[str, Any], taken: str) -> str:
    """Twelve hexadecimal digits that name these weights, and what is taken of them."""
    digest = hashlib.sha256(taken.encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf, np.float32)).data)
    return digest.hexdigest()[:12]
