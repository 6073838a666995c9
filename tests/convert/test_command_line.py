"""What `contrique-jax convert` says before any conversion."""

from __future__ import annotations

import subprocess
import sys

from contrique_jax.convert.__main__ import SUBVERBS, main
from contrique_jax.errors import run_verb


def test_the_command_line_names_its_sub_verbs(capsys):
    assert run_verb(main, []) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SUBVERBS) and "Example:" in said
    assert run_verb(main, ["from-keras"]) == 2 and "from-keras" in capsys.readouterr().err


def test_torch_is_imported_only_when_it_is_needed_and_missed_in_one_sentence(tmp_path):
    (tmp_path / "in.pth").write_bytes(b"")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from contrique_jax.cli import main; from contrique_jax.errors import run_verb\n"
        f"sys.exit(run_verb(main, ['convert', 'from-torch', {str(tmp_path / 'in.pth')!r}, 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install torch" in done.stderr and done.stderr.count("\n") == 1
