"""The weights behind the reference numbers, rebuilt by the rule in their README; and the original's names in ours."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.config import ModelConfig
from contrique_jax.convert.torch_names import counters, original_name
from contrique_jax.networks.encoder import Variables, init_model
from contrique_jax.networks.model_folder import from_flat, to_flat

REFERENCE_DATA = Path(__file__).parent / "data_reference"
REFERENCE_MODEL = ModelConfig("resnet50", compute_dtype="float32")
FLOAT64_NORMS, REIQA_NORMS = REFERENCE_DATA / "float64_norms.npz", REFERENCE_DATA / "reiqa_float64_norms.npz"
SMALL_STEP, SMALL_MODEL = (
    REFERENCE_DATA / "train_step.npz",
    ModelConfig("resnet18", base_width=16, projection_dim=32, compute_dtype="float32"),
)

ENCODER_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def our_name(name: str) -> str:
    """The original's state-dict name in ours: encoder.4.0.bn1.weight -> encoder.layer1.0.bn1.weight."""
    part, number, rest = name.split(".", 2)
    return f"{part}.{ENCODER_PARTS[number]}.{rest}" if part == "encoder" else name


def reference_state_dict(shared: Path) -> dict[str, np.ndarray]:
    """The original's state dict: names in its order, float32 arrays in torch's layouts."""
    shapes = json.loads((shared / "reference" / "state_dict_shapes.json").read_text())
    return {name: rebuilt(name, tuple(shape)) for name, shape in shapes.items()}


def check_as_true(ours: Mapping[str, Any], original: Mapping[str, Any], truth: Path) -> None:
    """Norms of gradients by the original's names: ours may be no further from those of float64 than the original's are."""
    with np.load(truth) as stored:
        exact = dict(zip(stored["names"].tolist(), stored["norms"].tolist(), strict=True))
    assert set(original) == set(exact)
    mine, theirs = (
        np.array([abs(norms[name] - exact[name]) / exact[name] for name in exact]) for norms in (ours, original)
    )
    print(f"distance from float64, largest and 90 %: ours {mine.max():.1e} {np.quantile(mine, 0.9):.1e}, ", end="")
    print(f"the original {theirs.max():.1e} {np.quantile(theirs, 0.9):.1e}")
    assert mine.max() <= 1.25 * theirs.max()
    assert np.quantile(mine, 0.9) <= 1.25 * np.quantile(theirs, 0.9)


def reiqa_state_dict(shared: Path) -> dict[str, np.ndarray]:
    """That of Re-IQA's reference numbers."""
    shapes = json.loads((shared / "systems" / "reference" / "reiqa_shapes.json").read_text())
    return {name: rebuilt(name, tuple(shape)) for name, shape in shapes.items()}


def reference_variables(shared: Path) -> Variables:
    """The same weights as variables of `REFERENCE_MODEL`."""
    return variables_of(reference_state_dict(shared))


def variables_of(state: dict[str, np.ndarray]) -> Variables:
    return from_flat({our_name(k): v for k, v in state.items() if not k.endswith("num_batches_tracked")})


def reference_batch(shared: Path) -> tuple[np.ndarray, np.ndarray]:
    """Views [6, 2, h, w, 3] and classes [6] of the original's training step."""
    with np.load(shared / "reference" / "train_step.npz") as data:
        classes = np.concatenate([data["synthetic_class"], 126 + np.arange(3)]).astype(np.int32)
        return np.stack([data["view_i"], data["view_j"]], axis=1), classes


def small_state_dict() -> dict[str, np.ndarray]:
    """Weights of `SMALL_MODEL` by the same rule."""
    shapes = {name: array.shape for name, array in to_flat(init_model(SMALL_MODEL, 0)).items()}
    shapes |= dict.fromkeys(counters(shapes), ())
    return {name: rebuilt(name, shape) for name, shape in ((original_name(k), v) for k, v in shapes.items())}


def small_batch() -> tuple[np.ndarray, np.ndarray]:
    """Views [images, 2, h, w, 3] of noise, in which the max-pool meets no equal values, and classes [images]."""
    classes = np.array([3, 3, 7, 126, 127, 128], np.int32)
    return np.random.default_rng(0).integers(0, 256, (6, 2, 64, 64, 3), dtype=np.uint8), classes


def rebuilt(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array of a state dict by the reference's rule."""
    r = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) >= 2:
        values = r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = r.uniform(0.5, 1.5, shape)
    elif name.endswith("weight"):
        values = r.uniform(0.5, 1.5, shape) * (0.3 if ".bn3." in name else 1.0)
    else:
        values = r.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def system_state(
    shared: Path, name: str, table: str | None = None, other: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, np.ndarray]:
    """The state dict of one of the systems' networks, without BatchNorm's counters; `table`: of a file that holds several;
    `other`: shapes of another variant of the network."""
    shapes = json.loads((shared / "systems" / "reference" / f"{name}_shapes.json").read_text())
    shapes = (shapes[table] if table else shapes) | dict(other or {})
    return {key: rebuilt(key, tuple(shape)) for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """Equal up to a share of the largest number."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert worst <= tolerance, f"off by {worst:.1e} of the largest"


def close_summary(ours: np.ndarray, data: Mapping[str, np.ndarray], stage: str, tolerance: float) -> None:
    """Of a stage that is only summarised, in torch's order of axes: its shape, mean and deviation, and some numbers."""
    ours = np.asarray(ours)
    assert ours.shape == tuple(data[f"{stage}/shape"])
    mean, deviation = data[f"{stage}/mean_std"]
    found = [ours.mean(), ours.std(), *ours.ravel()[data[f"{stage}/index"]]]
    worst = np.abs(np.array(found) - [mean, deviation, *data[f"{stage}/value"]]).max() / (abs(mean) + deviation)
    assert worst <= tolerance, f"{stage} off by {worst:.1e}"


def nhwc(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def nchw(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(array), -1, 1)


def gradient_norms(gradients: dict[str, Any]) -> dict[str, float]:
    """L2 norms by torch's names."""
    return {name: float(np.linalg.norm(g)) for name, g in to_flat({"params": gradients, "batch_stats": {}}).items()}
