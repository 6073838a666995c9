"""Where results lie: a folder, or an address in a bucket; of either, files that appear whole."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from contrique_jax.errors import UserError, disk_message
from contrique_jax.io import buckets
from contrique_jax.io.outputs import atomic_write, only_writer
from contrique_jax.io.regular import read_bytes

PLAN, DONE = FOLDERS = "plan", "done"  # folders in it
# what `atomic_write` leaves of a process that was killed; others' files may lie here too
CUT_OFF = re.compile(
    r"\.(bulk\.json|((scores|broken|features)-)?\d+\.(json|csv|parquet|npz))\.\d+(\.[0-9a-f]{8})?\.part"
)


class Place:
    """Named files, `/` between folders."""

    def __init__(self, where: str):
        """Raises UserError for an address that is none."""
        self._remote = buckets.is_address(where)
        self.where = buckets.check_address(where, "--out") if self._remote else str(Path(where).expanduser())

    def __str__(self) -> str:
        return self.where

    def name(self, file: str) -> str:
        """What messages call one of its files."""
        return f"{self.where}/{file}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context: the folder is there, and no other command of this machine is at work in it; what killed ones had begun is
        gone. Buckets let everybody in. Raises UserError."""
        with nullcontext() if self._remote else self._locked():
            yield

    @contextmanager
    def _locked(self) -> Iterator[None]:
        root = Path(self.where)
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = (
                disk_message(error, self.where)
                or f"--out: {self.where}: no folder can be made there ({error.strerror})."
            )
            raise UserError(why) from error
        if not os.access(root, os.W_OK):
            raise UserError(f"--out: the folder {root} cannot be written to; choose another.")
        with only_writer(root):
            _sweep(root)
            yield
            _sweep(root)  # after workers that were killed

    def names(self, folder: str = "") -> list[str]:
        """The names of files in one of its folders, sorted; none if it is not there."""
        if self._remote:
            found = buckets.names(f"{self.where}/{folder}".rstrip("/"))
            return [name for name in found if "/" not in name]
        try:
            entries = os.scandir(os.path.join(self.where, folder))
        except FileNotFoundError:
            return []
        with entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))

    def read(self, file: str) -> bytes | None:
        """None if there is none. Raises UserError and OSError."""
        if self._remote:
            return buckets.read(self.name(file))
        try:
            return read_bytes(self.name(file))
        except FileNotFoundError:
            return None

    @contextmanager
    def write(self, file: str) -> Iterator[Path]:
        """Context: a path to write to; what is there at the end becomes the file. Raises UserError if the disk is full."""
        if self._remote:
            with tempfile.TemporaryDirectory() as folder:
                beside = Path(folder, "file")
                yield beside
                buckets.write(beside, self.name(file))
            return
        path = Path(self.name(file))
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            yield temporary

    def write_text(self, file: str, text: str) -> None:
        with self.write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _sweep(root: Path) -> None:
    for folder in (root, *(root / name for name in FOLDERS)):
        for path in folder.glob(".*.part"):
            if CUT_OFF.fullmatch(path.name):
                path.unlink(missing_ok=True)
