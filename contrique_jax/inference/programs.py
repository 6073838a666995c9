"""Functions compiled for few shapes, of which tracing too is kept between processes.

A traced function is stored beside the compilation cache as `jax.export` writes it, under a name that holds all it depends on:
the function and its model, its shapes, this package's code, jax and the platform. A file that is not just what was
written is passed over and made again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
from jax import export

from contrique_jax import networks
from contrique_jax.io.outputs import atomic_write, user_cache

MAGIC = b"contrique_jax program 1\n"


class Programs:
    """Compiled functions of arrays, each by a name and the shapes of its arguments. Safe between threads."""

    def __init__(self, about: str):
        """`about`: whatever else the functions depend on, such as the architecture; "" keeps nothing on disk."""
        self.about = about
        self._made: dict[Hashable, Future[Callable[..., Any]]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """`function`, pure, compiled for arguments like these (trees of arrays or `jax.ShapeDtypeStruct`)."""
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
        leaves, tree = jax.tree.flatten(shapes)
        key = (name, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves), tree)
        with self._lock:
            mine = key not in self._made
            future = self._made.setdefault(key, Future())
        if mine:
            try:
                future.set_result(self._compiled(repr(key), function, shapes))
            except BaseException as error:
                with self._lock:
                    del self._made[key]
                future.set_exception(error)
        return future.result()

    def __len__(self) -> int:
        return len(self._made)

    def _compiled(self, key: str, function: Callable[..., Any], shapes: tuple[Any, ...]) -> Callable[..., Any]:
        folder = user_cache("programs") if self.about else None
        if folder is None:
            return jax.jit(function).lower(*shapes).compile()
        platform = export.default_export_platform()
        parts = (self.about, key, platform, jax.__version__, importlib.metadata.version("jaxlib"), _code())
        name = hashlib.sha256("\n".join(parts).encode()).digest()
        file = folder / f"{name.hex()[:40]}.jaxprogram"
        traced = _read(file, name)
        if traced is None:
            traced = export.export(jax.jit(function), platforms=(platform,))(*shapes)
            _write(file, name, traced)
        return jax.jit(traced.call).lower(*shapes).compile()


def _read(file: Path, name: bytes) -> export.Exported | None:
    """What is stored there under that name, None if nothing is or it was not written by this module and whole."""
    try:
        data = file.read_bytes()
        head = len(MAGIC) + 64
        body = data[head:]
        if data[:head] != MAGIC + name + hashlib.sha256(body).digest():
            return None
        return export.deserialize(bytearray(body))
    except Exception:  # another jax's or a damaged one: it is made again
        return None


def _write(file: Path, name: bytes, traced: export.Exported) -> None:
    """A disk that is full costs nothing but the next start's time."""
    try:
        body = bytes(traced.serialize())
        with atomic_write(file) as temporary:
            temporary.write_bytes(MAGIC + name + hashlib.sha256(body).digest() + body)
    except Exception:  # nor does what cannot be written down
        return


@functools.cache
def _code() -> str:
    """Names the code of all networks."""
    digest = hashlib.sha256()
    folder = Path(os.fspath(networks.__path__[0]))
    for file in sorted(folder.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
