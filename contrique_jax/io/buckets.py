"""Objects of a bucket, `gs://BUCKET/PATH`, through gcsfs: read and written whole, and one sentence for whatever fails."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from contrique_jax.errors import UserError
from contrique_jax.io.regular import waiting_for

if TYPE_CHECKING:
    from etils import epath

SILENCE_SECONDS = 60.0  # of a server, after which gcsfs asks again, six times in all
READ_AHEAD = 8 << 20  # bytes of an object that is read piece by piece
_ADDRESS = re.compile(
    r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\x00-\x1f/*?#\[\]]+)*"
)  # the bucket's name by Google's rules


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is of the form SCHEME://..., not a path of this machine."""
    return "://" in str(name)


def check_address(address: str, field: str) -> str:
    """`address` without the slashes at its end. Raises UserError, naming `field`, if it cannot be one of a bucket, and
    if the library for it is not installed."""
    short = address.rstrip("/")
    if not address.startswith("gs://"):
        raise UserError(
            f"{field}: {address}: of addresses only gs://BUCKET/PATH is understood; mount other storage and name its folder."
        )
    if not is_whole(short):
        raise UserError(f"{field}: {address} is no address in a bucket; it should read gs://BUCKET/PATH.")
    check_installed(address, field)
    return short


def is_whole(address: str) -> bool:
    """Whether an address without a slash at its end can be one of a bucket."""
    return _ADDRESS.fullmatch(address) is not None and not {".", ".."} & set(address.split("/"))


def check_installed(address: str, field: str) -> None:
    """Raises UserError, naming `field`, if the library that reads the address is not installed."""
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(
            f"{field}: {address} needs gcsfs, which is not installed: pip install 'contrique-jax[gcs]', or mount the bucket."
        )


@functools.cache
def _gcs() -> Any:
    """gcsfs's file system."""
    import aiohttp  # which gcsfs speaks through
    import fsspec

    # TensorStore and other processes write here too: a listing kept from before would hide that
    patience = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
    ours = {"use_listings_cache": False, "requests_timeout": patience}  # gcsfs itself would wait for ever
    fsspec.config.conf["gs"] = ours | fsspec.config.conf.get("gs", {})
    for name in ("gcsfs", "google"):  # they would print what becomes one sentence here, each with its trace
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return fsspec.filesystem("gs")


def orbax_path(address: str) -> epath.Path:
    """The address as Orbax takes it."""
    from etils import epath
    from etils.epath import gpath

    _gcs()
    # otherwise etils, and so Orbax, would go through TensorFlow's own client wherever TensorFlow is installed; etils settles
    # that at its first path, be it a local one, and remembers it
    os.environ.setdefault("EPATH_USE_TF", "false")
    forget = getattr(getattr(gpath, "_is_tf_installed", None), "cache_clear", None)
    if forget is not None:
        forget()
    return epath.Path(address)


def names(folder: str, field: str = "") -> list[str]:
    """What lies under an address, names relative to it, sorted; none if nothing does.

    Raises UserError, `field` before it, if there is no such bucket, or it cannot be listed.
    """
    with one_sentence(field + folder):
        prefix = folder.removeprefix("gs://") + "/"
        try:
            found = _gcs().find(folder)
        except FileNotFoundError as error:
            raise UserError(f"{field}{folder}: there is no such bucket; make it first, or check its name.") from error
        return sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix) and name[-1] != "/")


def read(address: str) -> bytes | None:
    """An object's bytes, None if there is none. Raises UserError if it cannot be read."""
    with one_sentence(address), suppress(FileNotFoundError):
        return bytes(_gcs().cat_file(address))
    return None


def open_object(address: str) -> BinaryIO | None:
    """An object to be read from its start in bounded memory, None if there is none. Raises UserError if it cannot be
    opened; reads may raise anything (`one_sentence`)."""
    with one_sentence(address), suppress(FileNotFoundError):
        stream: BinaryIO = _gcs().open(address, "rb", cache_type="readahead", block_size=READ_AHEAD)
        return stream
    return None


def write(path: Path, address: str) -> None:
    """Copies a file of this machine to an object, which changes as a whole. Raises UserError if that fails."""
    data = path.read_bytes()
    with one_sentence(address):
        _gcs().pipe_file(address, data)


@contextmanager
def one_sentence(address: str, what: str = "") -> Iterator[None]:
    """Context: whatever the libraries raise over `address` -> UserError, `what` before the reason; an answer that does not
    come is said meanwhile."""
    try:
        with waiting_for(address):
            yield
    except UserError:
        raise
    except Exception as error:  # of gcsfs, aiohttp, google.auth, google.cloud, TensorStore and Orbax
        raise UserError(f"{address}: {what}{_reason(error)}.") from error


def _reason(error: Exception) -> str:
    text, code = " ".join(str(error).split()), str(getattr(error, "code", ""))
    kind = type(error).__name__
    if code == "401" or kind == "DefaultCredentialsError" or "Anonymous caller" in text or "UNAUTHENTICATED" in text:
        return (
            "no credentials that it accepts were found; run `gcloud auth application-default login`, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file"
        )
    if code == "403" or "Forbidden" in text or "PERMISSION_DENIED" in text:
        return "access is denied; these credentials need the rights to see the bucket and to read and write its objects"
    if code == "404" or isinstance(error, FileNotFoundError):
        return "it, or its bucket, does not exist; check the name"
    return f"{text[:200].rstrip('.') or kind}; check the connection and run the same command again"
