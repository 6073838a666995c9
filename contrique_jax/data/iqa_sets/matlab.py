"""A vector of a MATLAB file (level 5, as `save` writes it up to -v7): numbers, text, and cells of either.

Not SciPy's reader, which a damaged file brings down with the whole process.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contrique_jax.errors import UserError
from contrique_jax.io.regular import open_regular

MOST_BYTES = 1 << 26  # of the file, and of a variable unpacked
HEADER = 128
_MATRIX, _PACKED = 14, 15
_CELL, _CHAR = 1, 4
# how numbers lie in the file, and what an array of that class holds
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_LETTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}


class _Element(NamedTuple):
    kind: int
    data: memoryview


class _Array(NamedTuple):
    name: str
    kind: int
    shape: tuple[int, ...]
    rest: Iterator[_Element]  # its parts after the name


def vector(path: Path, name: str) -> list[str]:
    """The numbers, or the texts, of the variable `name`, as text. Raises UserError if there is none, or the file is damaged."""
    try:
        with open_regular(path) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) < HEADER or len(data) > MOST_BYTES or data[126:128] not in (b"IM", b"MI"):
            raise ValueError("no MATLAB file of level 5; save it with -v7")
        order = "<" if data[126:128] == b"IM" else ">"
        known = []
        for element in _elements(memoryview(data)[HEADER:], order):
            array = _array(element, order)
            if array.name == name:
                return _texts(array, order, deeper=True)
            known.append(array.name)
    except (OSError, ValueError, StopIteration, RecursionError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or "cut off"
        raise UserError(f"{path} cannot be read as a MATLAB file ({why}); unpack it again.") from error
    raise UserError(f"{path}: there is no variable {name!r} (variables found: {', '.join(known)}).")


def _elements(data: memoryview, order: str, packed: bool = True) -> Iterator[_Element]:
    """The parts that lie one after the other; what is compressed is unpacked. Raises ValueError if one is cut off."""
    at = 0
    while at + 8 <= len(data):
        first, size = (int(value) for value in np.frombuffer(data, f"{order}u4", 2, at))
        start = at + 8
        if first >> 16:  # a short one: type, size and up to four bytes share one tag
            first, size, start = first & 0xFFFF, first >> 16, at + 4
            end = after = at + 8
            if size > 4:
                raise ValueError("a part of an impossible size")
        else:
            end = start + size
            after = end if first == _PACKED else end + -size % 8
        if end > len(data):
            raise ValueError("cut off")
        part = data[start : start + size]
        if first == _PACKED and packed:
            unpacker = zlib.decompressobj()
            whole = unpacker.decompress(part, MOST_BYTES)
            if not unpacker.eof:
                raise ValueError("cut off, or a variable of more than 64 MiB")
            yield from _elements(memoryview(whole), order, packed=False)
        else:
            yield _Element(first, part)
        at = after


def _array(element: _Element, order: str) -> _Array:
    """Raises ValueError or StopIteration if it is none."""
    if element.kind != _MATRIX:
        raise ValueError("a part that is no array")
    if not element.data:
        return _Array("", 6, (0, 0), iter(()))
    parts = _elements(element.data, order, packed=False)
    flags, sides, name = next(parts), next(parts), next(parts)
    if len(flags.data) != 8 or sides.kind != 5 or not 8 <= len(sides.data) <= 32 or len(sides.data) % 4:
        raise ValueError("an array without class or shape")
    shape = tuple(int(side) for side in np.frombuffer(sides.data, f"{order}i4"))
    if min(shape) < 0:
        raise ValueError("an array of an impossible shape")
    kind = int(np.frombuffer(flags.data, f"{order}u4", 1)[0]) & 0xFF
    return _Array(bytes(name.data).decode("latin-1").rstrip("\0"), kind, shape, parts)


def _texts(array: _Array, order: str, deeper: bool) -> list[str]:
    count = math.prod(array.shape)
    if array.kind == _CELL and deeper:
        if max(array.shape) != count:
            raise ValueError(f"{array.name} is no vector")
        cells = [_texts(_array(element, order), order, deeper=False) for element in array.rest]
        if len(cells) != count:
            raise ValueError("cut off")
        return [cell[0].strip() if cell else "" for cell in cells]
    if not count:
        return []
    part = next(array.rest)
    if array.kind == _CHAR and part.kind in _LETTERS:
        coding = _LETTERS[part.kind] + {"<": "-le", ">": "-be"}[order] * (_LETTERS[part.kind] == "utf-16")
        letters = bytes(part.data).decode(coding)
        rows = array.shape[0]
        if len(letters) != count or count != rows * array.shape[1]:
            raise ValueError("text of another length than it promises")
        return [letters[row::rows] for row in range(rows)]
    if array.kind not in _CLASSES or part.kind not in _STORED:
        raise ValueError(f"{array.name or 'a cell'} holds neither numbers nor text")
    values = np.frombuffer(part.data, f"{order}{_STORED[part.kind]}")
    if len(values) != count:
        raise ValueError("an array of another length than it promises")
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(_CLASSES[array.kind])
    return [str(value) for value in np.ravel(values.reshape(array.shape, order="F")).tolist()]
