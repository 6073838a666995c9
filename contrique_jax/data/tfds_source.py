"""Images of a prepared TensorFlow data set, by number. Nothing is downloaded. Imported only when one is opened.

Both file formats give random access: ArrayRecord has an index of its own, and for TFRecord the places of the records
are collected at opening, which reads eight bytes a record.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from contrique_jax.data.decode import decode
from contrique_jax.errors import BrokenImage, UserError

_PREPARE = "prepare it with `tfds build` (or tfds.builder(...).download_and_prepare()) or set TFDS_DATA_DIR"


class Records(Protocol):
    """Serialised examples by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> bytes: ...


class TfdsSource:
    """`tfds:NAME/SPLIT`: the feature `image` of a prepared data set; NAME may be `name/config:version`."""

    classes = None

    def __init__(self, spec: str, *, field: str, max_pixels: int):
        """Raises UserError, naming `field`, if the data set is not there or has no images."""
        self.name = spec
        self._max_pixels = max_pixels
        name, _, split = spec.removeprefix("tfds:").rpartition("/")
        if not name or not split:
            raise UserError(f"{field}: {spec!r} should read tfds:NAME/SPLIT, e.g. tfds:oxford_iiit_pet/train.")
        try:
            import tensorflow_datasets as tfds
            from tensorflow_datasets.core import read_only_builder
        except ImportError as error:
            raise UserError(
                f"{field}: {spec!r} needs tensorflow and tensorflow-datasets ({error}); install them or name a folder."
            ) from error
        try:
            builder = read_only_builder.builder_from_files(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
        except (tfds.core.DatasetNotFoundError, ValueError, AssertionError, OSError) as error:
            raise UserError(f"{field}: there is no prepared TensorFlow data set {name!r}; {_PREPARE}.") from error
        if "image" not in builder.info.features or not isinstance(builder.info.features["image"], tfds.features.Image):
            found = ", ".join(builder.info.features)
            raise UserError(f"{field}: {spec!r} has no image feature called 'image' (features found: {found}).")
        try:
            shards = builder.info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            known = ", ".join(builder.info.splits)
            raise UserError(f"{field}: {spec!r} has no split {split!r} (splits found: {known}).") from error
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        self._features = tfds.decode.PartialDecoding({"image": True}).extract_features(builder.info.features)
        try:
            self._records = _open_records(builder.info.file_format, shards, field, spec)
        except OSError as error:
            raise UserError(f"{field}: {spec!r} is incomplete ({error}); {_PREPARE}.") from error
        if not len(self._records):
            raise UserError(f"{field}: {spec!r} has no examples.")

    def __len__(self) -> int:
        return len(self._records)

    def item_name(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        try:
            example = self._features.deserialize_example_np(self._records[i], decoders=self._decoders)
        except Exception as error:  # parsers of damaged records raise nearly anything
            raise BrokenImage(self.item_name(i), f"the record cannot be read ({error})") from error
        return decode(bytes(example["image"]), name=self.item_name(i), max_pixels=self._max_pixels)[None]


def _open_records(file_format: Any, shards: Sequence[Any], field: str, spec: str) -> Records:
    kind = file_format.value
    if kind == "tfrecord":
        return TfRecords([(shard.filename, shard.skip, shard.take) for shard in shards])
    if kind != "array_record":
        raise UserError(f"{field}: {spec!r} is stored as {kind}; prepare it as array_record or tfrecord.")
    try:
        from array_record.python.array_record_data_source import ArrayRecordDataSource
    except ImportError as error:
        raise UserError(f"{field}: {spec!r} is stored as ArrayRecord; install array_record ({error}).") from error
    return ArrayRecordDataSource(shards)


class TfRecords:
    """Random access to TFRecord files: where each record lies is read once, at opening. Threads may share it."""

    def __init__(self, shards: Sequence[tuple[str, int, int]]):
        """`shards`: (file, records to skip, records to take). Raises OSError if a file is missing or too short."""
        self._paths = [path for path, _, _ in shards]
        places = [_places(path)[skip : skip + take] for path, skip, take in shards]
        for (path, skip, take), found in zip(shards, places, strict=True):
            if len(found) < take:
                raise OSError(f"{path} holds fewer than {skip + take} records")
        self._places = np.concatenate(places) if places else np.zeros((0, 2), np.int64)
        self._file = np.repeat(np.arange(len(places), dtype=np.int32), [len(p) for p in places])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> bytes:
        start, length = self._places[i].tolist()
        with open(
            self._paths[self._file[i]], "rb", buffering=0
        ) as stream:  # a set may have more files than a process may hold open
            return os.pread(stream.fileno(), length, start)


def _places(path: str) -> np.ndarray:
    """Start and length of each record of a TFRecord file: length (8 bytes), its check sum (4), data, check sum (4)."""
    found = []
    with open(path, "rb", buffering=0) as stream:
        end = os.fstat(stream.fileno()).st_size
        start = 0
        while start + 16 <= end:
            (length,) = struct.unpack("<Q", os.pread(stream.fileno(), 8, start))
            if start + 16 + length > end:
                break
            found.append((start + 12, length))
            start += 16 + length
    return np.array(found, np.int64).reshape(-1, 2)
