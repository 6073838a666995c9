"""What a user sees when something they gave us is wrong: one plain sentence, exit code 2, never a traceback."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class UserError(Exception):
    """A mistake a user can mend. The message is one plain sentence naming the file or field and what to do."""


class BrokenImage(UserError):
    """One image that cannot be read. Batches and training runs count and name it, and go on."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


def disk_message(error: OSError, path: str) -> str | None:
    """The sentence for a full disk or a quota, or None where `error` is something else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{path}: no space left to write ({error.strerror}); free some space and run the same command again."
    return None


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors, one sentence like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see `{self.prog} --help`.")


def run_verb(verb: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 for a user's mistake, 130 for Ctrl-C. Other errors propagate."""
    try:
        verb(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        sentence = disk_message(error, str(error.filename or "output"))
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
