"""Images of many requests, put together for the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Judge = Callable[[Sequence[Any]], Sequence[Any]]


class Batcher:
    """Calls `judge` in one thread with up to `most` images that came within `seconds` of the first, or while it was at work."""

    def __init__(self, judge: Judge, most: int, seconds: float, began: Callable[[int], None] = lambda count: None):
        """`began` is called with the number of images of each batch."""
        self._judge, self._most, self._seconds, self._began = judge, most, seconds, began
        self._came: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    async def submit(self, image: Any) -> Any:
        """What `judge` makes of one image. Raises what it raises. If the caller is cancelled first, the image is left out."""
        future = asyncio.get_running_loop().create_future()
        self._came.put_nowait((image, future))
        return await future

    async def run(self) -> None:
        """For ever."""
        while True:
            batch = [await self._came.get()]
            deadline = asyncio.get_running_loop().time() + self._seconds
            while len(batch) < self._most:
                try:
                    async with asyncio.timeout_at(deadline):
                        batch.append(await self._came.get())
                except TimeoutError:
                    break
            await self._answer([(image, future) for image, future in batch if not future.done()])

    async def _answer(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        if not batch:
            return
        self._began(len(batch))
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self.thread, self._judge, [image for image, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one of them is to blame, and the others are other people's
                for one in batch:
                    await self._answer([one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), result in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(result)
