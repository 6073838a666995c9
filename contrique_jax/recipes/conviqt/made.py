"""Clips made from photographs: a camera, and a distortion with one draw for all frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8, UInt32

from contrique_jax.distort.bank import NUM_LEVELS, NUM_TYPES, TYPES, distort_kind
from contrique_jax.io.machine import ONE_THREAD, host_device
from contrique_jax.recipes.conviqt.classes import CLEAN, TEMPORAL
from contrique_jax.recipes.conviqt.config import ConviqtData
from contrique_jax.recipes.conviqt.motion import camera, filmed
from contrique_jax.recipes.conviqt.temporal import distorted, source_frames

GRAIN = (11, 12, 13, 14)  # the bank's noises, which are others in every frame; all else stands still


def draw_class(data: ConviqtData, generator: np.random.Generator) -> int:
    """A class of `classes`, by the shares of the config."""
    clean, along_time, kind, level = generator.random(4)
    if clean < data.clean_share:
        return CLEAN
    if along_time < data.temporal_share:
        name = data.temporal[int(kind * len(data.temporal))]
        return NUM_LEVELS * (NUM_TYPES + TEMPORAL.index(name)) + int(level * NUM_LEVELS)
    types = data.types or TYPES
    return NUM_LEVELS * (types[int(kind * len(types))] - 1) + int(level * NUM_LEVELS)


def most_source_frames(data: ConviqtData) -> int:
    """Frames from which any clip can be made."""
    return source_frames("dropped", NUM_LEVELS, data.made_frames) if "dropped" in data.temporal else data.made_frames


def made_clip(
    data: ConviqtData, stack: UInt8[np.ndarray, "k h w 3"], class_id: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "t h w 3"]:
    """`data.made_frames` frames: of a photograph (k = 1) at data.height x data.width, as a moving camera sees it; else of the
    frames given, fewer if they do not suffice. Raises UserError if a compression is wanted and cannot be had."""
    kind, level = divmod(class_id, NUM_LEVELS)
    name = TEMPORAL[kind - NUM_TYPES] if kind >= NUM_TYPES and class_id != CLEAN else ""
    wanted = source_frames(name, level + 1, data.made_frames) if name else data.made_frames
    clip = stack[:wanted]
    if len(stack) == 1:
        clip = filmed(stack[0], camera(generator, wanted), data.height, data.width)
    if name:
        return distorted(clip, name, level + 1, min(data.made_frames, len(clip)), generator)
    return clip if class_id == CLEAN else under_bank(data, clip[: data.made_frames], class_id, generator)


def under_bank(
    data: ConviqtData, clip: UInt8[np.ndarray, "t h w 3"], class_id: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip under a distortion of the bank: its random choices are made once. Values are clipped, not stretched frame by
    frame, which would flicker."""
    keys = np.repeat(generator.integers(0, 2**32, (1, 2), np.uint32), len(clip), axis=0)
    if class_id // NUM_LEVELS + 1 in GRAIN:
        keys[:, 0] += np.arange(len(clip), dtype=np.uint32)
    with jax.default_device(host_device()):
        return np.asarray(_program(tuple(data.types))(keys, clip, np.int32(class_id)))


@functools.lru_cache(maxsize=4)
def _program(types: tuple[int, ...]) -> Callable[..., Any]:
    def all_frames(
        keys: UInt32[Array, "t 2"], clip: UInt8[Array, "t h w 3"], class_id: Int[Array, ""]
    ) -> UInt8[Array, "t h w 3"]:
        kind, level = class_id // NUM_LEVELS, class_id % NUM_LEVELS + 1
        one = functools.partial(distort_kind, kind=kind, level=level, types=types or None, minmax=False)
        return jax.lax.map(lambda both: one(*both), (jnp.asarray(keys), clip))

    return jax.jit(all_frames, compiler_options=ONE_THREAD)
