"""From uploads to answers: decoded in processes, put together for the network, bounded in number and time."""

from __future__ import annotations

import asyncio
import base64
import math
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from contrique_jax.errors import BrokenImage
from contrique_jax.io.machine import available_cores
from contrique_jax.serving.batcher import Batcher
from contrique_jax.serving.decoders import Decoders
from contrique_jax.serving.engine import Engine
from contrique_jax.serving.limits import Limits, Refused
from contrique_jax.serving.metrics import Metrics
from contrique_jax.serving.uploads import Upload, Uploads

SMOOTHED = 0.1  # the share of the newest image in the time that one takes


@dataclass(frozen=True)
class Wanted:
    """What an answer has beside the score."""

    map: bool = False
    thumbnail: bool = False


class Service:
    """One model, its decoders and its queue."""

    def __init__(self, engine: Engine, limits: Limits, decoders: int = 0):
        """`decoders`: processes, 0 is one a core."""
        self.engine, self.limits, self.uploads = engine, limits, Uploads(limits)
        count = decoders or available_cores()
        extractor = engine.extractor
        self.decoders = Decoders(limits, count, extractor.max_megapixels, extractor.shorter_side)
        self.waiting, self.warm, self.draining = 0, False, False
        self.metrics = Metrics(lambda: self.waiting, lambda: self.decoders.died)
        self.batcher = Batcher(
            engine.judge, limits.batch, limits.wait_milliseconds / 1000, self.metrics.batches.observe
        )
        self._in_memory = asyncio.Semaphore(count + 2 * limits.batch)  # decoded images
        self._seconds = 0.1  # from one answer to the next while some wait
        self._last = 0.0
        self._compiling = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._tasks: list[asyncio.Future[Any]] = []

    def start(self, warm: bool = True) -> None:
        """Within the event loop. `warm`: programs for usual sizes are compiled first."""
        self._tasks.append(asyncio.ensure_future(self.batcher.run()))
        if warm:
            self._tasks.append(asyncio.ensure_future(self._warm_up()))
        else:
            self.warm = True

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for pool in (self._compiling, self.batcher.thread):
            pool.shutdown(wait=False, cancel_futures=True)
        self.decoders.close()

    def about(self) -> dict[str, Any]:
        limits = {
            name: value for name, value in asdict(self.limits).items() if name not in ("connections", "drain_seconds")
        }
        return self.engine.about() | {"limits": limits}

    def admit(self, images: int) -> None:
        """Raises Refused if so many more would be too many."""
        if self.waiting + images > self.limits.queue:
            raise Refused(
                429, f"{self.waiting} images are waiting and {self.limits.queue} may; try again later",
                {"Retry-After": str(self._retry_after())},
            )  # fmt: skip

    async def score_all(self, uploads: Sequence[Upload], wanted: Wanted) -> list[dict[str, Any]]:
        """An answer for each, its score or what is wrong with it. Raises Refused if it takes too long, and whatever the
        network raises."""
        self.admit(len(uploads))
        self.waiting += len(uploads)
        try:
            async with asyncio.timeout(self.limits.answer_seconds), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score(upload, wanted)) for upload in uploads]
        except TimeoutError as error:
            raise Refused(
                503, f"no answer within {self.limits.answer_seconds:g} s; send fewer or smaller images at a time",
                {"Retry-After": str(self._retry_after())},
            ) from error  # fmt: skip
        except ExceptionGroup as group_of_errors:
            traceback.print_exception(group_of_errors.exceptions[0])
            raise Refused(
                500, f"the model failed on this request ({type(group_of_errors.exceptions[0]).__name__}); "
                "the server's log says more",
            ) from group_of_errors  # fmt: skip
        finally:
            self.waiting -= len(uploads)
        return [task.result() for task in tasks]

    async def _score(self, upload: Upload, wanted: Wanted) -> dict[str, Any]:
        try:
            if len(upload.data) > self.limits.file_bytes:
                raise BrokenImage(
                    upload.name, f"{len(upload.data) / 1e6:.1f} MB, and {self.limits.file_megabytes:g} MB are the limit"
                )
            async with self._in_memory:
                decoded = await self.decoders.decode(upload.data, upload.name, wanted.thumbnail)
                score = await self.batcher.submit(decoded.image)
            if score.broken:
                raise score.broken
        except BrokenImage as error:
            self.metrics.images.labels("broken").inc()
            return {"name": upload.name, "error": error.why}
        self._finished()
        height, width = decoded.size
        answer = {"name": upload.name, **self.engine.told(score, wanted.map)}
        answer |= {"width": width, "height": height, "reduced": decoded.reduced}
        if wanted.thumbnail:
            answer["thumbnail"] = "data:image/jpeg;base64," + base64.b64encode(decoded.thumbnail).decode()
        return answer

    async def _warm_up(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.batcher.thread, self.engine.compile_usual, self._compiling)
        await loop.run_in_executor(self._compiling, lambda: None)  # begun when all before it are done
        self.warm = True

    def _finished(self) -> None:
        self.metrics.images.labels("scored").inc()
        now = time.monotonic()
        if self.waiting > 1 and self._last:
            self._seconds += SMOOTHED * (min(now - self._last, 60) - self._seconds)
        self._last = now

    def _retry_after(self) -> int:
        """Seconds until about half of what waits is done."""
        return min(max(math.ceil(self.waiting * self._seconds / 2), 1), 60)
