"""What the exit codes say, and how a command ends whose reader has gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from contrique_jax.errors import BrokenImage, Parser, UserError, printable, run_verb

VERBS = {
    "at exit": "print('few')",
    "while it prints": "[print('much ' * 100) for _ in range(1000)]",
    "in its help": "Parser(prog='x', description='long').parse_args(['--help'])",
}


@pytest.mark.parametrize(
    ("verb", "unbuffered"),
    [
        ("at exit", False),
        ("at exit", True),
        ("while it prints", False),
        ("while it prints", True),
        ("in its help", False),  # argparse itself ignores it if nothing is buffered
    ],
)
def test_a_reader_that_has_gone_ends_a_command_quietly(verb, unbuffered, monkeypatch):
    code = f"import sys; from contrique_jax.errors import *; sys.exit(run_verb(lambda _: {VERBS[verb]}, []))"
    monkeypatch.setenv("PYTHONUNBUFFERED", "1" if unbuffered else "")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_other_broken_pipes_are_errors_of_the_program():
    def verb(_):
        raise BrokenPipeError("a server hung up")

    with pytest.raises(BrokenPipeError):
        run_verb(verb, [])


def test_what_stands_behind_two_dashes_is_a_file():
    parser = Parser(prog="x")
    parser.add_argument("--flag")
    parser.add_argument("--images", nargs="+")
    parser.add_argument("paths", nargs="*")
    for parse in (parser.parse_args, parser.parse_intermixed_args):
        found = parse(["--flag", "v", "--", "-a.png", "b.png", "--help", "-"])
        assert [str(Path(path)) for path in found.paths] == ["-a.png", "b.png", "--help", "-"]
    assert [str(Path(path)) for path in parser.parse_args(["--images", "--", "-a.png"]).images] == ["-a.png"]


def test_an_option_without_a_value_is_named(capsys):
    """As a script gives it in which a variable is not set."""
    parser = Parser(prog="x")
    parser.add_argument("--out")
    parser.add_argument("--more", nargs="+", default=[])
    parser.add_argument("paths", nargs="*")
    for line in (["a", "--out", ""], ["--out="], ["--more", "a", ""]):
        for parse in (parser.parse_args, parser.parse_intermixed_args):
            assert run_verb(lambda line, parse=parse: parse(line), line) == 2
            assert re.match(r"error: x: --(out|more): it is empty; give a value", capsys.readouterr().err)


def test_memory_that_does_not_suffice_is_one_sentence(capsys):
    def verb(_):
        raise MemoryError("Unable to allocate 9 TiB")

    assert run_verb(verb, []) == 2
    assert capsys.readouterr().err == "error: memory does not suffice (Unable to allocate 9 TiB); ask for less.\n"


def test_warnings_of_libraries_are_not_shown_by_commands(capsys):
    assert run_verb(lambda _: warnings.warn("chatter", stacklevel=1), []) == 0
    assert capsys.readouterr().err == ""


def test_messages_hold_nothing_that_a_terminal_would_obey():
    """Names of files and fields of tables are in them."""
    assert str(UserError("a\x1b[2Jb\nc\u202ed\x9b")) == r"a\x1b[2Jb\nc\u202ed\x9b"
    assert str(BrokenImage("\r.png", "cut off")) == r"\r.png: cut off"
    assert printable("é 写真 \ud800 'x'.") == "é 写真 \ud800 'x'."
    long = printable("x" * 10**6 + "end")
    assert len(long) < 3100 and long.startswith("xxx") and long.endswith("end") and " [...] " in long


def test_a_path_of_an_unknown_user_is_one_sentence(capsys):
    assert run_verb(lambda _: Path("~no-such-user/x").expanduser(), []) == 2
    assert "begins with ~" in capsys.readouterr().err


def test_a_stream_that_whoever_started_us_has_closed_is_no_fault():
    """As services do; a file that is opened then must not take its number, or libraries would write into it."""
    code = (
        "import os, sys; from contrique_jax.errors import run_verb\n"
        "def verb(_): print('x'); sys.stderr.write('x'); assert sys.stdin.read() == '' and os.open('/dev/null', 0) > 2\n"
        "sys.exit(run_verb(verb, []))"
    )
    asked = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "-", sys.executable, "-c", code]
    assert subprocess.run(asked, timeout=60).returncode == 0
