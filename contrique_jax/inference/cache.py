"""Features kept between runs, by the hash of the model and of each image's bytes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from contrique_jax.data.clips import content_digest
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.inference.file_features import FileFeatures, name_reduced
from contrique_jax.io.npz import read_npz
from contrique_jax.io.outputs import write_npz
from contrique_jax.io.parts import Parts, packed, unpacked
from contrique_jax.io.progress import progress_bar
from contrique_jax.io.regular import open_regular

FEATURES_VERSION = 4  # raise it when the same image and weights give other features, or the file another form

Features = Float[np.ndarray, " d"]


class FeatureExtractor(Protocol):
    """What turns files into features: an `Extractor`, or statistics made by hand."""

    model_hash: str
    width: int
    max_megapixels: float
    shorter_side: int | None

    def stream(self, paths: Iterable[Path]) -> Iterator[FileFeatures]: ...


def cached_features(
    describer: FeatureExtractor, paths: Sequence[Path], folder: Path | None, data_folder: Path
) -> tuple[dict[Path, Features], list[BrokenImage]]:
    """Features of every file that can be read, and what was wrong with the others.

    Those of images that this model has described before, with the same preprocessing, come from `folder`; `None`
    computes all. An image is known by its bytes, and its bytes by place, size and time of change while these stay as
    they are. One file a model and name of `data_folder`, wherever that lies.
    """
    store = _store(describer, folder, data_folder)
    with _parts(store, describer.width) if store else nullcontext() as parts:
        return _features(describer, paths, _Kept(store, describer.width), parts)


def _parts(store: Path, width: int) -> Parts | nullcontext[None]:
    """What a run that was killed had come to; nothing while another one is at work there."""
    try:
        return Parts(store, {"features": width, "version": FEATURES_VERSION})
    except UserError:
        return nullcontext()


def _features(
    describer: FeatureExtractor, paths: Sequence[Path], known: _Kept, parts: Parts | None
) -> tuple[dict[Path, Features], list[BrokenImage]]:
    contents: dict[Path, str] = {}
    unread: list[BrokenImage] = []
    for path in dict.fromkeys(paths):
        try:
            contents[path] = known.content(path)
            beside = getattr(describer, "reference_of", lambda path: None)(path)
            if beside is not None:
                contents[path] = _short(f"{contents[path]} beside {known.content(beside)}".encode())
        except BrokenImage as error:
            unread.append(error)
        except OSError as error:
            unread.append(BrokenImage(str(path), f"the file cannot be read ({error.strerror})"))
    first = {content: path for path, content in reversed(contents.items())}
    for content in set(contents.values()) - known.features.keys():
        if parts is not None and content in parts:
            known.features[content] = unpacked(parts.get(content)["features"])
    missing = [path for path, content in contents.items() if content not in known.features and first[content] == path]
    broken: dict[str, BrokenImage] = {}
    reduced: list[Path] = []
    try:
        for item in progress_bar(describer.stream(missing), len(missing)):
            if item.broken:
                broken[contents[item.path]] = item.broken
            elif item.features is not None:
                known.features[contents[item.path]] = item.features
                parts = _added(parts, contents[item.path], item.features)
            if item.reduced:
                reduced.append(item.path)
    finally:  # also what an interrupted run has done so far
        known.write()
    name_reduced(reduced, describer.max_megapixels)
    unread += [BrokenImage(str(path), broken[content].why) for path, content in contents.items() if content in broken]
    return {path: known.features[content] for path, content in contents.items() if content in known.features}, unread


def _added(parts: Parts | None, content: str, features: Features) -> Parts | None:
    """Keeps them for an interrupted run; a disk that is full costs a warning, and from then on nothing is kept."""
    if parts is not None:  # one that holds nothing yet is false
        try:
            parts.add(content, {"features": packed(features)})
        except UserError as error:
            print(f"warning: features are not kept in case the run is interrupted: {error}", file=sys.stderr)
            return None
    return parts


def _store(describer: FeatureExtractor, folder: Path | None, data_folder: Path) -> Path | None:
    if folder is None:
        return None
    place = f"{data_folder.resolve().name}|{describer.max_megapixels:g}|{describer.shorter_side}|{FEATURES_VERSION}"
    return folder / f"{describer.model_hash}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.npz"


class _Kept:
    """What an earlier run kept; nothing where there is no file, or one that cannot be used."""

    def __init__(self, store: Path | None, width: int):
        self._store = store
        self._contents: dict[str, str] = {}  # place, size and time of change -> hash of the bytes
        self.features: dict[str, Features] = {}
        self._read = 0
        if store is None:
            return
        try:
            stored = read_npz(store, store.stat().st_size)  # nothing is packed that was written here
            names = [stored[name] for name in ("stamp", "stamped_content", "content")]
            features = stored["features"]
        except (OSError, ValueError, KeyError):
            return
        stamps, stamped, contents = names
        right = all(array.ndim == 1 and array.dtype.kind == "U" for array in names) and features.dtype == np.float32
        right = right and len(stamps) == len(stamped) and features.shape == (len(contents), width)
        if right and np.isfinite(features).all():
            self._contents = dict(zip(stamps.tolist(), stamped.tolist(), strict=True))
            self.features = dict(zip(contents.tolist(), features, strict=True))
            self._read = len(self._contents) + len(self.features)

    def content(self, path: Path) -> str:
        """The hash of the file's bytes, which are read if the file is new or has changed; of a folder that of its frames'.
        Raises OSError and BrokenImage."""
        if path.is_dir():
            return content_digest(path)
        status = path.stat()
        stamp = _short(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode())
        if stamp not in self._contents:
            with open_regular(path) as stream:
                self._contents[stamp] = hashlib.file_digest(stream, "sha256").hexdigest()[:32]
        return self._contents[stamp]

    def write(self) -> None:
        """Keeps what was added; a disk that is full costs a warning, since all of it can be computed again."""
        if self._store is None or not self.features or len(self._contents) + len(self.features) == self._read:
            return
        try:
            write_npz(
                self._store,
                stamp=np.array(list(self._contents)),
                stamped_content=np.array(list(self._contents.values())),
                content=np.array(list(self.features)),
                features=np.array(list(self.features.values()), np.float32),
            )
        except (UserError, OSError) as error:
            print(f"warning: features are not kept for the next time: {error}", file=sys.stderr)


def _short(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]
