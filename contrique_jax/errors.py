"""User errors and exit codes: one plain sentence and code 2 for what the user gave wrong, never a traceback."""

from __future__ import annotations

import argparse
import errno
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from contrique_jax.signals import Signals, Terminated

LONGEST = 3000  # letters of a message
# control characters; marks without width and those that turn the direction of writing; separators of lines
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_FOREIGN = {
    getattr(errno, name, None)
    for name in (
        "ENOENT", "EEXIST", "EIO", "EREMOTEIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENODEV",
        "ENXIO", "EBUSY", "ELOOP", "ENAMETOOLONG", "ENOTDIR", "EISDIR", "EMFILE", "ENFILE",
    )
}  # fmt: skip
PIPE_CLOSED = 141  # what shells report for a command that SIGPIPE ended


def printable(text: str) -> str:
    """Text of a file or of its name as a terminal may be given it: on one line, what would move the cursor, colour the screen
    or turn the direction of writing as its code (\\x1b), and what is very long without its middle."""
    shown = _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2]} [...] {shown[-LONGEST // 2 :]}"


class UserError(Exception):
    """A mistake a user can fix. The message is one plain sentence naming the file or field and what to do; it is made
    `printable`."""

    def __init__(self, message: str):
        super().__init__(printable(message))


class BrokenImage(UserError):
    """One image that cannot be read. Batches and training runs count and name it, and go on."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


class SomeUnread(Exception):
    """All is done and said, but images asked for by name could not be read: exit code 1."""


def counted(number: int, what: str) -> str:
    """A number of things, such as "1 image" and "2 images"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def none_read(number: int, first: object) -> UserError:
    """What to raise if all of so many images are broken, `first` being what is wrong with the first."""
    if number == 1:
        return UserError(f"the only image could not be read: {first}.")
    return UserError(f"none of the {number} images could be read; the first is {first}.")


def disk_message(error: OSError, path: str) -> str | None:
    """The sentence for a full disk or a quota, or None if `error` is something else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{path}: no space left to write ({error.strerror}); free some space and run the same command again."
    return None


def permission_message(error: OSError) -> str | None:
    """The sentence for a path that may not be read or written, or None if `error` is something else."""
    if error.filename and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{os.fsdecode(error.filename)}: no permission ({error.strerror}); change its permissions or name another path."
    return None


def foreign_message(error: OSError) -> str | None:
    """The sentence for a path that has gone or is no file's, for links without end and for a disk or a server that fails; None
    if `error` is something else."""
    if error.filename and error.strerror and (not error.errno or error.errno in _FOREIGN):
        return f"{os.fsdecode(error.filename)}: {error.strerror}; mend that or name another path."
    return None


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are UserErrors, one sentence like all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}; see `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found = super().parse_known_args(_files_after_dashes(args), namespace)
        for action in self._actions:  # `--out "$OUT"` of a script in which that is not set
            if action.option_strings and "" in _as_list(getattr(found[0], action.dest, None)):
                self.error(f"{action.option_strings[-1]}: it is empty; give a value or leave it out")
        return found

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_intermixed_args(_files_after_dashes(args), namespace)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _files_after_dashes(args: Sequence[str] | None) -> list[str]:
    """What stands behind `--` is a file whatever it begins with, for options of several values too: argparse gets it as
    `./-name`, which is the same file."""
    given = list(sys.argv[1:] if args is None else args)
    if "--" not in given:
        return given
    at = given.index("--")
    return given[:at] + [f"./{name}" if name.startswith("-") and name != "-" else name for name in given[at + 1 :]]


def run_verb(verb: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code (docs/exit_codes.md): 0, 1 if images asked for by name could not be read, 2
    for a user's mistake, 130 for Ctrl-C, 143 for SIGTERM, 141 if whoever read the output has gone (`| head`). Other errors
    propagate."""
    _open_closed()
    with _without_chatter(), Signals() as signals:
        code = 1
        try:
            try:
                code = _code(verb, sys.argv[1:] if argv is None else argv)
            except SystemExit as end:  # --help
                code = end.code if isinstance(end.code, int) else code
                _flush()
                raise
            _flush()
        except BrokenPipeError:
            if not _reader_gone():
                raise
            code = PIPE_CLOSED
        finally:
            signals.leave(code)
        return code


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Context: libraries keep to themselves what a user can do nothing about; it would bury the one sentence that counts.

    Python's warnings (`python -W default` shows them), and what XLA and TensorFlow print of what they do
    (TF_CPP_MIN_LOG_LEVEL=0 shows it)."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":  # which is what jax sets
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def _open_closed() -> None:
    """Whoever closed one of the three streams, as a service may, wants to read or write nothing there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (it stays open)


def _flush() -> None:
    """Writes the rest of stdout, as long as a reader that has gone can be told. Raises BrokenPipeError."""
    try:
        print(end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError:  # Python tries again at exit, and says why it cannot
        pass


def _reader_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads; if so what is still to be written to it is dropped."""
    gone = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                continue
        except OSError:  # no file
            continue
        gone = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python complains when it flushes at exit
        os.close(nowhere)
    return gone


def _code(verb: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    try:
        verb(argv)
    except SomeUnread:
        return 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        sentence = disk_message(error, str(error.filename or "output")) or permission_message(error)
        sentence = sentence or foreign_message(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except MemoryError as error:
        why = str(error).rstrip(".") or "it was asked for more than there is"
        print(printable(f"error: memory does not suffice ({why}); ask for less."), file=sys.stderr)
        return 2
    except RuntimeError as error:
        if "home directory" not in str(error):  # of Path.expanduser
            raise
        print("error: a path begins with ~ and a name that is no user of this machine; write it out.", file=sys.stderr)
        return 2
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
