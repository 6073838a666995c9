"""Configs inside the package, found by name from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from contrique_jax.configs import main
from contrique_jax.errors import UserError, run_verb
from contrique_jax.training.config_files import FOLDER, by_name, shipped
from contrique_jax.training.flags import parse_flags

ROOT = Path(__file__).parents[2]


def test_they_are_those_of_the_repository_and_go_into_the_wheel():
    assert set(shipped()) == {path.name for path in (ROOT / "configs").glob("*.py")}
    assert "config_files/*.py" in (ROOT / "setup.cfg").read_text()


@pytest.mark.parametrize(
    "name", ["contrique_resnet50.py:small", "contrique_resnet50:small", "configs/contrique_resnet50.py:small"]
)
def test_a_name_is_enough_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert by_name(name) == f"{FOLDER}/contrique_resnet50.py:small"
    for flags in ([f"--config={name}"], ["--config", name]):
        config = parse_flags([*flags, "--workdir=w", "--config.data.batch_size=12"]).config
        assert config.model.encoder == "resnet18" and config.data.batch_size == 12


def test_a_file_that_is_there_comes_first_and_what_is_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no file mine.py, and inside this package there are ahiq.py, arniqa.py"):
        by_name("mine.py")
    (tmp_path / "demo.py").write_text("")
    assert by_name("demo.py:x") == "demo.py:x" and by_name("/absent/demo.py") == "/absent/demo.py"


def test_the_command_lists_shows_and_copies(tmp_path, capsys):
    main([])
    said = capsys.readouterr().out
    assert all(name in said for name in shipped())
    main(["arniqa.py"])
    assert ":lite0" in capsys.readouterr().out
    main(["--copy", str(tmp_path / "mine"), "arniqa.py"])
    assert (tmp_path / "mine" / "arniqa.py").read_bytes() == shipped()["arniqa.py"].read_bytes()
    assert run_verb(main, ["--copy", str(tmp_path / "mine")]) == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["arniqa.py"]
    assert "is there already" in capsys.readouterr().err
