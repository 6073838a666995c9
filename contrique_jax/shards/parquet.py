"""Parquet tables: those that name images or hold them, and that of the scores. pyarrow is imported here alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.csv_rows import PATHS_ALIKE

FLAG = "--path-column"
BATCH_ROWS = 64  # of a table that holds images, in memory at a time


class Damaged(UserError):
    """A table that cannot be read, and why."""

    def __init__(self, path: str, why: str):
        super().__init__(f"PATH: {path} cannot be read as a Parquet table ({why}).")
        self.why = why


def pyarrow() -> ModuleType:
    """Raises UserError if it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Parquet: it needs pyarrow: pip install 'contrique-jax[beam]', or say --format csv and name no Parquet tables."
        ) from error
    return pyarrow


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    pa = pyarrow()
    stream: Any = path
    if buckets.is_address(path):
        stream = buckets.open_object(path)
        if stream is None:
            raise UserError(f"PATH: {path} does not exist.")
    try:
        with pa.parquet.ParquetFile(stream) as table:
            yield table
    except (UserError, ImportError):
        raise
    except Exception as error:  # pyarrow meets damage in nearly any way
        if buckets.is_address(path) and not isinstance(error, pa.ArrowException | ValueError | LookupError):
            with buckets.one_sentence(path):
                raise
        why = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise Damaged(path, f"{why:.200}") from error


def look(path: str, column: str | None, rows: int) -> list[Any]:
    """Of a table that names images their names; of one that holds them, as bytes or as structures {bytes, path}, its parts of
    about so many `rows`. Raises UserError if it cannot be read, is empty or has no such column."""
    pa = pyarrow()
    with _opened(path) as table:
        schema = table.schema_arrow
        name = column or next((known for known in ("path", "image") if known in schema.names), "path")
        if name not in schema.names:
            alike = [other for other in schema.names if other.lower() in PATHS_ALIKE]
            advice = f"; is it {alike[0]!r}? say {FLAG} {alike[0]!r}" if alike else f"; name it with {FLAG}"
            raise UserError(f"PATH: {path} has no column {name!r} (columns: {', '.join(schema.names[:20])}){advice}.")
        if schema.names.count(name) > 1:
            raise UserError(
                f"PATH: {path}: {schema.names.count(name)} columns are called {name!r}; rename all but one."
            )
        if not table.metadata.num_rows:
            raise UserError(f"PATH: {path} has no rows; give one an image.")
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if any(is_it(kind) for is_it in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
            return _names(path, name, table.read([name]).column(name).to_pylist())
        if not _holds_images(pa, kind):
            raise UserError(f"PATH: {path}: the column {name!r} holds {kind}; images are bytes, their names strings.")
        return _parts(path, name, [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)], rows)


def _holds_images(pa: ModuleType, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        kind = next((kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"), pa.null())
    return any(is_it(kind) for is_it in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _names(path: str, column: str, names: list[str | None]) -> list[Any]:
    for row, name in enumerate(names):
        if not name:
            raise UserError(f"{path}, row {row + 1}: the column {column!r} is empty.")
    return list(names)


def _parts(path: str, column: str, groups: Sequence[int], most: int) -> list[Any]:
    """Runs of row groups of at most `most` rows, or one that has more."""
    found: list[Any] = []
    for i, rows in enumerate(groups):
        last = found[-1] if found else None
        if last is None or last["rows"] + rows > most:
            last = {"parquet": path, "column": column, "groups": [i, 0], "rows": 0}
            found.append(last)
        last["groups"][1] += 1
        last["rows"] += rows
    return found


def images(path: str, column: str, groups: Sequence[int]) -> Iterator[tuple[str, bytes | None]]:
    """(FILE#ROW, the image's bytes, None for an empty cell) of so many row groups from the first. Raises Damaged, and
    UserError if a bucket fails."""
    first, count = groups
    with _opened(path) as table:
        row = sum(table.metadata.row_group(i).num_rows for i in range(first))
        wanted = list(range(first, first + count))
        for batch in table.iter_batches(BATCH_ROWS, row_groups=wanted, columns=[column]):
            for cell in batch.column(0):
                value = cell.as_py()
                yield f"{path}#{row}", value.get("bytes") if isinstance(value, dict) else value
                row += 1


def write(path: Path, columns: dict[str, list[Any]], kinds: dict[str, str], about: dict[str, str]) -> None:
    """A table of columns of those types, by Arrow's names, with `about` in its metadata. Raises OSError."""
    pa = pyarrow()
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()], metadata=about)
    pa.parquet.write_table(pa.table(columns, schema=schema), path, compression="zstd")
