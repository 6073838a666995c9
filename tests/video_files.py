"""Small videos that the tests write."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".3gp": "mpeg4", ".mov": "mpeg4", ".avi": "mpeg4"}


def pictures(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A red corner at the top left; green that grows by 8 a frame."""
    clip = np.zeros((count, height, width, 3), np.uint8)
    clip[:, : height // 2, : width // 2, 0] = 200
    clip[..., 1] = 8 * np.arange(count)[:, None, None] % 256
    return clip


def write_video(path: Path, clip: np.ndarray, times: list[float] | None = None, rate: int = 25, **options: Any) -> Path:
    """A video of those frames, at `rate` or at `times` [s]; `options`: of the container."""
    import av

    with av.open(str(path), "w", options=options) as container:
        codec = CODECS[path.suffix]
        odd = clip.shape[1] % 2 or clip.shape[2] % 2
        stream = container.add_stream(
            codec, rate=rate, width=clip.shape[2], height=clip.shape[1], pix_fmt="yuv444p" if odd else "yuv420p"
        )
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(clip):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(1000 * times[i]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44100, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
