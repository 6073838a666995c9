"""Ctrl-C and SIGTERM: the first ends a command in order, the second within seconds, whatever a thread waits for.

Python runs handlers in the main thread alone, between two of its own instructions: not while that compiles, waits for a
device or for a disk that does not answer. So a thread hears of every signal too, and ends the process if nothing else does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

ORDERLY_SECONDS = 20.0  # from the first signal to the end, if the command does not keep what it has for longer
AT_ONCE_SECONDS = 4.0  # from the second one
LEAVING_SECONDS = 2.0  # for threads that are still at work when all is done
ENDING = (signal.SIGINT, signal.SIGTERM)

_current: Signals | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM, which is to be met wherever Ctrl-C is."""


def current() -> Signals | None:
    """The one that is in charge of this process."""
    return _current


class Signals:
    """Context in which the first Ctrl-C or SIGTERM raises KeyboardInterrupt or Terminated in the main thread, unless it is
    `deferred`, and the second one ends the process. Within another one, or in another thread than the main one, nothing."""

    def __init__(self) -> None:
        self.first: int | None = None  # the first signal that came
        self.deferred = False  # the first signal only sets `first`: whoever set this looks at it
        self.told: list[Callable[[int], Any]] = []  # called from a thread with each signal's number
        self.leaving_seconds = LEAVING_SECONDS
        self._raised = self._leaving = False
        self._before: dict[int, Any] = {}
        self._until = float("inf")
        self._code = 1

    def __enter__(self) -> Signals:
        global _current
        if _current is not None or threading.current_thread() is not threading.main_thread():
            return self
        _current = self
        self._writer, reader = socket.socketpair()  # which Windows takes too
        self._writer.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # a shell's background job, or nohup
                self.listen(number)
        threading.Thread(target=self._watch, args=[reader], daemon=True).start()
        return self

    def listen(self, number: int) -> None:
        """Takes the signal from whoever else has taken it since."""
        before = signal.signal(number, self._in_main_thread)
        self._before.setdefault(number, before)

    def __exit__(self, *details: Any) -> None:
        global _current
        if _current is not self or self._leaving:  # handlers stay until the process has ended
            return
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)
        self._writer.close()  # which ends the thread
        _current = None

    def leave(self, code: int) -> None:
        """All is done: if a signal came, the process ends soon even if a thread of it still waits for a disk."""
        if self.first is not None:
            self._leaving = self._raised = True
            self._end_within(self.leaving_seconds, code)

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        elif self._raised:
            return  # what is cleared away meanwhile is not disturbed
        if not self.deferred:
            self._raised = True
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def _watch(self, reader: socket.socket) -> None:
        seen = 0
        while number := reader.recv(1):
            if number[0] not in ENDING:
                continue
            seen += 1
            self.first = self.first or number[0]
            for tell in self.told:
                tell(number[0])
            if seen > 1:
                self._end_within(AT_ONCE_SECONDS, 128 + number[0])
            elif not self.deferred:
                self._end_within(ORDERLY_SECONDS, 128 + number[0])
        reader.close()

    def _end_within(self, seconds: float, code: int) -> None:
        """Ends the process so much later with that code, or earlier if it was to end earlier."""
        self._code = code
        until = time.monotonic() + seconds
        if until < self._until:
            self._until = until
            threading.Thread(target=self._end, args=[until], daemon=True).start()

    def _end(self, until: float) -> None:
        time.sleep(max(until - time.monotonic(), 0))
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._code)
