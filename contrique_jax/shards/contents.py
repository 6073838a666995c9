"""The bytes of a shard's images, one after the other, wherever they lie."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from contrique_jax.data.decode import file_bytes
from contrique_jax.data.image_files import is_image, looks_like_photograph
from contrique_jax.data.unread_formats import advice
from contrique_jax.errors import BrokenImage, UserError, counted
from contrique_jax.io import buckets
from contrique_jax.io.progress import ahead
from contrique_jax.io.regular import open_regular
from contrique_jax.shards import parquet
from contrique_jax.shards.listing import Part

FETCHERS = 16  # objects of a bucket on their way at a time
MOST_BYTES = 1 << 28  # of one image in a tar file; a few of them are in memory at a time
PACKED: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
DAMAGE = (tarfile.TarError, EOFError, FileNotFoundError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
READ_AT_ONCE = 1 << 20
# of whatever lies in one: tarfile passes by READ_AT_ONCE at a time, also behind the file's end
MOST_MEMBER_BYTES = 1 << 43
MOST_HEADER_BYTES = 1 << 20  # of one that holds a long name
_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class Given(NamedTuple):
    """An image by name; `read` gives its bytes, in any thread, or raises BrokenImage if there are none."""

    name: str
    read: Callable[[], bytes]


def contents(part: Part) -> Iterator[Given]:
    """The images of a part, in its order, holding a bounded number of them. What holds others and is damaged is a broken one
    itself, after the images before that. Raises UserError if a bucket cannot be read, and if a local file or folder that
    images come from has gone."""
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
        _check_gone(*roots)
        raise


def _check_gone(*places: str) -> None:
    """Raises UserError if one of them was there and is no more: what is read of it now is not what it holds."""
    gone = next((place for place in places if place and not os.path.lexists(place)), None)
    if gone is not None:
        raise UserError(f"{gone}: it was there and has gone; bring it back and run the same command again.") from None


def _fetched(names: list[str], roots: list[str]) -> Iterator[Given]:
    """Objects, each on its way before its turn."""

    def fetch(name: str) -> Given:
        if not buckets.is_address(name):
            return Given(name, functools.partial(_local, name, roots))
        whole = buckets.is_whole(name)
        why = "the file does not exist" if whole else "it is no address in a bucket; it should read gs://BUCKET/PATH"
        return Given(name, functools.partial(_whole, name, buckets.read(name) if whole else None, why))

    with ThreadPoolExecutor(FETCHERS) as pool:
        yield from ahead(pool, fetch, names, 2 * FETCHERS)


def _whole(name: str, data: bytes | None, why: str) -> bytes:
    if data is None:
        raise BrokenImage(name, why)
    return data


def _cells(part: Part) -> Iterator[Given]:
    name, count = part["parquet"], 0
    try:
        for cell, data in parquet.images(name, part["column"], part["groups"]):
            yield Given(cell, functools.partial(_whole, cell, data, "the cell holds no bytes"))
            count += 1
    except parquet.Damaged as error:
        if not buckets.is_address(name):
            _check_gone(name)
        why = f"{count} of {part['rows']} rows from row group {part['groups'][0]} on could be read, then {error.why}"
        yield Given(name, functools.partial(_whole, name, None, why))


def _members(name: str) -> Iterator[Given]:
    """The images of a tar file, by the paths in it; one that has such a path again is called PATH#2."""
    count = 0
    seen: dict[str, int] = {}
    try:
        for member, read in _archive(name):
            if member.isdir() or not (is_image(member.name) or looks_like_photograph(member.name)):
                continue
            times = seen[member.name] = seen.get(member.name, 0) + 1
            full = f"{name}/{member.name}" + (f"#{times}" if times > 1 else "")
            data, why = _bytes_of(member, read)
            yield Given(full, functools.partial(_whole, full, data, why))
            count += 1
        why = "" if count else "the tar file holds no images"
    except Exception as error:  # tarfile, zlib and lzma meet damage in nearly any way
        if not buckets.is_address(name):
            _check_gone(name)
        elif not isinstance(error, DAMAGE):
            with buckets.one_sentence(name):
                raise
        if isinstance(error, OSError) and error.strerror:
            why = f"the tar file cannot be read ({error.strerror})"
        else:
            images = counted(count, "image")
            why = f"the tar file is damaged or cut off after {images} ({error or type(error).__name__})"
    if why:
        yield Given(name, functools.partial(_whole, name, None, why))


class _Member(tarfile.TarInfo):
    """tarfile takes a header that is damaged or missing for the end of the archive, and reads what is no file at once whatever
    its size; here both are damage."""

    @classmethod
    def frombuf(cls, *given: Any) -> Self:
        found = super().frombuf(*given)
        if found.size > (MOST_HEADER_BYTES if found.type in _HEADERS else MOST_MEMBER_BYTES):
            raise tarfile.ReadError(f"a part of {found.size} bytes")
        return found

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("its end mark is missing" if archive.offset else "empty file") from None


def _archive(name: str) -> Iterator[tuple[tarfile.TarInfo, Callable[[], Any]]]:
    """Members one after the other, and what opens each."""
    stream = buckets.open_object(name) if buckets.is_address(name) else open_regular(name)
    if stream is None:
        raise FileNotFoundError(2, "the file does not exist")
    with stream, io.BufferedReader(stream) as buffered:  # type: ignore[type-var]
        start = buffered.peek(8)
        unpack = next((unpack for magic, unpack in PACKED.items() if start.startswith(magic)), None)
        # not tarfile's own unpacking, which takes time and memory as a bomb asks for them
        plain = buffered if unpack is None else unpack(buffered)
        size = READ_AT_ONCE if unpack is None else tarfile.RECORDSIZE  # of which damage takes all
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member, bufsize=size) as archive:
            for member in archive:
                yield member, functools.partial(archive.extractfile, member)


def _bytes_of(member: tarfile.TarInfo, read: Callable[[], Any]) -> tuple[bytes | None, str]:
    """What a member holds, or why that is no image."""
    if member.islnk() or member.issym():
        return None, f"a link to {member.linkname!r}, which is not followed in a tar file"
    if not member.isfile():
        return None, "a device or a pipe, not a file"
    if not is_image(member.name):
        return None, advice(b"", member.name) or "in a format that is not read; convert it to JPEG, PNG or TIFF first"
    if member.size > MOST_BYTES:
        return None, f"{member.size} bytes are too many for one image"
    data: bytes = read().read()
    if len(data) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data, ""
