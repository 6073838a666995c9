"""A process that decodes images which strangers sent, and may die of one: `python -m contrique_jax.serving.decoder BYTES`.

It opens no file, writes none, holds no secret and has so much memory. On stdin come tasks, on stdout go answers: each a line
of JSON, then as many bytes as that says.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from contrique_jax.data.decode import RGB, decode
from contrique_jax.data.sizes import fitted
from contrique_jax.errors import BrokenImage

THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 512, 85


def main() -> None:
    """Answers tasks until stdin ends."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what libraries print goes nowhere
        os.dup2(nowhere, number)
    _decoded(
        {"name": "", "pixels": 64, "megapixels": 1, "side": None, "thumbnail": True}, _small_png()
    )  # loads what is needed
    confine(int(sys.argv[1]))
    write(answers, {"ready": True})
    while line := tasks.readline():
        task = json.loads(line)
        write(answers, *_answer(task, tasks.read(task["bytes"])))


def confine(memory: int) -> None:
    """Bounds this process: no more memory than that, no file longer than nothing, no dump of its memory."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, most in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        with suppress(ValueError, OSError):  # a lower limit is in force
            resource.setrlimit(getattr(resource, name), (most, most))


def write(stream: BinaryIO, head: dict[str, Any], *parts: bytes | memoryview) -> None:
    """A line of JSON and the bytes behind it."""
    stream.write(json.dumps(head).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def _answer(task: dict[str, Any], data: bytes) -> tuple[Any, ...]:
    try:
        image, head, thumbnail = _decoded(task, data)
    except BrokenImage as error:
        return ({"error": error.why},)
    except MemoryError:
        return ({"error": "decoding it takes more memory than is allowed; scale it down first"},)
    except Exception as error:  # whatever else a stranger's bytes bring about
        return ({"error": f"damaged or cut off ({type(error).__name__})"},)
    return head, image.data.cast("B"), thumbnail


def _decoded(task: dict[str, Any], data: bytes) -> tuple[RGB, dict[str, Any], bytes]:
    whole = decode(data, name=task["name"], max_pixels=task["pixels"])
    image, reduced = fitted(whole, task["megapixels"], task["side"])
    thumbnail = _thumbnail(image) if task["thumbnail"] else b""
    image = np.ascontiguousarray(image)
    head = {
        "height": image.shape[0], "width": image.shape[1], "given": whole.shape[:2], "reduced": reduced,
        "thumbnail": len(thumbnail),
    }  # fmt: skip
    return image, head, thumbnail


def _thumbnail(image: RGB) -> bytes:
    """JPEG, at most `THUMBNAIL_SIDE` pixels long."""
    small = Image.fromarray(image)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), reducing_gap=3.0)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=THUMBNAIL_QUALITY)
    return stream.getvalue()


def _small_png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


if __name__ == "__main__":
    main()
