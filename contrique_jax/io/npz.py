"""Arrays of a .npz or .npy that comes from others: what its headers promise is checked before memory is taken for it."""

from __future__ import annotations

import math
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from contrique_jax.io.regular import open_regular

MOST_BYTES = 1 << 26  # of the file, and of its arrays together
MOST_ARRAYS = 64
PLAIN = "biufU"  # booleans, numbers and text: no objects, which are pickles, no records, no dates
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# NumPy reads a header with Python's parser, which fails now and then on good ones that several threads read at once (CPython
# before 3.11.8 and 3.12.2: "AST constructor recursion depth mismatch")
_PARSER = threading.Lock()
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other methods take memory as the file asks for it


def read_npz(path: Path, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; nothing in it is run.

    Raises OSError if it cannot be read, and ValueError, in words, if it is damaged, cut off, no .npz, or holds or promises more
    than `most_bytes`, more than MOST_ARRAYS arrays, an array twice or one of other things than PLAIN ones.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise ValueError(f"larger than {most_bytes >> 20} MiB")
        with _in_words(), zipfile.ZipFile(file) as archive:
            return _arrays(archive, most_bytes)


def read_npy(path: Path, most_bytes: int = MOST_BYTES) -> np.ndarray:
    """The array of a .npy. Raises OSError and ValueError as `read_npz`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ValueError(f"larger than {most_bytes >> 20} MiB")
        with _in_words():
            return _array(file, size)


def map_npy(path: Path) -> np.memmap:
    """The array of a .npy, read from disk as it is used. Raises OSError and ValueError as `read_npz`."""
    with open_regular(path) as file, _in_words():
        shape, column_major, dtype = _header(file, os.fstat(file.fileno()).st_size)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if column_major else "C")


@contextmanager
def _in_words() -> Iterator[None]:
    """Context: whatever the libraries meet is a ValueError; NumPy, zipfile and zlib meet damage in nearly any way."""
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:
        raise ValueError("cut off or damaged") from error


def _arrays(archive: zipfile.ZipFile, most_bytes: int) -> dict[str, np.ndarray]:
    parts = archive.infolist()
    if len(parts) > MOST_ARRAYS or len({part.filename for part in parts}) < len(parts):
        raise ValueError(f"more than {MOST_ARRAYS} arrays, or two of one name")
    if sum(part.file_size for part in parts) > most_bytes:
        raise ValueError(f"arrays of more than {most_bytes >> 20} MiB")
    found = {}
    for part in parts:
        if part.compress_type not in _PACKED:
            raise ValueError("packed in a way that NumPy does not write")
        with archive.open(part) as stream:
            found[part.filename.removesuffix(".npy")] = _array(stream, part.file_size)
    return found


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of the array in a .npy of `size` bytes. Raises ValueError if they are not of
    what follows."""
    read_header = _HEADERS.get(np.lib.format.read_magic(stream))
    if read_header is None:
        raise ValueError("an array of another version of NumPy's format")
    with _PARSER:
        shape, column_major, dtype = read_header(stream)
    if dtype.kind not in PLAIN or dtype.hasobject or dtype.subdtype is not None:
        raise ValueError(f"an array of {str(dtype)[:40]}, not of plain numbers or text")
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 8:
        raise ValueError("an array of an impossible shape")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError("an array whose header promises another size than it has")
    return shape, column_major, dtype


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a .npy of `size` bytes. Raises ValueError if its header does not say what follows."""
    shape, column_major, dtype = _header(stream, size)
    data = stream.read(size)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError("cut off or damaged")
    if not dtype.itemsize:  # text of no letters
        return np.zeros(shape if math.prod(shape) <= 1 else (0,), dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if column_major else "C")
