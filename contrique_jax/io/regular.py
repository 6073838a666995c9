"""Files of the user's, opened only if they are files: a pipe, socket or device would be waited for, or read for ever."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class NotRegular(OSError):
    """A path that is there and no regular file; `strerror` says what it is."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """The file at `path`, or at the end of its links, for reading bytes. Raises OSError, and NotRegular if it is
    no regular file."""
    _check(os.stat(path), path)  # opening a device may do something
    # a pipe that took the file's place meanwhile would else be waited for here
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check(os.fstat(number), path)
    except OSError:
        os.close(number)
        raise
    return open(number, "rb")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Raises OSError, NotRegular if it is no regular file."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str]) -> str:
    """UTF-8. Raises OSError, NotRegular if it is no regular file, and UnicodeDecodeError."""
    return read_bytes(path).decode("utf-8")


def _check(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = next((name for test, name in KINDS if test(status.st_mode)), "something else")
        raise NotRegular(0, f"it is {found}, not a file", str(Path(path)))
