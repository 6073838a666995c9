"""The house: imports run one way from room to room, TensorFlow and others stay in theirs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "contrique_jax"
# from the roof down: a module imports from its own room and from those below
ROOMS = [
    "doors",  # modules on top: what one types
    "convert",
    "serving",
    "shards",
    "evaluation",
    "planning",
    "inference",
    "training",
    "recipes",
    "data",
    "losses",
    "networks",
    "probe",
    "augment",
    "distort",
    "io",
    "ground",  # the other modules on top
]
GROUND = {"config", "errors", "signals", "__init__"}
# commands that stand in a room: they may import a module that a door would
DOORS_BELOW = {"distort.__main__": {"data.distort_folder"}, "__init__": {"inference.meter"}}
HEAVY = {
    "tensorflow": "data",
    "tensorflow_datasets": "data",
    "torch": "convert",
    "sklearn": "convert",
    "skops": "convert",
    "onnx": "convert",
    "starlette": "serving",
    "uvicorn": "serving",
    "prometheus_client": "serving",
    "apache_beam": "shards",
    "pyarrow": "shards",
}
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    top, _, below = module.partition(".")
    return top if below else "ground" if module in GROUND else "doors"


def imports(module: str) -> set[str]:
    """Every module name imported anywhere in a module, `from package import module` spelled out."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def inside(module: str) -> set[str]:
    """The modules of this package among them; a package stands for its `__init__`."""
    names = {name.removeprefix("contrique_jax.") for name in imports(module) if name.startswith("contrique_jax.")}
    return {found for name in names for found in (name, f"{name}.__init__") if found in MODULES}


def test_every_module_is_in_a_room():
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_every_folder_of_modules_is_a_package():
    """Without `__init__.py` it would be left out of the wheel."""
    assert [str(path) for path in MODULES.values() if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downwards(module):
    floor = ROOMS.index(room_of(module))
    upwards = {name for name in inside(module) if ROOMS.index(room_of(name)) < floor}
    assert upwards - DOORS_BELOW.get(module, set()) == set()


def test_no_import_runs_in_a_circle():
    """Nor within a room."""
    below = {module: inside(module) - {module} for module in MODULES if not module.endswith("__init__")}
    list(TopologicalSorter(below).static_order())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_heavy_packages_stay_in_their_rooms(module):
    tops = {name.split(".")[0] for name in imports(module)}
    for package, room in HEAVY.items():
        assert package not in tops or room_of(module) == room, f"{module} imports {package}"


def test_scoring_starts_without_tensorflow():
    code = "import sys, contrique_jax.score, contrique_jax.features, contrique_jax.evaluate; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_two_test_modules_have_one_name():
    """pytest imports them by it."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
