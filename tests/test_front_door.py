"""What a stranger meets first: an installation without optional packages, and --help."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contrique_jax.cli import VERBS
from contrique_jax.convert.__main__ import SUBVERBS

ROOT = Path(__file__).parents[1]
OPTIONAL = [
    "torch", "onnx", "onnxruntime", "sklearn", "skops", "tensorflow", "tensorflow_datasets", "openpyxl", "joblib", "yaml",
    "google_crc32c", "libtpu", "timm", "efficientnet_lite_pytorch", "pillow_heif",
    "av", "playwright", "axe_playwright_python", "apache_beam", "pyarrow",
]  # fmt: skip
# flax and Orbax import some of these themselves, so that they come before the others are hidden
COLLECT = f"""
import sys
import flax.nnx, orbax.checkpoint, pytest
from importlib.machinery import PathFinder
hidden, find = {OPTIONAL}, PathFinder.find_spec
for module in [module for module in sys.modules if module.split(".")[0] in hidden]:
    del sys.modules[module]
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in hidden else find(name, *rest)
sys.exit(pytest.main(["--collect-only", "--quiet", "-p", "no:cacheprovider", "tests"]))
"""


@pytest.mark.slow  # `make test` in a bare environment is the same proof
def test_every_test_module_imports_or_skips_without_optional_packages():
    done = subprocess.run([sys.executable, "-c", COLLECT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    skipped = re.findall(r"^SKIPPED \[\d+\] (\S+?):\d+: (.+)", done.stdout, re.M)
    for path, reason in skipped:
        assert any(repr(name) in reason or f"'{name}." in reason for name in OPTIONAL), (path, reason)
    collected = set(re.findall(r"^(\S+\.py)", done.stdout, re.M)) | {path for path, _ in skipped}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    assert modules - collected == set()


def test_every_package_that_is_imported_is_declared():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = "\n".join([setup["options"]["install_requires"], *setup["options.extras_require"].values()])
    declared = {name.lower().replace("_", "-") for name in re.findall(r"^\s*([\w-]+)", lines, re.M)}
    providers = importlib.metadata.packages_distributions()
    own = {"contrique_jax", "tests", *(path.stem for path in ROOT.rglob("tests/**/*.py"))}
    for path in (*(ROOT / "contrique_jax").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        for name in imports(path) - own - sys.stdlib_module_names:
            packages = {package.lower().replace("_", "-") for package in (name, *providers.get(name, ()))}
            assert packages & declared, f"{path} imports {name}, which setup.cfg does not name"


def imports(path: Path) -> set[str]:
    """First parts of the names of modules that a file imports, or asks pytest for."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            names.add(ast.literal_eval(node.args[0]))
    return {name.split(".")[0] for name in names}


def test_every_command_shows_an_example():
    """As `python -m`, all in one process."""
    doors = [("contrique_jax.cli",), *((f"contrique_jax.{module}",) for module, _ in VERBS.values())]
    doors += [("contrique_jax.distort",), *(("contrique_jax.convert", name) for name in SUBVERBS)]
    code = f"""
import contextlib, io, runpy, sys
for module, *rest in {doors}:
    sys.argv, said, code = [module, *rest, "--help"], io.StringIO(), None
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
    if code or "example" not in said.getvalue().lower():
        print(module, *rest, code, said.getvalue())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
