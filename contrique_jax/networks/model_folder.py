"""Model folders: `model.safetensors` (the weights) and `model.json` (what they are); no checkpoint library reads them.

The tensors carry torch's names and layouts (`encoder.layer1.0.conv1.weight` is [outputs, inputs, k, k]), so that a
torchvision ResNet, or timm's EfficientNet-Lite0, loads the encoder once the prefix is cut off.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from contrique_jax.config import Config, ModelConfig
from contrique_jax.errors import UserError, disk_message
from contrique_jax.io.outputs import mark
from contrique_jax.networks.description import DESCRIPTION, FORMAT_VERSION, read_description, stored_architecture
from contrique_jax.networks.encoder import IMAGENET_DEVIATION, IMAGENET_MEAN, Variables, variable_shapes
from contrique_jax.networks.lite0 import CENTRE, HALF_RANGE
from contrique_jax.networks.weights_file import WEIGHTS, Header, flat_hash, read_flat, read_header

PREPROCESSING = {
    "channels": "RGB",
    "range": [0.0, 1.0],
    "scales": ["full", "half: Pillow bicubic to (width // 2, height // 2)"],
    "features": "global average, L2-normalised at each scale, full scale first",
}
NO_LICENCE = "not stated; ask whoever trained the model"


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
    """What names these weights (`weights_file.flat_hash`)."""
    return flat_hash(model, to_flat(variables))


def save_model(
    folder: str | os.PathLike[str],
    model: Any,
    variables: Variables,
    *,
    provenance: Mapping[str, Any],
    licence: str = NO_LICENCE,
    recipe: str = Config.recipe,
    half_kernels: bool = False,
) -> None:
    """Writes a model folder: beside it first, then renamed, so that a reader never meets half a file.

    `model` is the architecture, the recipe's own dataclass. `provenance` is any JSON-able mapping: what the model was trained
    on, how long, by which version. With `half_kernels` the kernels of convolutions are rounded to float16, which halves the
    file; those that float16 holds exactly, as a frozen trunk's, are stored so in any case. Other files in an existing folder
    are left alone. Raises UserError if the place cannot be written.
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
    beside = folder.with_name(f".{folder.name}.{mark()}.writing")
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
    if not getattr(model, "unit_features", True):
        said["features"] = "global average at each scale, full scale first"
    if getattr(model, "features", "") == "stages":
        said["features"] = "mean and deviation over the last map of each stage, at each scale, full scale first"
    return said | getattr(model, "preprocessing", {})


def load_model(folder: str | os.PathLike[str]) -> tuple[ModelConfig, Variables]:
    """Reads a model folder of CONTRIQUE's. Raises UserError for a missing, broken or unknown file, for another recipe's and for
    weights that do not fit."""
    folder = checked_folder(folder)
    description = read_description(folder)
    if (found := description.get("recipe", Config.recipe)) != Config.recipe:
        raise UserError(f"{folder / DESCRIPTION}: a model of the recipe {found!r}; name one of {Config.recipe!r}.")
    model = stored_architecture(description.get("architecture"), ModelConfig, folder / DESCRIPTION)
    header = read_header(folder / WEIGHTS)
    _check_width(model, header, folder)
    return model, from_flat(read_flat(folder / WEIGHTS, header, flat_shapes(model)))


def read_weights(folder: str | os.PathLike[str], wanted: Variables) -> Variables:
    """The weights of a model folder of any recipe, whose params and batch_stats must be those of `wanted` (arrays, or what has
    their shapes). Raises UserError for a missing or broken file and for weights that do not fit."""
    path = checked_folder(folder) / WEIGHTS
    return from_flat(read_flat(path, read_header(path), shapes_of(wanted)))


def checked_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder that holds both files. Raises UserError if it does not."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; give a folder that holds {DESCRIPTION} and {WEIGHTS}.")
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            missing = "is no file" if (folder / name).exists() else "is missing"
            raise UserError(f"{folder}: {name} {missing}; a model folder holds {DESCRIPTION} and {WEIGHTS}.")
    return folder


def _check_width(model: ModelConfig, header: Header, folder: Path) -> None:
    """Raises UserError if the stem's channels are not those of the description: a wide network takes long to lay out."""
    stem = header.get("encoder.conv1.weight")
    if stem is not None and stem[1][:1] != (model.base_width,):
        raise UserError(
            f"{folder / DESCRIPTION}: architecture.base_width is {model.base_width}, and encoder.conv1.weight in {WEIGHTS} has "
            f"the shape {list(stem[1])}; copy both files again."
        )


def flat_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of what `to_flat` gives for this architecture."""
    return shapes_of(variable_shapes(model))


def shapes_of(variables: Variables) -> dict[str, tuple[int, ...]]:
    """The shapes that `to_flat` gives the arrays of these variables, or of what has their shapes."""
    shapes = {}
    for tree in (variables["params"], variables["batch_stats"]):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            shapes[".".join(entry.key for entry in path)] = tuple(leaf.shape[i] for i in _torch_axes(leaf.ndim))
    return shapes


def _to_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(_torch_axes(array.ndim))


def _torch_axes(count: int) -> tuple[int, ...]:
    """Which of so many axes of ours torch has at each place."""
    return (3, 2, 0, 1) if count == 4 else tuple(reversed(range(count)))


def _from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
