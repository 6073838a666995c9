"""Long work item by item: done ahead of its reader in threads, shown as a bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm


def progress_bar(items: Iterable[Any], total: int, show: bool = True) -> Iterable[Any]:
    """`items` with a bar on stderr; silent where that is no terminal."""
    disable = None if show else True
    return tqdm(items, total=total, unit="image", disable=disable, dynamic_ncols=True)


def ahead(pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], count: int) -> Iterator[Any]:
    """work(item) in order, with up to `count` of them running or done ahead of the reader; what has not begun when that one
    leaves is not done."""
    running: deque[Future[Any]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) >= count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


def chunks(items: Iterable[Any], most: int, full: int, weight: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Runs of at most `most` items, or as soon as together they weigh `full`."""
    chunk: list[Any] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += weight(item)
        if len(chunk) == most or held >= full:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
