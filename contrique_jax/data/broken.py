"""Images that cannot be read: counted, named, and replaced by the next that can."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from contrique_jax.data.sources import Source
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.io.regular import read_bytes

TRIES = 100  # broken images in a row before the source as a whole is called broken


class BrokenLog:
    """Counts and names the images that could not be read, each once; safe to call from many threads."""

    def __init__(self, path: str | os.PathLike[str] | None = None, quiet: bool = False):
        """`path`: a text file that gets a line for each, or None; while its folder does not exist lines wait for `write`.
        `quiet`: nothing on stderr."""
        self._path, self._quiet = path, quiet
        self._lock = threading.Lock()
        self._lines: set[str] = set()
        self._waiting: list[str] = []
        if path is not None and os.path.exists(path):  # what an interrupted run has named
            text = read_bytes(path).decode(errors="surrogateescape")
            self._lines = {line for line in text.split("\n") if line}

    @property
    def count(self) -> int:
        return len(self._lines)

    def add(self, broken: BrokenImage) -> None:
        with self._lock:
            line = " ".join(str(broken).split("\n"))
            if line in self._lines:
                return
            self._lines.add(line)
            if not self._quiet and self.count <= 10:
                more = " (further ones are only counted)" if self.count == 10 and self._path is None else ""
                print(f"warning: skipped a broken image: {broken}{more}", file=sys.stderr)
            self._waiting.append(line)
            self._write()

    def write(self) -> None:
        """Writes down what was named before the file's folder was there."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._path is not None and self._waiting and os.path.isdir(os.path.dirname(self._path) or "."):
            with open(self._path, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in self._waiting)
            self._waiting.clear()


def load(source: Source, record: int, broken: BrokenLog, read: Callable[[int], Any] | None = None) -> tuple[Any, int]:
    """The images of a record, uint8 [k, h, w, 3], or in place of a broken one of the next that can be read, and which record
    was read. `read`: what to do with a record in place of `source.load`."""
    for offset in range(min(TRIES, len(source))):
        number = (record + offset) % len(source)
        try:
            return (read or source.load)(number), number
        except BrokenImage as error:
            broken.add(error)
            last = error
    raise UserError(f"{source.name}: {min(TRIES, len(source))} images in a row cannot be read, the last is {last}")
