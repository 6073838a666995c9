"""Processes that decode: one that dies or takes too long costs one image, and another takes its place."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

import contrique_jax
from contrique_jax.errors import BrokenImage
from contrique_jax.serving.decoder import write
from contrique_jax.serving.limits import Limits

BASE_MEMORY, BYTES_A_PIXEL = 1 << 30, 16  # of a process: for its code, and while it decodes
LONGEST_HEAD = 4096  # bytes
START_SECONDS = 60.0
HEAD = ("height", "width", "given", "reduced", "thumbnail")
PASSED_ON = (
    "PATH",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "LANG",
    "VIRTUAL_ENV",
)  # of the environment, which may hold secrets


@dataclass(frozen=True)
class Decoded:
    """An image as the network takes it, and what is told of it."""

    image: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]  # height and width before it was reduced
    reduced: bool
    thumbnail: bytes  # JPEG, empty if it was not asked for


class Decoders:
    """A fixed number of them. `died` counts those that did."""

    def __init__(self, limits: Limits, count: int, megapixels: float, side: int | None):
        """Images are brought to `side` and `megapixels` (`data.sizes.fitted`)."""
        self.limits, self.died = limits, 0
        self._task = {"pixels": limits.image_pixels, "megapixels": megapixels, "side": side}
        self._most = int(max(megapixels * 1e6, 1)) + 1
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(count):
            self._idle.put(_Process(limits))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")

    async def decode(self, data: bytes, name: str, thumbnail: bool) -> Decoded:
        """Raises BrokenImage for what is no image, dies or takes too long."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._decode, data, name, thumbnail)

    def _decode(self, data: bytes, name: str, thumbnail: bool) -> Decoded:
        process = self._idle.get()
        try:
            if process is None or process.ended:
                process = _Process(self.limits)
            head, body = process.ask(self._task | {"name": name, "thumbnail": thumbnail}, data, self._most)
        except _Died as error:
            self.died += 1
            process = None
            raise BrokenImage(name, str(error)) from error
        finally:
            self._idle.put(process)
        if "error" in head:
            raise BrokenImage(name, str(head["error"]))
        height, width = head["height"], head["width"]
        image = np.frombuffer(body, np.uint8, 3 * height * width).reshape(height, width, 3)
        return Decoded(image, head["given"], bool(head["reduced"]), bytes(body[3 * height * width :]))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with suppress(queue.Empty):
            while True:
                process = self._idle.get_nowait()
                if process is not None:
                    process.end()


class _Died(Exception):
    """Why there is no answer, in words for whoever sent the image."""


class _Process:
    def __init__(self, limits: Limits):
        self._seconds, self._ready = limits.decode_seconds, False
        memory = BASE_MEMORY + BYTES_A_PIXEL * limits.image_pixels
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        places = [str(Path(contrique_jax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contrique_jax.serving.decoder", str(memory)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,  # Ctrl-C is for the server alone
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def ask(self, task: dict[str, Any], data: bytes, most_pixels: int) -> tuple[dict[str, Any], bytearray]:
        """The answer's head and its bytes. Raises _Died, and the process is gone then."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._wait_until_ready()
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._seconds, end)
        timer.start()
        try:
            write(cast(BinaryIO, self._process.stdin), task | {"bytes": len(data)}, data)
            head = json.loads(self._process.stdout.readline(LONGEST_HEAD))
            if "error" in head:
                return {"error": str(head["error"])[:1000]}, bytearray()
            head = {name: tuple(map(int, head[name])) if name == "given" else int(head[name]) for name in HEAD}
            pixels, rest = head["height"] * head["width"], head["thumbnail"]
            if not (
                0 < pixels <= most_pixels and 0 <= rest <= 1 << 20 and head["height"] > 0 and len(head["given"]) == 2
            ):
                raise ValueError("an answer that cannot be")  # whoever sent the image may speak here
            body = bytearray(3 * pixels + rest)
            place = memoryview(body)
            while place:
                read = self._process.stdout.readinto(place)  # type: ignore[attr-defined]
                if not read:
                    raise EOFError
                place = place[read:]
            return head, body
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.end()
            if late.is_set():
                raise _Died(f"decoding it took longer than {self._seconds:g} s; scale it down first") from error
            raise _Died("it brought down the process that decodes images; convert it with another program") from error
        finally:
            timer.cancel()

    def _wait_until_ready(self) -> None:
        """Its start is not counted among an image's seconds. Raises _Died."""
        if self._ready:
            return
        assert self._process.stdout is not None
        timer = threading.Timer(START_SECONDS, self._process.kill)
        timer.start()
        self._ready = bool(self._process.stdout.readline(LONGEST_HEAD))
        timer.cancel()
        if not self._ready:
            self.end()
            raise _Died("the process that decodes images did not start; try again later")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()
