"""Traced functions that are kept between processes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.inference.programs import Programs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "on")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "contrique_jax" / "programs"


def doubled(traced, about="model 1", name="twice", shape=(3,)):
    """The function's value by new `Programs`; `traced` grows if Python runs it."""

    def function(tree, x):
        traced.append(1)
        return tree["w"] * x

    arguments = ({"w": np.float32(2)}, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    found = Programs(about).get(name, function, arguments)(*arguments)
    np.testing.assert_array_equal(found, 2 * arguments[1])
    return len(traced)


def test_a_function_is_traced_once_for_all_processes_and_again_for_another(folder):
    traced = []
    assert doubled(traced) == 1 and doubled(traced) == 1
    for i, other in enumerate([{"about": "model 2"}, {"name": "other"}, {"shape": (4,)}], start=2):
        assert doubled(traced, **other) == i and doubled(traced, **other) == i
    assert len(list(folder.iterdir())) == 4
    assert doubled([], about="") == 1 and len(list(folder.iterdir())) == 4  # nothing known of it, nothing kept


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:200] + b"x" + data[201:]]
)
def test_a_file_that_is_not_what_was_written_is_made_again(folder, damage):
    doubled([])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert doubled([]) == 1 and len(file.read_bytes()) == len(whole)
    other = folder / "other"
    doubled([], about="model 2")
    (second,) = (each for each in folder.iterdir() if each != file)
    second.rename(other)
    file.write_bytes(other.read_bytes())  # another program under this name
    assert doubled([]) == 1


def test_one_program_serves_all_calls_with_its_shapes(folder):
    programs = Programs("")
    first = programs.get("f", lambda x: x + 1, (jnp.zeros(3),))
    assert programs.get("f", lambda x: x + 1, (np.ones(3, np.float32),)) is first and len(programs) == 1
    with pytest.raises(ZeroDivisionError):
        programs.get("g", lambda x: 1 / 0, (jnp.zeros(3),))
    assert len(programs) == 1
