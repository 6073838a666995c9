"""Data sets with opinion scores: a csv of paths and scores, checked row by row before anything is computed.

path,mos,subset,group
images/a.png,3.41,indoor,17
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.data.tables import csv_rows
from contrique_jax.errors import UserError

SCORE_COLUMNS = ("mos", "dmos", "score")
LOWER_IS_BETTER = ("dmos",)  # differential scores measure damage


@dataclass(frozen=True)
class ScoredImages:
    """Images with opinion scores, one entry a row of the csv."""

    name: str  # of the data set
    folder: Path  # where relative paths start
    paths: list[Path]
    scores: Float[np.ndarray, " n"]
    groups: list[str]  # images of one group stay on one side of a split
    subsets: list[str] | None
    references: list[Path] | None  # the pristine image of each, in full-reference mode
    score_column: str
    higher_is_better: bool

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, rows: Sequence[int]) -> ScoredImages:
        """The same with these rows only."""
        return dataclasses.replace(
            self,
            paths=[self.paths[i] for i in rows],
            scores=self.scores[list(rows)],
            groups=[self.groups[i] for i in rows],
            subsets=None if self.subsets is None else [self.subsets[i] for i in rows],
            references=None if self.references is None else [self.references[i] for i in rows],
        )


def read_scores(
    path: str | Path,
    *,
    name: str | None = None,
    score_column: str | None = None,
    group_column: str | None = None,
    subset_column: str | None = None,
    reference_column: str | None = None,
    lower_is_better: bool = False,
) -> ScoredImages:
    """Reads the csv at `path`; file names in it are relative to its folder.

    Where a column is not named: the score is the one of `mos`, `dmos`, `score` that is there; `group` and `subset` are
    used if there; without groups the images of one `reference` are a group, and without that each image is its own.
    `dmos` is lower-is-better. Raises UserError for missing columns, scores that are no numbers or all equal, files that
    do not exist, images listed twice, and equal files in different groups, naming the line.
    """
    path = Path(path).expanduser()
    columns, rows = _read_rows(path)

    def column(flag: str, wanted: str | None, default: str | None = None) -> list[str] | None:
        if wanted is not None and wanted not in columns:
            raise UserError(f"{path}: there is no column {wanted!r} for {flag} (columns found: {', '.join(columns)}).")
        chosen = wanted if wanted is not None else (default if default in columns else None)
        return None if chosen is None else [row[chosen] for _, row in rows]

    names = column("the images", "path")
    found = [candidate for candidate in SCORE_COLUMNS if candidate in columns]
    if score_column is None and len(found) != 1:
        what = f"several columns of scores ({', '.join(found)})" if found else "no column of scores"
        raise UserError(f"{path}: {what}; name one with --score-column (columns found: {', '.join(columns)}).")
    chosen = score_column or found[0]
    lines = [line for line, _ in rows]
    scores = _numbers(path, chosen, lines, column("--score-column", chosen) or [])
    if np.ptp(scores) == 0:
        raise UserError(f"{path}: every {chosen} is {scores[0]:g}; scores that do not vary cannot be predicted.")
    references = column("--reference-column", reference_column)
    if references is not None and group_column is None:
        groups: list[str] | None = references
    else:
        groups = column("--group-column", group_column, "group") or column("", None, "reference")
    images = _files(path, lines, names or [], "path")
    _no_image_twice(path, lines, images)
    dataset = ScoredImages(
        name=name or path.parent.resolve().name or path.stem,
        folder=path.parent,
        paths=images,
        scores=scores,
        groups=groups if groups is not None else [str(image) for image in images],
        subsets=column("--subset-column", subset_column, "subset"),
        references=None if references is None else _files(path, lines, references, reference_column or ""),
        score_column=chosen,
        higher_is_better=not (lower_is_better or chosen.lower() in LOWER_IS_BETTER),
    )
    for what, values in ((group_column or "group", dataset.groups), (subset_column or "subset", dataset.subsets)):
        empty = next((line for line, value in zip(lines, values or [], strict=bool(values)) if not value), None)
        if empty is not None:
            raise UserError(f"{path}, line {empty}: the column {what!r} is empty; fill it in.")
    _no_equal_files(path, lines, dataset)
    return dataset


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and (line number, column -> text) of every row that is not empty."""
    lines = csv_rows(path, "--scores")
    columns = [column.strip() for column in next(lines, (0, []))[1]]
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise UserError(f"{path}, line {line}: {len(cells)} values for {len(columns)} columns; mend the row.")
        rows.append((line, dict(zip(columns, map(str.strip, cells), strict=True))))
    if not rows:
        raise UserError(f"{path}: it has no rows; give a header (path, mos) and one row an image.")
    return columns, rows


def _numbers(path: Path, column: str, lines: list[int], texts: Iterable[str]) -> Float[np.ndarray, " n"]:
    values = []
    for line, text in zip(lines, texts, strict=True):
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise UserError(f"{path}, line {line}: {column} is {text!r}; give a number or take the row out.")
        values.append(value)
    return np.array(values, np.float64)


def _files(path: Path, lines: list[int], names: list[str], column: str) -> list[Path]:
    """Names -> paths, all of which exist."""
    files = [path.parent / Path(name).expanduser() for name in names]
    missing = [
        (line, name) for line, name, file in zip(lines, names, files, strict=True) if not name or not file.is_file()
    ]
    if missing:
        line, name = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"{path}, line {line}: {column} {name!r} is no file in {path.parent}{more}; paths are relative to the csv."
        )
    return files


def _no_image_twice(path: Path, lines: list[int], images: list[Path]) -> None:
    """Raises UserError where an image has two rows."""
    first: dict[str, int] = {}
    for line, image in zip(lines, images, strict=True):
        earlier = first.setdefault(os.path.realpath(image), line)
        if earlier != line:
            raise UserError(f"{path}, lines {earlier} and {line}: {image.name} is listed twice; keep one row.")


def _no_equal_files(path: Path, lines: list[int], dataset: ScoredImages) -> None:
    """Raises UserError where files of two groups hold the same bytes: a split would test on what it trained on."""
    by_size: dict[int, list[int]] = {}
    for i, image in enumerate(dataset.paths):
        by_size.setdefault(image.stat().st_size, []).append(i)
    for places in by_size.values():
        if len({dataset.groups[i] for i in places}) < 2:
            continue
        first: dict[bytes, int] = {}
        for i in places:
            with open(dataset.paths[i], "rb") as stream:
                j = first.setdefault(hashlib.file_digest(stream, "sha256").digest(), i)
            if dataset.groups[i] != dataset.groups[j]:
                raise UserError(
                    f"{path}, lines {lines[j]} and {lines[i]}: {dataset.paths[j].name} and {dataset.paths[i].name} are "
                    "the same image in different groups; give them one group or keep one of them."
                )
