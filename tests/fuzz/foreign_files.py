"""Files as strangers might hand them over: bytes, JSON, arrays and archives that began as right ones and were changed.

Hypothesis draws the changes; each strategy gives the bytes of a file.
"""

from __future__ import annotations

import copy
import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

LONG = (b"\xff" * 8, b"\x00" * 8, b"\x7f" + b"\xff" * 7, (1 << 40).to_bytes(8, "little"), b"\xff\xff\xff\x7f")
# what JSON can hold and a field should not
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        64,
        4096,
        10**6,
        10**9,
        10**30,
        -(10**12),
        0.5,
        1e308,
        1e-320,
        math.nan,
        math.inf,
    ),
    *("", "1", "resnet50", "resnet18", "float32", "\x1b[31mred", "a\nb", "\u202etxt", "\ud800", "x" * 4000),
    *([], {}, [[]], [1], ["a"], {"a": 1}, {"": {}}, [0] * 300),
)


@st.composite
def changed_bytes(draw: st.DrawFn, whole: Sequence[bytes], most: int = 5) -> bytes:
    """One of the files with a few bytes changed, cut, put in, doubled or made a large number."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(("byte", "byte", "number", "put in", "double", "leave out", "cut")))
        if kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "number":
            number = draw(st.sampled_from(LONG))
            data[at : at + len(number)] = number
        elif kind == "put in":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "double":
            data[at:at] = data[at : at + size]
        elif kind == "leave out":
            del data[at : at + size]
        elif kind == "cut":
            del data[at:]
    return bytes(data)


def _rarely_changed(draw: st.DrawFn, data: bytes) -> bytes:
    return draw(changed_bytes([data])) if draw(st.integers(0, 4)) == 0 else data


@st.composite
def changed_json(draw: st.DrawFn, whole: Any) -> bytes:
    """The value with a few of its fields, at any depth, replaced, left out, added or named otherwise, as JSON."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 2))):
        node = value
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            change = draw(st.sampled_from(("replace", "replace", "replace", "leave out", "add")))
            if change == "replace":
                node[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            elif change == "leave out":
                del node[key]
            elif isinstance(node, dict):
                node[draw(st.sampled_from(("", "x", "\x1b", key)))] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            else:
                node.append(copy.deepcopy(draw(st.sampled_from((*node, None)))))
            break
    text = json.dumps(value).encode()
    deep = b"[" * 100_000
    return draw(
        st.sampled_from((text, text, text, text, text, text, text[:-1], text + text, b"\xef\xbb\xbf" + text, deep))
    )


ARRAYS: tuple[np.ndarray, ...] = tuple(
    np.asarray(value)
    for value in (
        *(
            0,
            1,
            -1,
            2**62,
            0.0,
            -1.0,
            1e300,
            1e30,
            math.nan,
            math.inf,
            True,
            False,
            1j,
            b"abc",
            "",
            "two-scale",
            "\x1b[2J",
        ),
        *(np.datetime64(0, "s"), np.float16(3), np.uint8(1), [], [1.0], [[1.0]], [math.nan] * 6, ["a"] * 6, [True] * 6),
        *(
            np.zeros(6),
            np.ones(6, "f4"),
            np.ones(6, ">f8"),
            np.full(6, 1e300),
            np.zeros((6, 6)),
            np.zeros(7),
            np.zeros((0, 6)),
        ),
    )
)


@st.composite
def changed_npz(draw: st.DrawFn, whole: Mapping[str, np.ndarray]) -> bytes:
    """The arrays with some replaced or left out, and headers that promise something else than what follows them."""
    arrays = dict(whole)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(arrays)))
        if draw(st.integers(0, 7)) == 0:
            del arrays[name]
        else:
            arrays[name] = draw(st.sampled_from(ARRAYS))
    stream, lie = io.BytesIO(), draw(st.sampled_from((None, None, *sorted(arrays))))
    packing = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, array, allow_pickle=False)
            data = part.getvalue()
            if name == lie:
                data = _with_header(data, draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES)))
            archive.writestr(f"{name}.npy", data)
    return _rarely_changed(draw, stream.getvalue())


SHAPES = (
    "()",
    "(6,)",
    "(-1,)",
    "(1000000000000,)",
    "(1099511627776, 1099511627776)",
    "(6, 0)",
    "(True,)",
    "(1.0,)",
    "6",
    "(" * 300,
)
DTYPES = ("<f8", "|O", "<U9", "<U0", "|V8", "<f4", "[('a', '<f8')]", "<m8[s]", "|S0", "(2,)<f8", "nonsense")


def _with_header(data: bytes, shape: str, dtype: str) -> bytes:
    descr = dtype if dtype.startswith("[") else repr(dtype)
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    size = int.from_bytes(data[8:10], "little")
    return data[:8] + len(text).to_bytes(2, "little") + text.encode() + data[10 + size :]


@st.composite
def changed_zip(draw: st.DrawFn, whole: bytes) -> bytes:
    """The archive with one of its parts changed, and its check sums right again."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(stream, "w") as new:
        chosen = draw(st.sampled_from(old.namelist()))
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, draw(changed_bytes([data])) if name == chosen else data)
    return _rarely_changed(draw, stream.getvalue())


CELLS = (
    *(
        "a.png",
        "b.png",
        "c.png",
        "a,b.png",
        "x.png",
        "#1.png",
        "=1+1",
        '"',
        "'a.png'",
        "\u202e",
        "\x00",
        "a.png\x1b[2J",
        "/",
        "~x/a",
    ),
    *(
        "1",
        "2.5",
        "1,5",
        "1_0",
        "nan",
        "inf",
        "1e999",
        "-3",
        "",
        " ",
        "x" * 300,
        "1.234,5",
        "\u0661",
        "0x10",
        "TRUE",
        "r.png",
    ),
)
COLUMNS = (
    "path",
    "mos",
    "dmos",
    "score",
    "MOS",
    "image_name",
    "group",
    "subset",
    "reference",
    "class",
    "",
    "mos ",
    "\ufeffpath",
    "1",
)


@st.composite
def tables(draw: st.DrawFn, columns: Sequence[str] = COLUMNS) -> bytes:
    """A csv of some kind."""
    separator, end = draw(st.sampled_from(",,,;\t|")), draw(st.sampled_from(("\n", "\n", "\r\n", "\r")))
    likely = draw(st.booleans())
    header = ["path", "mos"] if likely else draw(st.lists(st.sampled_from(columns), min_size=1, max_size=5))
    lines = draw(
        st.lists(st.sampled_from(("# a comment, with a comma", f"sep={separator}", "", ",,", '# "')), max_size=2)
    )
    lines.append(separator.join(header))
    for name, number in list(zip(("a.png", "b.png", "c.png"), ("1", "2.5", "4e0"), strict=True))[
        draw(st.integers(0, 2)) :
    ]:
        cells = [name, number] if likely else []
        while len(cells) < len(header):
            cells.append(draw(st.sampled_from(CELLS)))
        if draw(st.integers(0, 9)) == 0:
            cells[draw(st.integers(0, len(cells) - 1))] = draw(st.sampled_from(CELLS))
        quoted = draw(st.integers(0, 3)) == 0
        lines.append(separator.join('"' + cell.replace('"', '""') + '"' if quoted else cell for cell in cells))
    text = end.join(lines) + draw(st.sampled_from(("", end)))
    encoding = draw(st.sampled_from((*["utf-8"] * 8, "utf-8-sig", "utf-16", "latin-1")))
    return _rarely_changed(draw, text.encode(encoding, "replace"))
