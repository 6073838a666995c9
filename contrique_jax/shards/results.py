"""What is written of a shard: scores as Parquet or csv, broken images as csv, features as .npz."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.io.npz import read_npz
from contrique_jax.shards import parquet
from contrique_jax.shards.place import Place
from contrique_jax.shards.plan import Counts, shard_name

FORMATS = ("parquet", "csv")
DIGITS = ".6g"  # of numbers in a csv, as `score` writes them


@dataclass(frozen=True)
class Row:
    """A scored image, as the columns of the table are; None where the model gives none of it."""

    path: str
    score: float
    deviation: float | None
    low: float | None  # the 90 % interval
    high: float | None
    raw: float | None  # the probe's own score, if `score` is on a scale of 0 to 100
    distortion: str | None  # the likeliest, or "none"
    level: float | None  # 1..5, 0 for none
    probability: float | None
    width: int  # before it is scaled down
    height: int
    reduced: bool  # to --max-megapixels, or to what memory has room for
    bytes: int
    content: str  # 32 hexadecimal digits of the SHA-256 of the file's bytes
    model: str


KINDS = {
    **dict.fromkeys(("path", "distortion", "content", "model"), "string"),
    **dict.fromkeys(("width", "height"), "int32"),
    "reduced": "bool",
    "bytes": "int64",
}
SIDE = ("width", "height", "reduced", "bytes", "content")  # columns that are kept beside features too
COLUMNS = {name.name: KINDS.get(name.name, "float64") for name in fields(Row)}


@dataclass
class Results:
    """All of one shard; features [n, d], float32, of the rows if they are asked for."""

    rows: list[Row] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    features: list[np.ndarray] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        return Counts(len(self.rows) + len(self.broken), len(self.rows), len(self.broken))


def write(place: Place, number: int, results: Results, kind: str, about: dict[str, str]) -> None:
    """Writes all of a shard's files, each whole: the rows, in the format `kind`, last. Raises UserError."""
    name = shard_name(number)
    if results.features:
        with place.write(f"features-{name}.npz") as temporary:
            _write_features(temporary, results, about["model"])
    if results.broken:
        with place.write(f"broken-{name}.csv") as temporary:
            _write_csv(temporary, ("path", "reason"), results.broken)
    with place.write(f"scores-{name}.{kind}") as temporary:
        if kind == "csv":
            _write_csv(
                temporary, list(COLUMNS), ([_text(getattr(row, name)) for name in COLUMNS] for row in results.rows)
            )
        else:
            columns = {column: [_storable(getattr(row, column)) for row in results.rows] for column in COLUMNS}
            parquet.write(temporary, columns, COLUMNS, about)


def read_features(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    """What `--features` has kept of a shard: path, features, model_hash as `contrique-jax features` writes them; width,
    height, bytes, content beside them. Raises ValueError and OSError."""
    found = read_npz(path, most_bytes)
    count = len(found["path"])
    if found["features"].dtype != np.float32 or any(len(found[name]) != count for name in ("features", *SIDE)):
        raise ValueError("its arrays do not fit each other")
    return found


def _write_features(path: Path, results: Results, model: str) -> None:
    side: dict[str, Any] = {name: np.array([getattr(row, name) for row in results.rows]) for name in SIDE}
    names = np.array([_storable(row.path) for row in results.rows])
    with open(path, "wb") as stream:
        np.savez(stream, path=names, features=np.stack(results.features), model_hash=np.array(model), **side)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """File names that are not UTF-8 come out as they are."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else format(value, DIGITS) if isinstance(value, float) else value


def _storable(value: Any) -> Any:
    """Of file names that are not UTF-8 the bytes in question as \\xff, which Parquet takes."""
    return (
        value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
    )
