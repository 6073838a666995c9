"""Reads ARNIQA's regressors, TorchScript programs with two arrays, without running them or importing PyTorch.

Such a file is a zip: a pickle that describes one object, and the numbers of its arrays beside it. `weights` is [1, D],
`biases` a number (`regressor_<set>.pth` of the original's release; `torchmetrics.functional.image.arniqa`).
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from contrique_jax.convert.plain_pickle import Reader, StandIn
from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular

_MOST_BYTES = 1 << 26  # unpacked
_NUMBERS = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2"}


class _Module(StandIn):
    """The scripted object, whatever its class is called."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a module without attributes")
        self.attributes = state


class _Storage(StandIn):
    """A type of numbers; never made, only named."""

    code = ""


class _Tensor(StandIn):
    """`_rebuild_tensor_v2`: numbers from `offset` on, in `shape`."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any):
        whole = isinstance(shape, tuple) and len(shape) <= 2 and all(type(side) is int and side >= 0 for side in shape)
        if not whole or type(offset) is not int or offset < 0 or not isinstance(storage, np.ndarray):
            raise pickle.UnpicklingError("an array of an impossible shape")
        size = math.prod(shape)
        if offset + size > storage.size or (size > 1 and strides[-1] != 1):
            raise pickle.UnpicklingError("an array beyond its numbers")
        self.values = storage[offset : offset + size].astype(np.float64).reshape(shape)


class _Nothing(StandIn):
    """An empty `OrderedDict`, of hooks."""


class _Script(Reader):
    dispatch: ClassVar[dict[int, Any]] = Reader.dispatch | {
        pickle.BINPERSID[0]: pickle._Unpickler.dispatch[pickle.BINPERSID[0]]  # type: ignore[attr-defined]
    }

    def __init__(self, stream: io.BytesIO, parts: zipfile.ZipFile, folder: str):
        known: dict[tuple[str, str], type] = {
            ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
            ("collections", "OrderedDict"): _Nothing,
        }
        known |= {("torch", name): type(name, (_Storage,), {"code": code}) for name, code in _NUMBERS.items()}
        super().__init__(stream, known, "a regressor")
        self._parts, self._folder = parts, folder
        self._order = parts.read(f"{folder}/byteorder") if f"{folder}/byteorder" in parts.namelist() else b"little"

    def find_class(self, module: str, name: str) -> type:
        return _Module if module.split(".")[0] == "__torch__" else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        word, kind, key, _, _ = pid
        if word != "storage" or not (isinstance(kind, type) and issubclass(kind, _Storage)) or not str(key).isdigit():
            raise pickle.UnpicklingError("numbers of no known kind")
        order = ">" if self._order.strip() == b"big" else "<"
        return np.frombuffer(self._parts.read(f"{self._folder}/data/{key}"), order + kind.code)


def read_script(path: Path) -> dict[str, Any]:
    """`coef_` float64 [D], `intercept_` and `alpha` (0: the file does not tell) of the regressor at `path`.

    Raises UserError if the file is missing, damaged, or holds anything but one module with those arrays; nothing in it is
    run.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as parts:
            if sum(part.file_size for part in parts.infolist()) > _MOST_BYTES:
                raise UserError(f"it would unpack to more than {_MOST_BYTES >> 20} MiB")
            inside = [name for name in parts.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(inside) != 1 or parts.testzip() is not None:
                raise ValueError("no program of TorchScript's")
            folder = inside[0].removesuffix("/data.pkl")
            held = _Script(io.BytesIO(parts.read(inside[0])), parts, folder).load()
        arrays = {name: held.attributes[name].values for name in ("weights", "biases")}
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error
    except UserError as error:
        raise UserError(f"{path}: {error}; nothing was run, give a regressor of ARNIQA's release.") from None
    except Exception as error:  # damaged files fail in nearly any way
        raise UserError(
            f"{path}: cut off or no regressor with `weights` and `biases` ({error or type(error).__name__}); give one of "
            "ARNIQA's release, or convert a model with `contrique-jax convert from-torch`."
        ) from error
    weights, biases = arrays["weights"], arrays["biases"]
    if weights.shape not in ((weights.size,), (1, weights.size)) or biases.size != 1:
        raise UserError(
            f"{path}: weights of shape {list(weights.shape)} do not predict one score; give one of one score."
        )
    return {"coef_": weights.ravel(), "intercept_": biases.item(), "alpha": 0.0}
