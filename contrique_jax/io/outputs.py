"""Result files that appear whole or not at all, and the folder for what can be computed again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from contrique_jax.errors import UserError, disk_message


def output_path(flag: str, name: str, suffixes: tuple[str, ...]) -> Path:
    """The path that `flag` names, checked before any long work.

    Raises UserError for another suffix, a missing folder, a folder or a pipe in the file's place or one that cannot be written.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{flag}: {path} should end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise UserError(f"{flag}: {path} is a folder; name a file.")
    if path.exists() and not path.is_file():
        raise UserError(f"{flag}: {path} is there and no file (a pipe or a device); name a file.")
    if not path.parent.is_dir():
        raise UserError(f"{flag}: the folder {path.parent} does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag}: the folder {path.parent} cannot be written to; choose another.")
    return path


def mark() -> str:
    """What tells a temporary file from those of other threads and processes, here or on others with the same disk."""
    return f"{os.getpid()}.{secrets.token_hex(4)}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Context: a temporary path beside `path` to write to, renamed to it at the end, removed if anything goes wrong.

    Raises UserError if the disk is full, or if `path` is a folder.
    """
    temporary = path.with_name(f".{path.name}.{mark()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        sentence = disk_message(error, str(path))
        if path.is_dir():
            sentence = f"{path}: it is a folder, and a file is to be written there; move it away."
        if sentence:
            raise UserError(sentence) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Context: no other process of this machine is in it for the same folder; the lock goes with the process.

    Raises UserError if another one is. File systems without locks let everybody in.
    """
    if os.name == "nt":  # where no folder can be opened
        yield
        return
    try:
        place = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be opened ({error.strerror}); take another folder.") from error
    try:
        if not locked(place):
            raise UserError(f"{folder}: another process is writing to it; wait for it or take another folder.")
        yield
    finally:
        os.close(place)


def locked(place: int) -> bool:
    """Whether this process has the lock of an open file or folder from now on, until that is closed. File systems without
    locks, and Windows, give it to everybody."""
    try:
        import fcntl

        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def write_npz(path: Path, /, **arrays: np.ndarray) -> None:
    """Named arrays -> an uncompressed .npz without pickles, whole or not at all."""
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def user_cache(name: str) -> Path | None:
    """A folder of ours in the user's cache ($XDG_CACHE_HOME, else ~/.cache), or None if it is switched off
    (CONTRIQUE_CACHE=off) or cannot be made."""
    if os.environ.get("CONTRIQUE_CACHE", "").lower() in ("off", "0", "no"):
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "contrique_jax" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None
