"""Sources of images by number: folders, csv manifests, arrays, TensorFlow data sets and procedural scenes.

Opening a source lists it and reads no image: a broken file is found, named and counted when it is loaded.
"""

from __future__ import annotations

import os
import threading
from array import array
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int16, UInt8

from contrique_jax.data.decode import EXTENSIONS, decode, read
from contrique_jax.data.image_files import LeftOut, is_image, looks_like_photograph, walk
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.io import buckets
from contrique_jax.io.csv_rows import PATHS_ALIKE, open_table
from contrique_jax.io.regular import open_regular

Role = str  # a field of config.data; of scenes, and of the column `class`, "pristine" is what it says
_CLASS_IDS = {str(number): number for number in range(NUM_CLASSES)}
KEPT_SCENES, KEPT_PAIRS = 1 << 29, 1 << 30  # bytes
_FORMS = "a folder, F.csv, tfds:NAME/SPLIT, arrays:F.npy or scenes:N"


class Source(Protocol):
    """Records by number: each a stack of k images of one size, 1 for a photograph, 2 for an image and its reference, the
    number of frames for a clip. Threads may share a source."""

    name: str

    @property
    def classes(self) -> Int16[np.ndarray, " n"] | None:
        """The classes, 0..125, of images that are distorted already; None if they are not."""

    def __len__(self) -> int: ...

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        """Record i, upright RGB; the array may be read-only. Raises BrokenImage if it cannot be read."""

    def item_name(self, i: int) -> str:
        """What to call record i in a table: a file's name within the source, or `source[i]`."""


def open_source(
    spec: str,
    *,
    role: Role,
    field: str,
    seed: int = 0,
    max_pixels: int = 200_000_000,
    canvas: tuple[int, int] = (384, 512),
) -> Source:
    """The source that `spec` names.

    - a folder: its images and those of its subfolders, in the order of their names; hidden files are left out
    - `F.csv`: column `path`, in the file's order, relative to the folder of F.csv, absolute or an address in a bucket; where
      the role is pristine and there is a column `class`, the images are distorted already and these are their classes; the
      rest is ignored
    - `gs://BUCKET/FOLDER` and `gs://BUCKET/F.csv`: the same in a bucket; each image is fetched when it is its turn
    - `tfds:NAME/SPLIT`: feature `image` of a data set that TensorFlow Datasets has prepared (never downloaded here)
    - `arrays:F.npy`: uint8 [N, H, W, 3] or [N, K, H, W, 3], read from disk record by record
    - `clips:FOLDER` or `clips:F.csv`: videos and folders of numbered frames (`clips.open_clips`), for recipes of clips
    - `scenes:N` or `scenes:N@SEED`: N procedural scenes, pristine or authentic as `role` says; SEED else `seed`

    If the role is "rated": what `evaluate` takes, a csv of images with scores or NAME=FOLDER, references make pairs; or
    `bank:PHOTOS`, PHOTOS one of the above: pairs of photographs under the bank's distortions, which a teacher is to score.

    `field` is the configuration field that messages name; images over `max_pixels` count as broken; `canvas` is the height
    and width at which pristine scenes are drawn. Raises UserError if the source is missing, empty or of an unknown form.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind == "tfds":
        from contrique_jax.data.tfds_source import TfdsSource

        return TfdsSource(spec, field=field, max_pixels=max_pixels)
    if colon and kind == "arrays":
        return ArraySource(spec, Path(rest).expanduser(), field=field)
    if colon and kind == "clips":
        from contrique_jax.data.clips import open_clips

        return open_clips(spec, field, max_pixels)
    if colon and kind == "scenes":
        return CachedSource(SceneSource(spec, role=role, field=field, seed=seed, canvas=canvas), KEPT_SCENES)
    if not spec:
        forms = "F.csv with a column of scores, NAME=FOLDER or bank:PHOTOS" if role == "rated" else _FORMS
        raise UserError(f"{field}: no source is given; give {forms}.")
    if role == "rated" and colon and kind == "bank":
        from contrique_jax.data.bank_pairs import SIDE, BankPairs

        inner = open_source(rest, role="pristine", field=field, seed=seed, max_pixels=max_pixels, canvas=(SIDE, SIDE))
        return CachedSource(BankPairs(inner, seed), KEPT_PAIRS)
    if role == "rated":
        from contrique_jax.data.rated import open_rated

        return open_rated(spec, field, max_pixels)
    if buckets.is_address(spec):
        return _in_bucket(spec, buckets.check_address(spec, field), role, field, max_pixels)
    path = Path(spec).expanduser()
    if path.is_dir() and (path / "distort.json").exists():
        raise UserError(f"{field}: {path} holds images distorted already; give {path / 'manifest.csv'}.")
    if path.is_dir():
        left_out = LeftOut()
        return FileSource(spec, path, _folder_names(path, field, left_out), max_pixels, left_out=left_out)
    if path.suffix.lower() == ".csv":
        names, classes = _manifest(path, field, with_classes=role == "pristine")
        return FileSource(spec, path.parent, names, max_pixels, classes)
    if path.exists():
        raise UserError(f"{field}: {spec!r} is neither a folder nor a .csv manifest; give {_FORMS}.")
    raise UserError(f"{field}: {spec!r} does not exist; give {_FORMS}.")


class FileSource:
    """Image files under one folder."""

    def __init__(
        self,
        name: str,
        folder: Path | str,
        names: list[str],
        max_pixels: int,
        classes: Int16[np.ndarray, " n"] | None = None,
        left_out: LeftOut | None = None,
    ):
        """`names`: paths relative to `folder`, absolute, or addresses in a bucket, as `folder` may be one; `left_out`: what
        their listing passed by."""
        self.name, self.classes, self.left_out = name, classes, left_out or LeftOut()
        self._folder, self._names, self._max_pixels = str(folder), names, max_pixels

    def __len__(self) -> int:
        return len(self._names)

    def item_name(self, i: int) -> str:
        return self._names[i]

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        name = self._names[i]
        path = name if buckets.is_address(name) else os.path.join(self._folder, name)
        if buckets.is_address(path):
            found = buckets.read(path)
            if found is None:
                raise BrokenImage(path, "the file does not exist")
            return decode(found, name=path, max_pixels=self._max_pixels)[None]
        return read(Path(path), self._max_pixels)[None]


class ArraySource:
    """`arrays:F.npy`: a memory-mapped uint8 array [N, H, W, 3] or [N, K, H, W, 3]."""

    classes = None

    def __init__(self, name: str, path: Path, *, field: str):
        self.name = name
        if buckets.is_address(name):
            raise UserError(f"{field}: {name}: an array in a bucket cannot be memory-mapped; copy it to a local disk.")
        try:
            open_regular(path).close()
            self._images = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise UserError(f"{field}: {path} does not exist.") from error
        except Exception as error:  # NumPy meets damage in nearly any way
            raise UserError(f"{field}: {path} cannot be read as a .npy array ({error}).") from error
        shape, dtype = getattr(self._images, "shape", None), getattr(self._images, "dtype", None)
        if shape is None:
            raise UserError(f"{field}: {path} holds several arrays; save the images alone, with numpy.save.")
        if dtype != np.uint8 or len(shape) not in (4, 5) or shape[-1] != 3 or 0 in shape:
            raise UserError(f"{field}: {path} holds {dtype} {list(shape)}, but uint8 [N, H, W, 3] is needed.")

    def __len__(self) -> int:
        return len(self._images)

    def item_name(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        record = np.array(self._images[i])
        return record if record.ndim == 4 else record[None]


class CachedSource:
    """Another source whose images stay in memory once decoded, the first ones up to `limit` bytes; the rest is decoded anew."""

    def __init__(self, source: Source, limit: int):
        self.name, self.classes = source.name, source.classes
        self.left_out = getattr(source, "left_out", None)
        self.source, self._limit, self._used = source, limit, 0
        self._kept: dict[int, UInt8[np.ndarray, "k h w 3"]] = {}
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def item_name(self, i: int) -> str:
        return self.source.item_name(i)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        image = self._kept.get(i)
        if image is None:
            image = self.source.load(i)
            with self._counting:
                if i not in self._kept and self._used + image.nbytes <= self._limit:
                    self._kept[i] = image
                    self._used += image.nbytes
        return image


class SceneSource:
    """`scenes:N[@SEED]`: procedural scenes; the same number gives the same scene on any machine.

    Drawing one takes many times longer than decoding a photograph: keep them (`CachedSource`).
    """

    classes = None

    def __init__(self, name: str, *, role: Role, field: str, seed: int, canvas: tuple[int, int]):
        self.name = name
        count, at, held_out = name.removeprefix("scenes:").partition("@")
        try:
            self._count, self._seed = int(count), int(held_out) if at else seed
        except ValueError as error:
            raise UserError(f"{field}: {name!r} should read scenes:N or scenes:N@SEED, e.g. scenes:2000.") from error
        if self._count < 1:
            raise UserError(f"{field}: {name!r} has no scenes; give at least scenes:1.")
        self._role, self._canvas = role, canvas

    def __len__(self) -> int:
        return self._count

    def item_name(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        from contrique_jax.data.scenes import authentic_scene, pristine_scene  # with all it draws with, slow to import

        if self._role == "pristine":
            return pristine_scene(self._seed, i, *self._canvas)[None]
        return authentic_scene(self._seed, i)[None]


def _in_bucket(spec: str, address: str, role: Role, field: str, max_pixels: int) -> FileSource:
    if address.lower().endswith(".csv"):
        listed, classes = _manifest(address, field, with_classes=role == "pristine")
        return FileSource(spec, address.rpartition("/")[0], listed, max_pixels, classes)
    found = buckets.names(address, f"{field}: ")
    if "distort.json" in found:
        raise UserError(f"{field}: {address} holds images distorted already; give {address}/manifest.csv.")
    names = [name for name in found if is_image(name)]
    left_out = LeftOut([f"{address}/{name}" for name in found if looks_like_photograph(name)])
    if not names:
        raise _no_images(address, field, left_out)
    return FileSource(spec, address, names, max_pixels, left_out=left_out)


def _folder_names(folder: Path, field: str, left_out: LeftOut) -> list[str]:
    names = sorted(walk(folder, field, left_out))
    if not names:
        raise _no_images(f"the folder {folder}", field, left_out)
    return names


def _no_images(place: str, field: str, left_out: LeftOut) -> UserError:
    passed_by = "".join(f"; {sentence}" for sentence in left_out.sentences())
    return UserError(f"{field}: {place} holds no images (known extensions: {' '.join(sorted(EXTENSIONS))}){passed_by}.")


def _manifest(path: Path | str, field: str, with_classes: bool) -> tuple[list[str], Int16[np.ndarray, " n"] | None]:
    """The column `path` of a csv file, and the column `class` if it is there and asked for."""
    table = open_table(path, field)
    places = [table.column("path", alike=PATHS_ALIKE)]
    has_classes = with_classes and "class" in table.columns
    if has_classes:
        places.append(table.column("class"))
    names, classes = [], array("h")
    for line, (name, *rest) in table.rows(*places):
        if not name:
            raise UserError(f"{field}: {path}, line {line}: the column 'path' is empty.")
        names.append(name)
        for text in rest:
            if text not in _CLASS_IDS:
                raise UserError(
                    f"{field}: {path}, line {line}: the column 'class' is {text!r}; give every row of distorted images its "
                    f"class, 0 to {NUM_CLASSES - 1}, or take the column out if the images are clean."
                )
            classes.append(_CLASS_IDS[text])
    if not names:
        raise UserError(f"{field}: {path} has a header ({table.found}) but no rows.")
    return names, np.array(classes, np.int16) if has_classes else None
