"""Scores of pairs that nobody has judged, by a teacher: MS-SSIM, or a trained model of any recipe that gives scores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_images
from contrique_jax.data.ms_ssim import ms_ssim
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.io.machine import available_cores
from contrique_jax.io.progress import chunks
from contrique_jax.networks.backbones import hash_of
from contrique_jax.networks.description import folder_at
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.kept_vectors import of_all
from contrique_jax.recipes.stored import stored_model

MS_SSIM = "ms-ssim"
TOGETHER = 8  # pairs that go through a teacher at once

Scores = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Judged:
    """What a teacher says of a source's records, as opinions are (`iqa_sets.ScoredImages`)."""

    name: str
    scores: Scores
    higher_is_better: bool
    teacher: str  # what names it: a measure, or the hash of a model's weights


class Teacher:
    """A measure by name, or a model folder or run's workdir. Raises UserError if it is none that gives scores."""

    def __init__(self, spec: str):
        self.name, self.higher_is_better, self.hash = spec, True, spec
        if spec == MS_SSIM:
            self._judge: Any = ms_ssim
            return
        folder = folder_at(Path(spec).expanduser())
        if folder is None:
            raise UserError(
                f"config.data.teacher={spec}: there is no such model; give a model folder, a run's workdir or {MS_SSIM}."
            )
        config, variables = stored_model(folder)
        recipe = recipe_of(config)
        if recipe.gives != "score":
            raise UserError(f"config.data.teacher={spec}: it gives features and no scores; name a model that does.")
        self.higher_is_better, self.hash = recipe.score_range(config)[2], hash_of(variables)
        self._judge = functools.partial(_by_model, jax.jit(functools.partial(_applied, config)), variables)

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"], references: UInt8[np.ndarray, "n h w 3"]) -> Scores:
        return np.asarray(self._judge(images, references), np.float64)


def judged(source: Source, spec: str, broken: BrokenLog, workers: int) -> Judged:
    """The teacher's scores of all pairs. Of a photograph that cannot be read the next one's."""
    teacher, found, workers = Teacher(spec), [], workers or available_cores()
    pairs = of_all(
        lambda asked: load_images(source, *asked)[0], len(source), broken, workers, 2 * workers,
        what=f"{teacher.name} of {source.name}", unit="pair", own_first=False,
    )  # fmt: skip
    for chunk in chunks((pair for _, pair in pairs), TOGETHER, TOGETHER, lambda pair: 1):
        filled = np.stack(chunk + chunk[:1] * (TOGETHER - len(chunk)))  # one shape for all
        found.append(teacher(filled[:, 0], filled[:, 1])[: len(chunk)])
    scores = np.concatenate(found)
    if not np.isfinite(scores).all():
        raise UserError(f"config.data.teacher={spec}: it gives NaN or infinity as scores; check its weights.")
    return Judged(source.name, scores, teacher.higher_is_better, teacher.hash)


def _applied(config: Any, variables: Any, images: jax.Array, references: jax.Array) -> jax.Array:
    recipe = recipe_of(config)
    images, references = (x.astype(np.float32) / 255 for x in (images, references))
    alone = recipe.takes_reference(config) == "never"
    return recipe.apply(config, variables, images, None, None if alone else references)


def _by_model(apply: Any, variables: Any, images: np.ndarray, references: np.ndarray) -> Scores:
    return np.asarray(apply(variables, images, references), np.float64)
