"""Pairs of the content-aware encoder: two crops of a photograph, their colours changed (MoCo-v2, arXiv 2003.04297)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from contrique_jax.augment.jitter import Jitter, draw_jitter, jittered
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_image
from contrique_jax.data.sources import Source
from contrique_jax.recipes.reiqa.config import ReiqaConfig

LEAST_AREA, FLATTEST = 0.2, 3 / 4  # of a crop: its share of the photograph, its shorter side over the longer one
TRIES = 10


class Draws(NamedTuple):
    """The choices for n photographs."""

    record: Int[np.ndarray, " n"]
    place: Float[np.ndarray, "n 2 t 4"]  # of both crops, for each try: area, shape, and corner, in [0, 1)
    jitter: Jitter  # fields [n, 2, ...]


class Example(NamedTuple):
    """Both crops before their colours change; of one record, without the axis n."""

    crops: UInt8[Array, "n 2 s s 3"]
    jitter: Jitter


@jax.jit
def choices(seed: int, step: int, rows: Int[Array, " n"]) -> tuple[Array, Jitter]:
    batch_key = jax.random.fold_in(jax.random.key(seed), step)

    def one(row: Array) -> tuple[Array, Jitter]:
        place, jitter = jax.random.split(jax.random.fold_in(batch_key, row))
        return jax.random.uniform(place, (2, TRIES, 4)), jax.vmap(draw_jitter)(jax.random.split(jitter))

    return jax.vmap(one)(rows)


def draw(config: ReiqaConfig, record: Int[np.ndarray, " n"], step: int, rows: range) -> Draws:
    chosen = choices(config.train.seed, step, np.arange(rows.start, rows.stop))
    return Draws(record, *jax.tree.map(np.asarray, chosen))


def box_of(height: int, width: int, tries: Float[np.ndarray, "t 4"]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a crop of a random area and shape: the first try that fits, else the largest in the middle
    that is not too flat (torchvision's RandomResizedCrop)."""
    for area, shape, down, across in tries.astype(np.float64):
        pixels = height * width * (LEAST_AREA + (1 - LEAST_AREA) * area)
        ratio = math.exp(math.log(FLATTEST) * (1 - 2 * shape))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(down * (height - h + 1)), int(across * (width - w + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height / FLATTEST)), min(height, round(width / FLATTEST))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def load(config: ReiqaConfig, source: Source, draws: Draws, row: int, broken: BrokenLog) -> Example:
    (image, *_), _ = load_image(source, int(draws.record[row]), broken)
    whole, size = Image.fromarray(image), (config.data.view_size, config.data.view_size)
    crops = [
        np.asarray(whole.resize(size, Image.Resampling.BILINEAR, box=box_of(image.shape[0], image.shape[1], tries)))
        for tries in draws.place[row]
    ]
    return Example(np.stack(crops), jax.tree.map(lambda part: part[row], draws.jitter))  # type: ignore[arg-type]


def example_shapes(config: ReiqaConfig) -> Example:
    def array(*shape: int, dtype: Any = np.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    jitter = Jitter(
        array(2, dtype=np.bool_), array(2, 4, dtype=np.int32), array(2, 4), array(2, dtype=np.bool_), array(2),
        array(2, dtype=np.bool_),
    )  # fmt: skip
    return Example(array(2, config.data.view_size, config.data.view_size, 3, dtype=np.uint8), jitter)


def finish_row(config: ReiqaConfig, example: Example) -> UInt8[Array, "1 2 s s 3"]:
    def one(each: tuple[Array, Jitter]) -> Array:
        image, jitter = each
        return jnp.floor(255 * jittered(image.astype(jnp.float32) / 255, jitter) + 0.5).astype(jnp.uint8)

    return jax.lax.map(one, (example.crops, example.jitter))[None]


def finish(config: ReiqaConfig, example: Example) -> UInt8[Array, "n 1 2 s s 3"]:
    return jax.vmap(lambda each: finish_row(config, each))(example)
