"""The house: imports run one way, TensorFlow and others stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "contrique_jax"
# from the ground up: a module imports only from floors below its own, or its own package's lower files
FLOORS = [
    ["errors", "cores"],
    ["config", "outputs", "hlo_text", "storage"],
    ["runtime", "hosts"],
    ["topology", "watch"],
    ["distort.filters", "distort.colourspaces", "distort.draws"],
    [f"distort.{group}" for group in ("blur", "colour", "compression", "noise", "brightness", "spatial", "sharpness")],
    ["distort.denoise", "distort.jpeg2000", "distort.palette", "distort.thresholds"],
    ["distort.bank"],
    ["distort.checked", "distort_flags"],
    ["views"],
    ["augment"],
    ["data.decode", "data.materials", "data.camera", "data.tables"],
    ["data.scene_parts", "data.image_files", "data.sizes", "data.tfds_source", "data.ratings", "data.xlsx"],
    ["data.scene_kinds", "data.iqa_tables"],
    ["data.scenes", "data.iqa_layouts"],
    ["data.sources", "data.iqa_sets"],
    ["data.iqa_tfds"],
    ["data.order", "data.rows"],
    ["data.pipeline"],
    ["model.depthwise"],
    ["model.convolution"],
    ["model.layers"],
    ["model.resnet", "model.efficientnet", "model.pooling"],
    ["model.contrique"],
    ["model.store"],
    ["denominators"],
    ["loss", "accumulation"],
    ["optim", "checkpoint", "metrics", "workdir"],
    ["networks", "batching"],
    ["warm_start"],
    ["train"],
    ["features", "compiled_step"],
    ["feature_cache", "ridge", "logistic", "splits"],
    ["posterior", "correlation"],
    ["probe", "intervals"],
    ["protocol", "distorted_set"],
    ["studies", "controls"],
    ["trial", "plots", "report_style", "evaluate_flags", "chosen_splits"],
    ["evaluation_table"],
    ["report"],
    ["convert.ridge_pickle", "convert.original_csv", "convert.torch_file", "convert.torch_names"],
    ["convert.ridges"],
    [f"convert.{name}" for name in ("probe_from_sklearn", "probe_to_sklearn", "csv_from_original", "csv_to_original")],
    [f"convert.{name}" for name in ("from_torch", "to_torch", "to_onnx")],
    ["evaluate", "score", "gallery", "distort_folder"],
    ["main", "api", "convert.__main__", "distort.__main__"],
    ["plan"],
    ["cli"],
]
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
ROOMS = {
    "tensorflow": "data.",
    "tensorflow_datasets": "data.",
    "torch": "convert.",
    "sklearn": "convert.",
    "skops": "convert.",
    "onnx": "convert.",
}


def modules() -> dict[str, Path]:
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def imports(path: Path) -> set[str]:
    """Every module name imported anywhere in a file, `from package import module` spelled out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_a_floor():
    assert set(modules()) == set(FLOOR)


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_imports_run_downwards(module):
    inside = {
        name.removeprefix("contrique_jax.") for name in imports(modules()[module]) if name.startswith("contrique_jax.")
    }
    upwards = {name for name in inside if name in FLOOR and FLOOR[name] >= FLOOR[module]}
    assert not upwards


@pytest.mark.parametrize("module", sorted(FLOOR))
def test_heavy_packages_stay_in_their_rooms(module):
    tops = {name.split(".")[0] for name in imports(modules()[module])}
    for package, room in ROOMS.items():
        assert package not in tops or module.startswith(room), f"{module} imports {package}"


def test_scoring_starts_without_tensorflow():
    code = "import sys, contrique_jax.score, contrique_jax.features, contrique_jax.evaluate; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
