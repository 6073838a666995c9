"""Scores of pairs that nobody has judged, by a teacher: MS-SSIM, or a trained model of any recipe that gives scores."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_images
from contrique_jax.data.ms_ssim import ms_ssim
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.io.machine import available_cores
from contrique_jax.io.progress import ahead
from contrique_jax.networks.backbones import hash_of
from contrique_jax.networks.description import folder_at
from contrique_jax.recipes import recipe_of
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
    teacher, found = Teacher(spec), []
    bar = tqdm(
        total=len(source), desc=f"{teacher.name} of {source.name}", unit="pair", dynamic_ncols=True,
        disable=None if jax.process_index() == 0 else True,
    )  # fmt: skip
    first, last = (len(source) * (jax.process_index() + i) // jax.process_count() for i in (0, 1))
    quiet = BrokenLog(quiet=True)  # of photographs that another process names
    workers = workers or available_cores()
    with ThreadPoolExecutor(workers) as pool, bar:
        stacks = ahead(
            pool, lambda i: load_images(source, i, broken if first <= i < last else quiet)[0], range(len(source)),
            2 * workers,
        )  # fmt: skip
        waiting: list[np.ndarray] = []
        for i, stack in enumerate(stacks):
            waiting.append(stack)
            if len(waiting) == TOGETHER or i == len(source) - 1:
                count = len(waiting)
                pairs = np.stack(waiting + waiting[:1] * (TOGETHER - count))  # one shape for all
                found.append(teacher(pairs[:, 0], pairs[:, 1])[:count])
                waiting = []
            bar.update()
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
