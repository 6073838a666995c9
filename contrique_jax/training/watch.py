"""Watchdog for multi-process runs: times out stuck waits and reports one process's failure to all.

A process that waits inside a collective for one that has failed or stands still would wait until somebody looks. Here
threads look: they end the process with one sentence when what is expected has not happened in time, and when another process
says that it gives up. A process alone waits for nobody, and nothing here does anything.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from typing import Any

from contrique_jax.errors import UserError, disk_message, foreign_message, permission_message
from contrique_jax.signals import Terminated
from contrique_jax.training import hosts

_FAILURE = "contrique_jax/failure"  # key of the first failure's sentence
_LOOK_SECONDS = 1.0


class Watchdog:
    """Context around what processes do together."""

    def __init__(self, wait_seconds: int):
        """`wait_seconds`: how long anything expected may take, [s]."""
        self._wait_seconds = wait_seconds
        self._expected = ("", math.inf)  # what, until when
        self._left = threading.Event()
        self._ending = threading.Lock()  # held by whoever ends the process

    def expect(self, what: str) -> None:
        """`what` comes next and takes at most the limit from now; it replaces what was expected before."""
        self._expected = (what, time.monotonic() + self._wait_seconds)

    def pause(self) -> None:
        """What comes next takes as long as it takes: a compilation."""
        self._expected = ("", math.inf)

    def __enter__(self) -> Watchdog:
        if hosts.is_distributed():
            threading.Thread(target=self._look_at_clock, daemon=True).start()
            threading.Thread(target=self._look_at_others, daemon=True).start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """With several processes, what one of them raises ends all: exit code 2 and a sentence for a user's mistake, 130 for
        Ctrl-C, 143 for SIGTERM, 1 for others. What all raise together is left to each."""
        self.pause()
        if hosts.is_distributed() and error is not None and not isinstance(error, SystemExit | hosts.SharedError):
            sentence = str(error) if isinstance(error, UserError) else None
            if isinstance(error, OSError):
                sentence = disk_message(error, str(error.filename or "output")) or permission_message(error)
                sentence = sentence or foreign_message(error)
            if sentence:
                self._end(f"error: {sentence}", sentence, 2)
            if isinstance(error, Terminated):
                self._end("terminated", "it was terminated", 143)
            if isinstance(error, KeyboardInterrupt):
                self._end("interrupted", "it was interrupted", 130)
            time.sleep(2 * _LOOK_SECONDS)  # if it is that another process has gone, that one's sentence comes first
            trace_lines = "".join(traceback.format_exception(error))
            self._end(trace_lines, f"it ended by {type(error).__name__}; its output says where", 1)
        self._left.set()

    def _look_at_others(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            told = hosts.published(_FAILURE)  # waits itself if the first process's machine does not answer
            if told:
                self._end(f"error: {told}", None, 2)

    def _look_at_clock(self) -> None:
        while not self._left.wait(_LOOK_SECONDS):
            what, until = self._expected
            if time.monotonic() > until:
                late = (
                    f"{what} did not end within config.train.wait_seconds = {self._wait_seconds}: another process, or what "
                    "this one reads or writes, does not answer; look at the processes' output; the same command resumes"
                )
                self._end(f"error: {late}.", late, 2)

    def _end(self, printed: str, told: str | None, code: int) -> None:
        """Ends this process; `told` goes to the others."""
        if not self._ending.acquire(blocking=False):
            time.sleep(60)  # the other thread ends the process
        print(printed, file=sys.stderr, flush=True)
        if told:
            text = f"process {hosts.number()}: {told}"
            threading.Thread(target=hosts.publish, args=(_FAILURE, text), daemon=True).start()
        # until all have looked, because without this process collectives of others fail, and without the first one nobody
        # can look
        time.sleep((3 if hosts.number() else 6) * _LOOK_SECONDS)
        os._exit(code)  # the other thread may wait inside jax, where no exception reaches it
