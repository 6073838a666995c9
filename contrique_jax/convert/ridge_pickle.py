"""Reads a pickled scikit-learn Ridge without running anything that the pickle names.

A pickle is a program that may call whatever it names. Here a name leads to one of the few stand-ins below or to a
refusal: not even NumPy's own functions are called, because a crafted dtype makes them read wild pointers. Files of
`pickle.dump` and, uncompressed, of `joblib.dump` (arrays lie as plain bytes between the opcodes) are read.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular

_MOST_BYTES = 1 << 26  # of a file
_OPCODES = b"".join(
    (
        *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.MEMOIZE),
        *(
            pickle.BINPUT,
            pickle.LONG_BINPUT,
            pickle.BINGET,
            pickle.LONG_BINGET,
            pickle.BUILD,
            pickle.REDUCE,
            pickle.NEWOBJ,
        ),
        *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_DICT),
        *(pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
        *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT),
        *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8),
    )
)
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class _StandIn:
    """An object that a pickle may make. BUILD on the class itself fails, so that no pickle can change a stand-in."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"{type(self).__name__} with a state")


class _Ridge(_StandIn):
    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a Ridge without attributes")
        self.attributes = state


class _Bytes(_StandIn):
    """`_codecs.encode`, by which protocol 2 writes bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"text in {encoding!r}")
        return text.encode("latin1")


class _Dtype(_StandIn):
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


class _Array(_StandIn):
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


class _Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The interpreter in Python, because it reads no byte ahead: joblib's arrays follow their description directly.

    It knows the opcodes that such files use, and no other: BYTEARRAY8 takes memory before there are bytes, and the hash of
    tuples in tuples, which a set or another key than text asks for, may never end.
    """

    read: Any  # these are the interpreter's
    append: Any
    pop_mark: Any
    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {code: pickle._Unpickler.dispatch[code] for code in _OPCODES}  # type: ignore

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream)
        self.size = stream.getbuffer().nbytes

        class JoblibArray(_Array):
            """`NumpyArrayWrapper`: described by its state, its bytes are the next of the file, after some padding."""

            def __setstate__(self, state: Any) -> None:
                self.shape, self.dtype = state["shape"], state["dtype"]
                self.column_major = state["order"] == "F"
                if state.get("numpy_array_alignment_bytes") is not None:
                    stream.read(stream.read(1)[0])
                self.data = stream.read(self.size() * self.dtype.numpy().itemsize)

        arrays = {"_reconstruct": _Reconstructed, "scalar": _Scalar, "_frombuffer": _FromBuffer}
        self.known: dict[tuple[str, str], type] = {
            ("sklearn.linear_model._ridge", "Ridge"): _Ridge,
            ("_codecs", "encode"): _Bytes,
            ("numpy", "dtype"): _Dtype,
            ("numpy", "ndarray"): _StandIn,
            ("joblib.numpy_pickle", "NumpyArrayWrapper"): JoblibArray,
        }
        for core in ("numpy.core", "numpy._core"):  # before NumPy 2 and since
            for module in ("multiarray", "numeric"):
                self.known |= {(f"{core}.{module}", name): kind for name, kind in arrays.items()}

    def find_class(self, module: str, name: str) -> type:
        try:
            return self.known[module, name]
        except KeyError:
            named = " ".join(f"{module}.{name}".split())
            raise UserError(f"it names {named}, which a Ridge does not need") from None

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self.size:
            raise pickle.UnpicklingError("more bytes than the file has")
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_setitem(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self._set([name, value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def _set(self, items: list[Any]) -> None:
        held = self.stack[-1]
        if type(held) is not dict or not all(type(name) is str for name in items[::2]):
            raise pickle.UnpicklingError("a dict whose keys are not text")
        held.update(zip(items[::2], items[1::2], strict=True))


def read_ridge(path: Path) -> dict[str, Any]:
    """The attributes of the Ridge in a file of `pickle.dump` or `joblib.dump`: `coef_` float64 [D], `intercept_` and
    `alpha` floats, and those others that are plain Python.

    Raises UserError if the file is missing, damaged, names anything but a Ridge and its arrays, or predicts several
    scores at once; nothing in the file is run.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: larger than {_MOST_BYTES >> 20} MiB, which no Ridge of one score is.")
    if data[:1] != pickle.PROTO:
        raise UserError(
            f"{path}: not a pickle of protocol 2 or later; a compressed one must be written again without compression."
        )
    try:
        ridge = _Reader(io.BytesIO(data)).load()
    except UserError as error:
        raise UserError(f"{path}: {error}; nothing was run, give a Ridge that scikit-learn wrote.") from None
    except Exception as error:  # damaged pickles fail in nearly any way
        raise UserError(f"{path}: cut off or not a pickled Ridge ({error or type(error).__name__}).") from error
    if not isinstance(ridge, _Ridge) or not {"coef_", "intercept_", "alpha"} <= getattr(ridge, "attributes", {}).keys():
        raise UserError(f"{path}: a pickle, but not of a fitted Ridge; fit it before it is saved.")
    attributes = {
        name: value for name, value in ridge.attributes.items() if isinstance(value, str | int | float | dict)
    }
    try:
        coefficients, intercept, alpha = (_numbers(ridge.attributes[name]) for name in ("coef_", "intercept_", "alpha"))
    except Exception as error:
        raise UserError(f"{path}: its numbers cannot be read ({error}).") from error
    one_target = coefficients.shape in ((coefficients.size,), (1, coefficients.size))
    if not one_target or intercept.size != 1 or alpha.size != 1:
        raise UserError(
            f"{path}: coefficients of shape {list(coefficients.shape)} do not predict one score; fit it on one target."
        )
    return attributes | {"coef_": coefficients.ravel(), "intercept_": intercept.item(), "alpha": alpha.item()}


def _numbers(value: Any) -> np.ndarray:
    if not isinstance(value, _Array | int | float):  # nested lists could take hours
        raise pickle.UnpicklingError(f"a {type(value).__name__} where numbers should be")
    return np.asarray(value.numpy() if isinstance(value, _Array) else value, np.float64)
