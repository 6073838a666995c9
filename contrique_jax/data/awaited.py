"""Items that another thread makes, so that a signal is heard while one of them does not come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 2.0  # for an item that is nearly there


def awaited(items: Iterator[Item], stopped: Callable[[], bool]) -> Iterator[Item]:
    """`items`, each made in a thread when it is asked for; ends early if `stopped()` turns true while one does not come.

    What is read may lie on a disk that does not answer. The thread is then left behind.
    """
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
    made: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()

    def make() -> None:
        try:
            while wanted.get():
                made.put(([next(items)], None))
        except StopIteration:
            made.put(([], None))
        except BaseException as error:
            made.put(([], error))
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    threading.Thread(target=make, name="batches", daemon=True).start()
    try:
        while True:
            wanted.put(True)
            looks = 0
            while True:
                try:
                    found, error = made.get(timeout=_LOOK_SECONDS)
                    break
                except queue.Empty:
                    looks += stopped()
                    if looks * _LOOK_SECONDS > PATIENCE_SECONDS:
                        return
            if error is not None:
                raise error
            if not found:
                return
            yield found[0]
    finally:
        wanted.put(False)
