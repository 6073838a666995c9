"""Distortions along time, at levels 1 to 5: what becomes of the frames of a clip."""

from __future__ import annotations

import importlib
import io
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from contrique_jax.errors import UserError
from contrique_jax.recipes.conviqt.classes import TEMPORAL

DROPPED = (0.1, 0.2, 0.35, 0.5, 0.65)  # share of frames that are left out; the next one takes the place
FROZEN = (2, 3, 5, 8, 12)  # frames for which the picture stands, then it jumps to where it would be
FREEZES = 0.4  # share of a clip in which it stands, about
FLICKER = (0.03, 0.06, 0.12, 0.2, 0.35)  # deviation of each frame's gain
RATES = (32, 37, 42, 46, 51)  # H.264's constant rate factor
CODEC = "libx264"

Clip = UInt8[np.ndarray, "t h w 3"]


def source_frames(kind: str, level: int, frames: int) -> int:
    """How many frames there must be for `frames` to remain."""
    return int(np.ceil(frames / (1 - DROPPED[level - 1]))) + 1 if kind == "dropped" else frames


def distorted(clip: Clip, kind: str, level: int, frames: int, generator: np.random.Generator) -> Clip:
    """`frames` frames of a clip (of `source_frames`) under the distortion `kind` of TEMPORAL. Raises UserError if PyAV is
    wanted and lacking."""
    if kind == "dropped":
        return clip[_kept(len(clip), frames, generator)]
    if kind == "frozen":
        return clip[_standing(frames, FROZEN[level - 1], generator)]
    if kind == "flicker":
        gains = np.exp(FLICKER[level - 1] * generator.standard_normal(frames))
        return np.clip(clip * gains[:, None, None, None] + 0.5, 0, 255).astype(np.uint8)
    if kind != "compression":
        raise ValueError(f"{kind} is none of {TEMPORAL}")
    return compressed(clip, RATES[level - 1])


def _kept(there: int, frames: int, generator: np.random.Generator) -> Int[np.ndarray, " t"]:
    """Which frames remain, in order; the first among them."""
    return np.concatenate([[0], np.sort(generator.choice(np.arange(1, there), frames - 1, replace=False))])


def _standing(frames: int, length: int, generator: np.random.Generator) -> Int[np.ndarray, " t"]:
    """Which frame is shown at each time."""
    shown, t = np.arange(frames), 0
    while t < frames:
        if generator.random() < FREEZES / length:
            shown[t : t + length] = t
            t += length
        else:
            t += 1
    if (shown == np.arange(frames)).all():  # at least once
        t = int(generator.integers(0, max(frames - length, 1)))
        shown[t : t + length] = t
    return shown


def compressed(clip: Clip, rate: int) -> Clip:
    """The clip after H.264 at a constant rate factor; odd sides are continued by a row or column meanwhile, since the encoder
    halves those of colours. Raises UserError without PyAV or its encoder."""
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise UserError(
            'config.data.temporal: "compression" needs the package av; pip install "contrique-jax[video]", or name the '
            "others alone."
        ) from error
    height, width = clip.shape[1:3]
    clip = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as container:
            stream = container.add_stream(
                CODEC, rate=25, width=clip.shape[2], height=clip.shape[1], pix_fmt="yuv420p",
                options={"crf": str(rate), "preset": "veryfast", "threads": "1"},
            )  # fmt: skip
            stream.time_base = Fraction(1, 25)
            for image in clip:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(stream.encode())
        file.seek(0)
        with av.open(file) as container:
            found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(
            f'config.data.temporal: this build of PyAV cannot encode {CODEC} ({error}); leave "compression" out.'
        ) from error
    return np.stack(found)[:, :height, :width]
