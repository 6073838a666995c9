"""Results kept beside as they come."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.io import parts as module
from contrique_jax.io.parts import Parts, file_key, fingerprint, packed, unpacked

ABOUT = {"command": "score", "model": "abc"}


@pytest.fixture
def begun(tmp_path, capsys):
    """The path of a file whose work ended after two results."""
    with pytest.raises(KeyboardInterrupt), Parts(tmp_path / "s.csv", ABOUT) as parts:
        parts.add("a", {"score": 0.1})
        parts.add("b\udce9", {"score": None, "why": [["blur", 2.0]]})
        raise KeyboardInterrupt
    assert "s.csv.partial: 2 results so far are kept" in capsys.readouterr().err
    return tmp_path / "s.csv"


def test_the_same_work_goes_on_and_the_partial_file_goes_at_its_end(begun):
    (begun.parent / ".s.csv.17.part").write_bytes(b"what a killed process leaves")
    with Parts(begun, ABOUT) as parts:
        assert len(parts) == 2 and parts.get("b\udce9") == {"score": None, "why": [["blur", 2.0]]}
        parts.add("c", {"features": packed(np.array([1 / 3, np.pi], np.float32))})
        assert parts.get("a") == {"score": 0.1}
        np.testing.assert_array_equal(unpacked(parts.get("c")["features"]), np.array([1 / 3, np.pi], np.float32))
    assert not list(begun.parent.iterdir())


@pytest.mark.parametrize("lost", range(0, 60, 7))
def test_a_line_that_was_cut_off_is_done_again(begun, lost):
    partial = begun.with_name("s.csv.partial")
    whole = partial.read_bytes()
    partial.write_bytes(whole[: len(whole) - lost])
    with pytest.raises(KeyboardInterrupt), Parts(begun, ABOUT) as parts:
        assert len(parts) == (2 if not lost else 1) and parts.get("a") == {"score": 0.1}
        if lost:
            parts.add("b\udce9", {"score": None, "why": [["blur", 2.0]]})
        raise KeyboardInterrupt
    assert partial.read_bytes() == whole


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "it was begun with model 'abc', this is 'other'; run the command"),
        (b"path,score\n", "something else than results"),
        (b'{"about": 3}\n', "something else than results"),
    ],
)
def test_other_work_is_told_from_it(begun, content, says):
    if content:
        begun.with_name("s.csv.partial").write_bytes(content)
    before = begun.with_name("s.csv.partial").read_bytes()
    with pytest.raises(UserError, match=says), Parts(begun, ABOUT | {"model": "other"}):
        pass
    assert begun.with_name("s.csv.partial").read_bytes() == before


def test_two_at_work_on_one_file(begun):
    with Parts(begun, ABOUT), pytest.raises(UserError, match="another process is at work"):
        Parts(begun, ABOUT)


def test_a_full_disk_is_one_sentence_and_loses_nothing(begun, monkeypatch, capsys):
    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            self.file.write(data[:5])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

    before = begun.with_name("s.csv.partial").read_bytes()
    with pytest.raises(UserError, match="no space left"), Parts(begun, ABOUT) as parts:
        parts._file = Full(parts._file)
        parts.add("c", {})
    assert begun.with_name("s.csv.partial").read_bytes() == before


def test_files_are_known_by_their_state_and_values_by_what_they_are(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"1")
    first = file_key(file)
    file.write_bytes(b"12")
    assert file_key(file) != first and file_key(tmp_path / "absent") == f"{tmp_path / 'absent'}||"
    values = [{"a": np.arange(3)}, {"a": np.arange(3.0)}, {"a": [0, 1, 2]}, {"b": np.arange(3)}, {"a": None}]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) and module.FORM == 1
