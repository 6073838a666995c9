"""A run's folder: of this machine, or an address in a bucket."""

from __future__ import annotations

import shutil
import sys
import tempfile
import weakref
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.regular import read_bytes
from contrique_jax.networks.description import DESCRIPTION

if TYPE_CHECKING:
    from etils import epath

BROKEN = "broken_images*.txt"  # a list a process


class Workdir:
    """Where a run writes.

    `folder` is a local folder in any case. Where `name` is an address, it is a temporary one: `fetch` brings what a resumed
    run needs, `publish` copies up what has changed. Checkpoints go to the address directly, through Orbax.
    """

    def __init__(self, name: Path | str):
        """`name`: a path, or an address that `buckets.check_address` has passed."""
        self.name = str(name)
        self._remote = buckets.is_address(self.name)
        self.folder = Path(tempfile.mkdtemp(prefix="contrique_jax.")) if self._remote else Path(name)
        if self._remote:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._known: dict[str, tuple[int, int]] = {}  # name -> size and time of the copy that is up there

    @property
    def checkpoints(self) -> Path | epath.Path:
        return buckets.orbax_path(f"{self.name}/checkpoints") if self._remote else self.folder / "checkpoints"

    def fetch(self) -> None:
        """Brings the config, the metrics and the names of broken images; makes empty folders of checkpoints and of a
        finished model that are there. Raises UserError if the address cannot be read."""
        if not self._remote:
            return
        for name in buckets.names(self.name):
            top, _, below = name.partition("/")
            if not below and Path(name).suffix in (".json", ".jsonl", ".txt"):
                data = buckets.read(f"{self.name}/{name}")
                if data is not None:
                    (self.folder / name).write_bytes(data)
                    self._known[name] = self._stamp(name)
            elif top == "checkpoints" or name == f"model/{DESCRIPTION}":
                (self.folder / top).mkdir(exist_ok=True)

    def publish(self, *, required: bool = False) -> None:
        """Copies up each file that has changed here, whole. Where that fails: with `required` raises UserError, without warns
        and leaves it to the next call."""
        if not self._remote:
            return
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        # a model's description last: with it the model is finished
        found = sorted(
            (path.name == DESCRIPTION, path.as_posix())
            for path in paths
            if not any(part[0] == "." for part in path.parts)
        )
        try:
            for _, name in found:
                stamp = self._stamp(name)
                if self._known.get(name) != stamp:
                    buckets.write(self.folder / name, f"{self.name}/{name}")
                    self._known[name] = stamp
        except UserError as error:
            if required:
                raise
            print(f"warning: not copied yet: {error}", file=sys.stderr)

    def has_checkpoint(self) -> bool:
        """Whether a checkpoint is there that a run may go on from. Orbax renames one when it is whole; in a bucket, where
        nothing can be renamed, it adds a file."""
        if self._remote:
            return any(fnmatch(name, "checkpoints/[0-9]*/commit_success.txt") for name in buckets.names(self.name))
        return self.checkpoints.is_dir() and any(child.name.isdigit() for child in self.checkpoints.iterdir())

    def has_model(self) -> bool:
        """Whether the finished model is there: its description, which comes last, or of a bucket what `fetch` made of it."""
        place = self.folder / "model"
        return (place / DESCRIPTION).is_file() or (self._remote and place.is_dir())

    def broken_images(self) -> dict[str, str]:
        """Each line of the run's lists of broken images, of all processes that ever wrote one -> the list's name."""
        if self._remote:
            lists = [name for name in buckets.names(self.name) if fnmatch(name, BROKEN)]
            texts = {name: buckets.read(f"{self.name}/{name}") or b"" for name in lists}
        else:
            texts = {path.name: read_bytes(path) for path in self.folder.glob(BROKEN)}
        lines = ((line, name) for name, text in sorted(texts.items()) for line in text.splitlines())
        return {line.decode(errors="surrogateescape"): name for line, name in lines}

    def _stamp(self, name: str) -> tuple[int, int]:
        status = (self.folder / name).stat()
        return status.st_size, status.st_mtime_ns
