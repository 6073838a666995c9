"""The file of a model's weights, and the models inside this package: read without jax, which takes a second to import."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular
from contrique_jax.networks.description import DESCRIPTION, some

WEIGHTS = "model.safetensors"
EMBEDDED = Path(__file__).parents[1] / "pretrained"  # package data: a model folder a name
DEFAULT = "lite0"  # the embedded model that is meant if none is named

Header = dict[str, tuple[str, tuple[int, ...]]]  # name -> type ("F32") and shape
Flat = dict[str, np.ndarray]  # dotted names, torch's layouts


def embedded_folder(name: str) -> Path | None:
    """The model folder of that name inside this package, or None if it has none."""
    folder = EMBEDDED / name
    return folder if folder.parent == EMBEDDED and (folder / DESCRIPTION).is_file() else None


def meant_embedded(name: str) -> Path | None:
    """The same, or None if a file or folder of that name is there, which is meant then."""
    return None if Path(name).expanduser().exists() else embedded_folder(name)


def flat_hash(model: ModelConfig, flat: Mapping[str, np.ndarray]) -> str:
    """Twelve hexadecimal digits that name these weights, what they expect of pixels and which features are taken, the same
    on every machine and whether they are stored as float16 or float32."""
    digest = hashlib.sha256(b"" if model.input_scaling == "unit" else model.input_scaling.encode())
    if model.features != "pooled":
        digest.update(f"features {model.features}".encode())
    for name, array in sorted(flat.items()):
        digest.update(f"{name}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array, "<f4").data)
    return digest.hexdigest()[:12]


def read_header(weights: Path) -> Header:
    """Type and shape of each tensor; none is read. Raises UserError if that cannot be had."""
    try:
        open_regular(weights).close()
        with safetensors.safe_open(weights, "numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts.items()}
    except OSError as error:
        raise UserError(f"{weights}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # SafetensorError, and what its types and names may raise
        raise UserError(f"{weights}: truncated or not a safetensors file; copy or save the model again.") from error


def read_flat(path: Path, header: Header, shapes: Mapping[str, tuple[int, ...]]) -> Flat:
    """Raises UserError if names, shapes and types are not those of `shapes`, and for numbers that no weights are."""
    missing, extra = shapes.keys() - header.keys(), header.keys() - shapes.keys()
    common = sorted(shapes.keys() & header.keys())
    wrong = [
        f"{name} {header[name][0]}{list(header[name][1])} for F32{list(shapes[name])}"
        for name in common
        if header[name][1] != shapes[name] or not _storable(*header[name])
    ]
    faults = [f"{word} {some(names)}" for word, names in (("missing", missing), ("extra", extra)) if names]
    faults += [f"wrong shape or type {some(wrong)}"] if wrong else []
    if faults:
        raise UserError(f"{path}: the weights do not fit the architecture in {DESCRIPTION}: {'; '.join(faults)}.")
    try:
        flat = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}).") from error
    broken = [name for name in common if not np.isfinite(flat[name]).all()]
    if broken:
        raise UserError(f"{path}: NaN or infinite weights in {some(broken)}; take an earlier checkpoint.")
    negative = [name for name in common if name.endswith("running_var") and (flat[name] < 0).any()]
    if negative:
        raise UserError(f"{path}: a negative variance in {some(negative)}; take an earlier checkpoint.")
    return dict(flat)


def _storable(dtype: str, shape: tuple[int, ...]) -> bool:
    """Kernels of convolutions may be float16 in the file; all numbers are float32 in memory."""
    return dtype == "F32" or (dtype == "F16" and len(shape) == 4)
