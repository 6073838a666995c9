"""Results of long work, kept beside the file that was asked for as they come: FILE.partial, a line of JSON each.

The first line says what the results depend on. Whatever ends the work, the same command goes on from there; at the end the
caller writes the file itself and the partial one goes away.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import glob
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from contrique_jax.errors import UserError, counted, disk_message
from contrique_jax.io.outputs import locked
from contrique_jax.io.regular import open_regular

FORM = 1  # of the file


class Parts:
    """A context: what is known so far by key, and where the rest is added.

    `about` is compared with that of a partial file that is there already. Raises UserError if they differ, if the file is no
    partial one or cannot be written, and while another process is at work on it.
    """

    def __init__(self, out: Path, about: Mapping[str, Any]):
        self.path = out.with_name(f"{out.name}.partial")
        self._places: dict[str, tuple[int, int]] = {}
        self._about = {"form": FORM, **json.loads(json.dumps(about))}
        try:
            if self.path.exists():
                open_regular(self.path).close()
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (it stays open)
        except OSError as error:
            raise UserError(f"{self.path}: it cannot be written ({error.strerror}); choose another place.") from error
        try:
            if not locked(self._file.fileno()):
                raise UserError(f"{self.path}: another process is at work on it; wait for it, or name another file.")
            for cut_off in out.parent.glob(f".{glob.escape(out.name)}.*.part"):  # of a process that was killed
                cut_off.unlink(missing_ok=True)
            self._end = self._read()
            self._file.truncate(self._end)  # a line that was cut off
            if not self._end:
                self._write(self._about)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any]:
        """The record that was added as `key`."""
        place, length = self._places[key]
        self._file.seek(place)
        record: dict[str, Any] = json.loads(self._file.read(length))["record"]
        return record

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keeps a record, which JSON can express. Raises UserError if the disk is full."""
        place = self._end
        self._write({"key": key, "record": record})
        self._places[key] = (place, self._end - place)

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not self._places:
            self.path.unlink(missing_ok=True)
        else:
            print(
                f"{self.path}: {counted(len(self), 'result')} so far {'are' if len(self) > 1 else 'is'} kept; the same command "
                "goes on from there",
                file=sys.stderr,
            )
        self._file.close()

    def _read(self) -> int:
        """Finds the records -> where the last whole one ends."""
        self._file.seek(0)
        with open(self.path, "rb") as stream:
            first = stream.readline()
            if not first.endswith(b"\n"):
                return 0
            self._check(first)
            end = stream.tell()
            for line in stream:
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict) or not isinstance(record.get("key"), str) or "record" not in record:
                    break
                self._places[record["key"]] = (end, len(line))
                end += len(line)
        return end

    def _check(self, first: bytes) -> None:
        try:
            found = dict(json.loads(first)["about"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self.path}: it holds something else than results so far; move it away.") from error
        check_same(self.path, found, self._about, "run the command that began it, or delete it to start anew")

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps({"about": record} if record is self._about else record).encode() + b"\n"
        done = 0
        try:
            while done < len(line):
                done += self._file.write(line[done:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):  # the next start cuts it off
                self._file.truncate(self._end)
            sentence = disk_message(error, str(self.path))
            raise UserError(sentence or f"{self.path}: it cannot be written ({error.strerror}).") from error
        self._end += len(line)


def check_same(path: object, found: Mapping[str, Any], about: Mapping[str, Any], otherwise: str) -> None:
    """Raises UserError, naming the first field that differs, if the results at `path` depend on other things than `about`;
    `otherwise`: what to do then."""
    for name in sorted(found.keys() | about.keys()):
        was, now = found.get(name), about.get(name)
        if was != now:
            raise UserError(f"{path}: it was begun with {name} {was!r:.60}, this is {now!r:.60}; {otherwise}.")


def file_key(path: Path) -> str:
    """Names a file as it is now: by its path, size and time of change."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return f"{path}||"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def packed(values: np.ndarray) -> str:
    """Numbers as float32, for a record."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def fingerprint(value: Any) -> str:
    """Sixteen hexadecimal digits that name a value made of dataclasses, containers, arrays and plain things."""
    digest = hashlib.sha256()

    def feed(part: Any) -> None:
        if dataclasses.is_dataclass(part):
            part = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        if isinstance(part, Mapping):
            part = sorted(part.items())
        if isinstance(part, list | tuple):
            digest.update(f"[{len(part)}".encode())
            for each in part:
                feed(each)
        elif isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode() + b";")

    feed(value)
    return digest.hexdigest()[:16]
