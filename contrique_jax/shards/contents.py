"""The bytes of a shard's images, one after the other, wherever they lie."""

from __future__ import annotations

import functools
import os
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from contrique_jax.data.decode import file_bytes
from contrique_jax.data.image_files import is_image
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.io import buckets
from contrique_jax.io.progress import ahead
from contrique_jax.io.regular import open_regular
from contrique_jax.shards import parquet
from contrique_jax.shards.listing import Part

FETCHERS = 16  # objects of a bucket on their way at a time
MOST_BYTES = 1 << 30  # of one image in a tar file


class Given(NamedTuple):
    """An image by name; `read` gives its bytes, in any thread, or raises BrokenImage if there are none."""

    name: str
    read: Callable[[], bytes]


def contents(part: Part) -> Iterator[Given]:
    """The images of a part, in its order, holding a bounded number of them. Raises UserError if a bucket or a table cannot
    be read, and if a local folder that images come from has gone."""
    if "tar" in part:
        return _members(part["tar"])
    if "parquet" in part:
        return _cells(part)
    return _files(part["files"], part["roots"])


def _files(names: list[str], roots: list[str]) -> Iterator[Given]:
    if not any(map(buckets.is_address, names)):
        return (Given(name, functools.partial(_local, name, roots)) for name in names)
    return _fetched(names, roots)


def _local(name: str, roots: list[str]) -> bytes:
    try:
        return file_bytes(Path(name))
    except BrokenImage:
        gone = next((root for root in roots if root and not os.path.lexists(root)), None)
        if gone is not None:
            raise UserError(
                f"{gone}: it was there and has gone; bring it back and run the same command again."
            ) from None
        raise


def _fetched(names: list[str], roots: list[str]) -> Iterator[Given]:
    """Objects, each on its way before its turn."""

    def fetch(name: str) -> Given:
        if not buckets.is_address(name):
            return Given(name, functools.partial(_local, name, roots))
        data = buckets.read(name)
        return Given(name, functools.partial(_whole, name, data, "the file does not exist"))

    with ThreadPoolExecutor(FETCHERS) as pool:
        yield from ahead(pool, fetch, names, 2 * FETCHERS)


def _whole(name: str, data: bytes | None, why: str) -> bytes:
    if data is None:
        raise BrokenImage(name, why)
    return data


def _cells(part: Part) -> Iterator[Given]:
    for name, data in parquet.images(part["parquet"], part["column"], part["groups"]):
        yield Given(name, functools.partial(_whole, name, data, "the cell is empty"))


def _members(name: str) -> Iterator[Given]:
    """The images of a tar file; if it is damaged, those before that, and the file itself as a broken one."""
    count = 0
    try:
        with ExitStack() as stack:
            if buckets.is_address(name):
                stream = buckets.open_object(name)
                if stream is None:
                    raise FileNotFoundError(2, "the file does not exist")
            else:
                stream = open_regular(name)
            stack.enter_context(stream)
            archive = stack.enter_context(tarfile.open(fileobj=stream, mode="r|*"))
            for member in archive:
                if not member.isfile() or not is_image(member.name):
                    continue
                data = None
                if member.size <= MOST_BYTES:
                    file = archive.extractfile(member)
                    data = file.read() if file is not None else b""
                    if len(data) < member.size:
                        raise tarfile.ReadError("unexpected end of data")
                full = f"{name}/{member.name}"
                yield Given(
                    full, functools.partial(_whole, full, data, f"{member.size} bytes are too many for one image")
                )
                count += 1
    except GeneratorExit:
        raise
    except Exception as error:  # tarfile, zlib and lzma meet damage in nearly any way
        if buckets.is_address(name) and not isinstance(error, tarfile.TarError | EOFError | FileNotFoundError):
            with buckets.one_sentence(name):
                raise
        if isinstance(error, OSError) and error.strerror:
            why = f"the tar file cannot be read ({error.strerror})"
        else:
            why = f"the tar file is damaged or cut off after {count} images ({error or type(error).__name__})"
        yield Given(name, functools.partial(_whole, name, None, why))
