"""Files of the user's, opened only if they are files: a pipe, socket or device would be waited for, or read for ever.

What a disk or a server does not give, nobody can give up waiting for without losing it; so it is named while it is waited for.
"""

from __future__ import annotations

import functools
import io
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip
PATIENCE_SECONDS = 30.0  # until what is waited for is named; then again after twice as long each time
LOOK_SECONDS = 1.0


class NotRegular(OSError):
    """A path that is there and no regular file; `strerror` says what it is."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """The file at `path`, or at the end of its links, for reading bytes. Raises OSError, and NotRegular if it is
    no regular file."""
    with waiting_for(path):
        _check(os.stat(path), path)  # opening a device may do something
        # a pipe that took the file's place meanwhile would else be waited for here
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(number), path)
    except OSError:
        os.close(number)
        raise
    return io.BufferedReader(_Watched(number, path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Raises OSError, NotRegular if it is no regular file."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """UTF-8. Raises OSError, NotRegular if it is no regular file, and UnicodeDecodeError."""
    return read_bytes(path).decode("utf-8")


@contextmanager
def waiting_for(path: str | os.PathLike[str]) -> Iterator[None]:
    """Context: what is waited for here longer than PATIENCE_SECONDS is named on stderr."""
    place = threading.get_ident()
    before = _waited_for.get(place)
    _waited_for[place] = (os.fspath(path), time.monotonic())
    _watch()
    try:
        yield
    finally:
        if before is None:
            del _waited_for[place]
        else:
            _waited_for[place] = before


class _Watched(io.FileIO):
    """An open file, named while a read of it does not come back."""

    def __init__(self, number: int, path: str | os.PathLike[str]):
        super().__init__(number, "rb")
        self.path = path

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        with waiting_for(self.path):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with waiting_for(self.path):
            return super().readall()


_waited_for: dict[int, tuple[str, float]] = {}  # thread -> what it waits for, since when


@functools.cache
def _watch() -> None:
    """Starts the thread that looks, once a process."""
    threading.Thread(target=_look, name="named while waited for", daemon=True).start()


def _look() -> None:
    said: dict[tuple[int, str, float], float] = {}  # seconds after which it is said again
    while True:
        time.sleep(LOOK_SECONDS)
        found = {(thread, *waits) for thread, waits in list(_waited_for.items())}
        said = {each: after for each, after in said.items() if each in found}
        for each in found:
            seconds = time.monotonic() - each[2]
            if seconds >= said.get(each, PATIENCE_SECONDS):
                said[each] = 2 * seconds
                name = each[1].encode(errors="backslashreplace").decode()
                print(f"still waiting for {name} after {seconds:.0f} s", file=sys.stderr, flush=True)


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = next((name for test, name in KINDS if test(status.st_mode)), "something else")
        raise NotRegular(0, f"it is {found}, not a file", str(Path(path)))
