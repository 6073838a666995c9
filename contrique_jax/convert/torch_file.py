"""PyTorch files: reading one without running anything in it, and writing one."""

from __future__ import annotations

import argparse
import functools
import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from contrique_jax.convert.pickled_tuples import endless_tuples
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import atomic_write
from contrique_jax.io.regular import open_regular

SUFFIXES = (".tar", ".pth", ".pt")
# where training programs put the weights, in a dict with the optimiser, the epoch and so on
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# where a program that trains several networks puts each: its name comes before its arrays'
_OF_PART = "_model_state_dict"
MOST_PICKLED = 1 << 26  # bytes of the pickles before the numbers, in the format before 1.6
_ADDED = ("module.", "_orig_mod.")  # in front of every name, by DistributedDataParallel and torch.compile


class _Setting:
    """In place of what a run's settings are made of: whatever it is given, it keeps nothing and calls nothing."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _settings() -> OrderedDict[str, Any]:
    """In place of a dict with dots, as ARNIQA's: torch fills nothing but a plain one."""
    return OrderedDict()


def _named(module: str, name: str, kind: Any = _Setting) -> Any:
    """It under the name by which a pickle asks for it."""
    made: Any = type(name, (kind,), {}) if isinstance(kind, type) else functools.partial(kind)
    made.__module__, made.__qualname__ = module, name
    return made


_SETTINGS = [
    _named("dotmap", "DotMap", _settings),
    _named("numpy", "dtype"),
    *(_named(f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *(_named(module, f"{kind}Path") for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows")),
]


def read_state_dict(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors of a file of `torch.save` by name, floating-point ones as float32, and the other entries around them.

    Only tensors, plain values and the flags of a run are loaded. Raises UserError for a file that is none, is cut off,
    holds no state dict or names code to run.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path), []
    stored = _load(path)
    if stored == {}:
        raise UserError(f"{path}: an empty state dict; save model.state_dict().")
    if not isinstance(stored, dict):
        raise UserError(f"{path}: holds a {type(stored).__name__}, not a state dict; save model.state_dict().")
    others: list[str] = []
    stored = _plain(stored)
    for wrapper in _WRAPPERS:
        if isinstance(stored.get(wrapper), dict):
            others = [str(name) for name in stored if name != wrapper]
            stored = _plain(stored[wrapper])
            break
    else:
        parts = [str(name) for name, value in stored.items() if _is_part(name, value)]
        joined = {
            f"{part.removesuffix(_OF_PART)}.{name}": a for part in parts for name, a in _plain(stored[part]).items()
        }
        stored = {name: value for name, value in stored.items() if name not in parts} | joined
    torch = _torch()
    tensors = {}
    room = _room(path)  # a tensor may promise any number of elements of a small storage, and many may share one
    for name, value in stored.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            room -= value.numel() * value.element_size()
            if room < 0:
                raise UserError(f"{path}: its tensors promise more than the file holds; save model.state_dict() again.")
            tensors[_bare(name)] = _array(torch, path, name, value)
        else:
            others.append(str(name))
    return tensors, others


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Of a file as timm's are kept in the Hugging Face hub."""
    try:
        open_regular(path).close()
        found = safetensors.numpy.load_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # SafetensorError, and types that NumPy has none of
        raise UserError(f"{path}: cut off, not safetensors or of a type that is no float; copy it again.") from error
    return {name: a.astype(np.float32) if a.dtype.kind == "f" else a for name, a in found.items()}


def _is_part(name: Any, value: Any) -> bool:
    return isinstance(name, str) and name.endswith(_OF_PART) and isinstance(value, dict)


def _plain(stored: dict[Any, Any]) -> dict[Any, Any]:
    """A pickle can put attributes in the place of an OrderedDict's methods."""
    return dict(zip(dict.keys(stored), dict.values(stored), strict=True))


def write_state_dict(path: Path, flat: Mapping[str, np.ndarray]) -> None:
    """A dict of tensors, whole or not at all."""
    torch = _torch()
    stream = io.BytesIO()  # torch hides a full disk behind an error of its own
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in flat.items()}, stream)
    with atomic_write(path) as temporary:
        temporary.write_bytes(stream.getbuffer())


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"PyTorch cannot be imported ({error}); pip install torch.") from error
    if not hasattr(torch.serialization, "safe_globals"):
        raise UserError(f"PyTorch {torch.__version__} is too old to load weights safely; pip install 'torch>=2.6'.")
    return torch


def _load(path: Path) -> Any:
    torch = _torch()
    if not path.is_file():
        missing = "it is no file" if path.exists() else "no such file"
        raise UserError(f"{path}: {missing}; give a PyTorch checkpoint.")
    try:
        open_regular(path).close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    _check_sums(path)
    _check_tuples(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace, *_SETTINGS]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]*\w)", str(error))
        if named is None:
            raise UserError(f"{path}: cut off or not a PyTorch checkpoint; copy it again.") from error
        raise UserError(
            f"{path}: refused and not run, because opening it would call {named[1]}; ask for the state dict alone, "
            "torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # whatever a broken file makes torch stumble over
        if "TorchScript" in str(error):
            raise UserError(
                f"{path}: a TorchScript program, not a state dict; save model.state_dict() (ARNIQA's regressors: "
                "`contrique-jax convert probe-from-torch`)."
            ) from error
        raise UserError(f"{path}: cut off or not a PyTorch checkpoint; copy it again.") from error


def _room(path: Path) -> int:
    """Bytes that what is in the file may take."""
    return 2 * path.stat().st_size + (1 << 20)


def _check_sums(path: Path) -> None:
    """PyTorch does not look at the check sums of its zip file. Raises UserError if one is wrong."""
    if not zipfile.is_zipfile(path):
        return  # the format before 1.6, or no checkpoint
    room = _room(path)
    try:
        with zipfile.ZipFile(path) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
            damaged = None if unpacked > room else parts.testzip()
    except Exception:  # cut off or damaged in any way, which torch.load says
        return
    if unpacked > room:  # PyTorch compresses no weights
        raise UserError(f"{path}: it would unpack to {unpacked / 1e9:.1f} GB; save it again with torch.save.")
    if damaged is not None:
        raise UserError(f"{path}: damaged (the check sum of {damaged} is wrong); copy it again.")


def _check_tuples(path: Path) -> None:
    """Raises UserError for a file that torch.load would read for hours."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                streams = [io.BytesIO(parts.read(name)) for name in parts.namelist() if name.endswith(".pkl")]
        else:
            with open_regular(path) as file:
                streams = [io.BytesIO(file.read(MOST_PICKLED))]
    except Exception:  # cut off or damaged in any way, which torch.load says
        return
    # the format before 1.6 has several pickles one after the other
    if any(endless_tuples(stream) for stream in streams for _ in range(5)):
        raise UserError(f"{path}: tuples in tuples without end, as no state dict has; save model.state_dict().")


def _bare(name: str) -> str:
    while name.startswith(_ADDED):
        name = name.split(".", 1)[1]
    return name


def _array(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        return (tensor.detach().to(torch.float32) if tensor.is_floating_point() else tensor.detach()).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path}: {name} is no plain tensor; save the model unquantised and dense.") from error


def listed(arrays: Mapping[str, np.ndarray], others: Iterable[str]) -> list[str]:
    """What was left out, an entry each; many arrays of one part are counted."""
    parts: dict[str, list[str]] = {}
    for name in arrays:
        parts.setdefault(name.split(".")[0], []).append(name)
    entries = []
    for part, names in parts.items():
        shown = [f"{name} {list(arrays[name].shape)}" for name in names]
        entries += shown if len(names) <= 4 else [f"{part}.* ({len(names)} tensors)"]
    return entries + list(others)
