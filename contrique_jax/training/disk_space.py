"""A disk that cannot take a checkpoint: foreseen if possible, else what Orbax says of it in one sentence."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrique_jax.errors import UserError, disk_message

if TYPE_CHECKING:
    from etils import epath

FULL = ("no space left", "quota exceeded", "file too large", "resource_exhausted", "disk quota")


def no_space(folder: Path, needed: int) -> UserError | None:
    """What to say if `folder` cannot take `needed` bytes more, because a save that fails half-way is loud."""
    try:
        _allocate(folder / ".space", needed)
    except OSError as error:
        if disk_message(error, str(folder)) is None:
            return None  # the save itself will tell
        return UserError(
            f"{folder}: a checkpoint needs {needed / 1e6:.0f} MB and there is no space for it ({error.strerror}); "
            "the earlier ones are untouched; free some space and run the same command again."
        )
    return None


def _allocate(trial: Path, needed: int) -> None:
    """Allocates a file for a moment: quotas and limits do not show in the free space. Where a file system cannot allocate
    ahead, looks at the free space. Raises OSError if there is too little.

    os.posix_fallocate would write every block there, over the network where that is where it lies.
    """
    allocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None) if sys.platform == "linux" else None
    try:
        with open(trial, "wb") as file:
            failed = allocate(file.fileno(), 0, ctypes.c_int64(0), ctypes.c_int64(needed)) if allocate else -1
            number = ctypes.get_errno() if allocate else errno.EOPNOTSUPP
    finally:
        trial.unlink(missing_ok=True)
    if failed and number in (errno.EOPNOTSUPP, errno.ENOSYS):
        failed, number = shutil.disk_usage(trial.parent).free < needed, errno.ENOSPC
    if failed:
        raise OSError(number, os.strerror(number))


class full_disk_as_user_error(AbstractContextManager[None]):
    """Context: the several ways in which Orbax reports a full disk -> one sentence."""

    def __init__(self, folder: Path | epath.Path):
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, TimeoutError):
            raise UserError(
                f"{self.folder}: a checkpoint was not written within config.train.wait_seconds; the "
                "earlier ones are untouched; run the same command again."
            ) from error
        if isinstance(error, Exception) and any(words in str(error).lower() for words in FULL):
            raise UserError(
                f"{self.folder}: no space left for a checkpoint; the earlier ones are untouched; "
                "free some space and run the same command again."
            ) from error
