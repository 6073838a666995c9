"""Reads a pickled linear regressor of scikit-learn's without running anything that the pickle names.

Not even NumPy's own functions are called, because a crafted dtype makes them read wild pointers. Files of `pickle.dump`
and, uncompressed, of `joblib.dump` (arrays lie as plain bytes between the opcodes) are read.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.convert.linear_steps import GIVE, PASSED, WHAT, Step, line_of
from contrique_jax.convert.plain_pickle import Reader, StandIn
from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular

_MOST_BYTES = 1 << 29  # of a file: an SVR holds every photograph's features that it leans on
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _Estimator(StandIn):
    """Anything of scikit-learn's that is read; a class of its own for each."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"a {type(self).__name__} without attributes")
        self.attributes = state


# by the modules of today and by those before version 0.22
_ESTIMATORS = {
    "Ridge": ("sklearn.linear_model._ridge", "sklearn.linear_model.ridge"),
    "ElasticNet": ("sklearn.linear_model._coordinate_descent", "sklearn.linear_model.coordinate_descent"),
    "SVR": ("sklearn.svm._classes", "sklearn.svm.classes"),
    "StandardScaler": ("sklearn.preprocessing._data", "sklearn.preprocessing.data"),
    "MinMaxScaler": ("sklearn.preprocessing._data", "sklearn.preprocessing.data"),
    "Pipeline": ("sklearn.pipeline",),
}


class _Bytes(StandIn):
    """`_codecs.encode`, by which protocol 2 writes bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"text in {encoding!r}")
        return text.encode("latin1")


class _Dtype(StandIn):
    """`numpy.dtype`: a code, and the byte order that follows as state."""

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        if self.code not in _NUMBERS or self.order not in ("<", ">", "=", "|"):
            named = f"{self.code[:20]!r}" if isinstance(self.code, str) else "something"
            raise pickle.UnpicklingError(f"an array of {named}, not of plain numbers")
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array(StandIn):
    """Anything that becomes a NumPy array or number; decoded only when it is asked for."""

    shape: tuple[int, ...]
    dtype: _Dtype
    column_major: bool
    data: bytes | bytearray

    def size(self) -> int:
        """How many numbers it holds."""
        sides = self.shape
        plain = isinstance(sides, tuple) and len(sides) <= 2 and all(type(side) is int for side in sides)
        if not plain or not all(0 <= side <= _MOST_BYTES for side in sides):
            raise pickle.UnpicklingError("an array of an impossible shape")
        return math.prod(sides)

    def numpy(self) -> np.ndarray:
        self.size()
        values = np.frombuffer(self.data, self.dtype.numpy())
        return values.reshape(self.shape, order="F" if self.column_major else "C")


class _Reconstructed(_Array):
    """`_reconstruct`, which gives an empty array; shape, dtype and bytes follow as state."""

    def __init__(self, kind: Any, shape: Any, code: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.column_major, self.data = state


class _Scalar(_Array):
    """`scalar`: dtype and bytes."""

    def __init__(self, dtype: _Dtype, data: bytes):
        self.shape, self.dtype, self.column_major, self.data = (), dtype, False, data


class _FromBuffer(_Array):
    """`_frombuffer`: how protocol 5 writes arrays."""

    def __init__(self, data: bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: str):
        self.shape, self.dtype, self.column_major, self.data = shape, dtype, order == "F", data


def _reader(stream: io.BytesIO) -> Reader:
    class JoblibArray(_Array):
        """`NumpyArrayWrapper`: described by its state, its bytes are the next of the file, after some padding."""

        def __setstate__(self, state: Any) -> None:
            self.shape, self.dtype = state["shape"], state["dtype"]
            self.column_major = state["order"] == "F"
            if state.get("numpy_array_alignment_bytes") is not None:
                stream.read(stream.read(1)[0])
            self.data = stream.read(self.size() * self.dtype.numpy().itemsize)

    arrays = {"_reconstruct": _Reconstructed, "scalar": _Scalar, "_frombuffer": _FromBuffer}
    known: dict[tuple[str, str], type] = {
        ("_codecs", "encode"): _Bytes,
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): StandIn,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): JoblibArray,
    }
    for core in ("numpy.core", "numpy._core"):  # before NumPy 2 and since
        for module in ("multiarray", "numeric"):
            known |= {(f"{core}.{module}", name): kind for name, kind in arrays.items()}
    for name, modules in _ESTIMATORS.items():
        kind = type(name, (_Estimator,), {})
        known |= {(module, name): kind for module in modules}
    return Reader(stream, known, WHAT)


def read_regressor(path: Path) -> dict[str, Any]:
    """`coef_` float64 [D], `intercept_` and `alpha` (0 if it is no bare Ridge's) of the regressor in a file of `pickle.dump` or
    `joblib.dump`, and those of its attributes that are plain Python.

    Raises UserError if the file is missing, damaged, names anything but a linear regressor, scalers before it and their
    arrays, or predicts several scores at once; nothing in the file is run.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, which no regressor of one score is.")
    if data[:1] != pickle.PROTO:
        raise UserError(
            f"{path}: not a pickle of protocol 2 or later; a compressed one must be written again without compression."
        )
    try:
        found = _reader(io.BytesIO(data)).load()
    except UserError as error:
        raise UserError(f"{path}: {error}; nothing was run, {GIVE}.") from None
    except Exception as error:  # damaged pickles fail in nearly any way
        raise UserError(
            f"{path}: cut off or not a pickled regressor ({error or type(error).__name__}); copy it again."
        ) from error
    try:
        steps = _steps(found)
        line = line_of(steps, _numbers)
    except ValueError as error:
        raise UserError(f"{path}: {error}; {GIVE}.") from error
    except Exception as error:
        raise UserError(f"{path}: its numbers cannot be read ({error}).") from error
    plain = {name: value for name, value in steps[-1].attributes.items() if isinstance(value, str | int | float | dict)}
    return plain | {"coef_": line.coefficients, "intercept_": line.intercept, "alpha": line.alpha}


def _steps(found: Any) -> list[Step]:
    """The estimators in turn. Raises ValueError for what is none."""
    parts = [found]
    if isinstance(found, _Estimator) and type(found).__name__ == "Pipeline":
        named = getattr(found, "attributes", {}).get("steps")
        if not isinstance(named, list) or not all(type(step) is tuple and len(step) == 2 for step in named):
            raise ValueError("a Pipeline without steps")
        parts = [part for _, part in named if not (isinstance(part, str | None) and part in PASSED)]
    if not all(isinstance(part, _Estimator) for part in parts):
        raise ValueError("a pickle, but not of a regressor")
    return [Step(type(part).__name__, getattr(part, "attributes", {})) for part in parts]


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, _Array | int | float):  # nested lists could take hours
        raise pickle.UnpicklingError(f"a {type(value).__name__} where numbers should be")
    return np.asarray(value.numpy() if isinstance(value, _Array) else value, np.float64)
