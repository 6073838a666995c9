"""Model folders: `model.safetensors` (the weights) and `model.json` (what they are); no checkpoint library reads them.

The tensors carry torch's names and layouts (`encoder.layer1.0.conv1.weight` is [outputs, inputs, k, k]), so that a
torchvision ResNet, or timm's EfficientNet-Lite0, loads the encoder once the prefix is cut off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from contrique_jax.config import DTYPES, ENCODERS, FEATURES, INPUT_SCALINGS, Config, ModelConfig
from contrique_jax.errors import UserError, disk_message
from contrique_jax.io.regular import open_regular, read_text
from contrique_jax.networks.encoder import (
    CENTRE,
    HALF_RANGE,
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Variables,
    variable_shapes,
)

FORMAT_VERSION = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
PREPROCESSING = {
    "channels": "RGB",
    "range": [0.0, 1.0],
    "scales": ["full", "half: Pillow bicubic to (width // 2, height // 2)"],
    "features": "global average, L2-normalised at each scale, full scale first",
}
ADDED_LATER = {"input_scaling", "features"}  # fields of the architecture that older folders lack; they had the default
EMBEDDED = Path(__file__).parents[1] / "pretrained"  # package data: a model folder a name
DEFAULT = "lite0"  # the embedded model that is meant if none is named
NO_LICENCE = "not stated; ask whoever trained the model"


def embedded_folder(name: str) -> Path | None:
    """The model folder of that name inside this package, or None if it has none."""
    folder = EMBEDDED / name
    return folder if folder.parent == EMBEDDED and (folder / DESCRIPTION).is_file() else None


def to_flat(variables: Variables) -> dict[str, np.ndarray]:
    """Dotted names to float32 arrays in torch's layouts, parameters and running statistics together."""
    flat = {}
    for tree in (variables["params"], variables["batch_stats"]):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            flat[".".join(entry.key for entry in path)] = np.ascontiguousarray(_to_torch(np.asarray(leaf, np.float32)))
    return flat


def from_flat(flat: Mapping[str, np.ndarray]) -> Variables:
    """The inverse of `to_flat`: nested dicts of float32 arrays on the host."""
    variables: Variables = {"params": {}, "batch_stats": {}}
    for name, array in flat.items():
        *path, leaf = name.split(".")
        node = variables["batch_stats" if leaf.startswith("running_") else "params"]
        for key in path:
            node = node.setdefault(key, {})
        node[leaf] = np.asarray(_from_torch(array), np.float32)  # a view: the device's copy is the only one
    return variables


def content_hash(model: ModelConfig, variables: Variables) -> str:
    """Twelve hexadecimal digits that name these weights, what they expect of pixels and which features are taken, the same
    on every machine."""
    digest = hashlib.sha256(b"" if model.input_scaling == "unit" else model.input_scaling.encode())
    if model.features != "pooled":
        digest.update(f"features {model.features}".encode())
    for name, array in sorted(to_flat(variables).items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<f4", copy=False).data)
    return digest.hexdigest()[:12]


def save_model(
    folder: str | os.PathLike[str],
    model: ModelConfig,
    variables: Variables,
    *,
    provenance: Mapping[str, Any],
    licence: str = NO_LICENCE,
    recipe: str = Config.recipe,
    half_kernels: bool = False,
) -> None:
    """Writes a model folder: beside it first, then renamed, so that a reader never meets half a file.

    `provenance` is any JSON-able mapping: what the model was trained on, how long, by which version. With `half_kernels`
    the kernels of convolutions are rounded to float16, which halves the file; those that float16 holds exactly, as a frozen
    trunk's, are stored so in any case. Other files in an existing folder are left
    alone. Raises UserError if the place cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    description = {
        "format_version": FORMAT_VERSION,
        "recipe": recipe,
        "architecture": dataclasses.asdict(model),
        "preprocessing": preprocessing(model),
        "provenance": dict(provenance),
        "licence": licence,
    }
    flat = to_flat(variables)
    flat = {name: _packed(array, half_kernels) if array.ndim == 4 else array for name, array in flat.items()}
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file stands where the model folder should be; remove it or choose another name.")
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        (beside / WEIGHTS).write_bytes(safetensors.numpy.save(flat, metadata={"format": "pt"}))
        (beside / DESCRIPTION).write_text(text, encoding="utf-8")
        if folder.exists():
            for name in (WEIGHTS, DESCRIPTION):
                os.replace(beside / name, folder / name)
        else:
            os.rename(beside, folder)
    except OSError as error:
        sentence = (
            disk_message(error, str(folder)) or f"{folder}: cannot be written ({error.strerror}); choose another."
        )
        raise UserError(sentence) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _packed(kernel: np.ndarray, rounded: bool) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = kernel.astype(np.float16)
    return half if rounded or np.array_equal(half, kernel) else kernel


def preprocessing(model: Any) -> dict[str, Any]:
    """What has to be done to an image before this network sees it, and to what comes out, in words and numbers."""
    said: dict[str, Any] = dict(PREPROCESSING)
    scaling = getattr(model, "input_scaling", "unit")  # which another recipe's may lack
    if scaling == "imagenet":
        said |= {"mean": list(IMAGENET_MEAN), "standard deviation": list(IMAGENET_DEVIATION)}
    if scaling == "centred":
        said |= {"mean": [CENTRE / 255] * 3, "standard deviation": [HALF_RANGE / 255] * 3}
    if getattr(model, "features", "") == "stages":
        said["features"] = "mean and deviation over the last map of each stage, at each scale, full scale first"
    return said


def load_model(folder: str | os.PathLike[str]) -> tuple[ModelConfig, Variables]:
    """Reads a model folder of CONTRIQUE's. Raises UserError for a missing, broken or unknown file, for another recipe's and for
    weights that do not fit."""
    folder = _model_folder(folder)
    description = read_description(folder)
    if (found := description.get("recipe", Config.recipe)) != Config.recipe:
        raise UserError(f"{folder}: a model of the recipe {found!r}; name one of {Config.recipe!r}.")
    model = _architecture(description, folder / DESCRIPTION)
    weights = folder / WEIGHTS
    flat = _read_flat(weights)
    _check_fit(model, flat, weights)
    return model, from_flat(flat)


def read_folder(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], Variables]:
    """The description and the weights of a model folder of any recipe. Raises UserError for a missing or broken file."""
    folder = _model_folder(folder)
    return read_description(folder), from_flat(_read_flat(folder / WEIGHTS))


def _model_folder(folder: str | os.PathLike[str]) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give a folder that holds {DESCRIPTION} and {WEIGHTS}.")
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing; a model folder holds {DESCRIPTION} and {WEIGHTS}.")
    return folder


def _read_flat(weights: Path) -> dict[str, np.ndarray]:
    try:
        open_regular(weights).close()
        return dict(safetensors.numpy.load_file(weights))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{weights}: truncated or not a safetensors file; copy or save the model again.") from error
    except OSError as error:
        raise UserError(f"{weights}: cannot be read ({error.strerror}).") from error


def read_description(folder: Path) -> dict[str, Any]:
    """The `model.json` of a model folder. Raises UserError if it cannot be read or is of an unknown format."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy or save the model again.") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version!r} is unknown, this program reads {FORMAT_VERSION}; "
            "update the program or save the model again."
        )
    return dict(description)


def _architecture(description: dict[str, Any], path: Path) -> ModelConfig:
    stored = description.get("architecture")
    fields = {field.name: type(field.default) for field in dataclasses.fields(ModelConfig)}
    if not isinstance(stored, dict) or set(stored) | ADDED_LATER != set(fields):
        if not isinstance(stored, dict):
            raise UserError(f"{path}: architecture is {stored!r}, and must hold {_some(fields)}.")
        unknown, missing = set(stored) - set(fields), set(fields) - set(stored) - ADDED_LATER
        faults = [f"{word} {_some(names)}" for word, names in (("has unknown", unknown), ("lacks", missing)) if names]
        raise UserError(f"{path}: architecture {' and '.join(faults)}; save the model again with this program.")
    for name, value in stored.items():
        kind, least = fields[name], int(name != "projection_dim")  # which is 0 for an encoder without a projector
        if type(value) is not kind or (kind is int and isinstance(value, int) and value < least):
            wanted = f"a whole number, at least {least}" if kind is int else f"a {kind.__name__}"
            raise UserError(f"{path}: architecture.{name} is {value!r}, and must be {wanted}.")
    choices = {
        "encoder": ENCODERS,
        "compute_dtype": DTYPES,
        "input_scaling": INPUT_SCALINGS,
        "features": FEATURES,
    }
    for name, allowed in choices.items():
        if stored.get(name, allowed[0]) not in allowed:
            raise UserError(
                f"{path}: architecture.{name} is {stored[name]!r}, and must be one of {', '.join(allowed)}."
            )
    return ModelConfig(**stored)


def _check_fit(model: ModelConfig, flat: Mapping[str, np.ndarray], path: Path) -> None:
    """Compares names, shapes and dtypes with the architecture, both ways, and looks for NaN and infinity."""
    shapes = flat_shapes(model)
    missing, extra = shapes.keys() - flat.keys(), flat.keys() - shapes.keys()
    common = sorted(shapes.keys() & flat.keys())
    wrong = [
        f"{name} {flat[name].dtype}{list(flat[name].shape)} for float32{list(shapes[name])}"
        for name in common
        if flat[name].shape != shapes[name] or not _storable(flat[name])
    ]
    faults = [f"{word} {_some(names)}" for word, names in (("missing", missing), ("extra", extra)) if names]
    faults += [f"wrong shape or type {_some(wrong)}"] if wrong else []
    if faults:
        raise UserError(f"{path}: the weights do not fit the architecture in {DESCRIPTION}: {'; '.join(faults)}.")
    broken = [name for name in common if not np.isfinite(flat[name]).all()]
    if broken:
        raise UserError(f"{path}: NaN or infinite weights in {_some(broken)}; take an earlier checkpoint.")


def _storable(array: np.ndarray) -> bool:
    """Kernels of convolutions may be float16 in the file; all numbers are float32 in memory."""
    return array.dtype == np.float32 or (array.dtype == np.float16 and array.ndim == 4)


def flat_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of what `to_flat` gives for this architecture."""
    variables = variable_shapes(model)
    shapes = {}
    for tree in (variables["params"], variables["batch_stats"]):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            # A broadcast zero has the leaf's shape and no memory of its own.
            shapes[".".join(entry.key for entry in path)] = _to_torch(np.broadcast_to(np.float32(0), leaf.shape)).shape
    return shapes


def _to_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {more} more" if more > 0 else "")
