"""Pickles read without running anything that they name.

A pickle is a program that may call whatever it names. Here a name leads to one of a few stand-ins or to a refusal, and the
interpreter has the opcodes that files of plain numbers use, no other.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any, ClassVar

from contrique_jax.errors import UserError

OPCODES = b"".join(
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


class StandIn:
    """An object that a pickle may make. BUILD on the class itself fails, so that no pickle can change a stand-in."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"{type(self).__name__} with a state")


class Reader(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """The interpreter in Python, because it reads no byte ahead: joblib's arrays follow their description directly.

    It knows the opcodes above: BYTEARRAY8 takes memory before there are bytes, and the hash of tuples in tuples, which a set
    or another key than text asks for, may never end. `known` says by (module, name) what may be named, and `what` needs it.
    """

    read: Any  # these are the interpreter's
    append: Any
    pop_mark: Any
    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {code: pickle._Unpickler.dispatch[code] for code in OPCODES}  # type: ignore

    def __init__(self, stream: io.BytesIO, known: dict[tuple[str, str], type], what: str):
        super().__init__(stream)
        self.size, self.known, self.what = stream.getbuffer().nbytes, known, what

    def find_class(self, module: str, name: str) -> type:
        try:
            return self.known[module, name]
        except KeyError:
            named = " ".join(f"{module}.{name}".split())
            raise UserError(f"it names {named}, which {self.what} does not need") from None

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
