"""Data sets with opinion scores, checked row by row before anything is computed: public ones by name, any from a csv.

path,mos,subset,group
images/a.png,3.41,indoor,17
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.data.iqa_sets.layouts import Shelf, find_tables, layout_of
from contrique_jax.data.iqa_sets.ratings import (
    Place,
    Rating,
    equal_files,
    no_equal_files,
    no_image_twice,
    numbers,
    vary,
)
from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import csv_rows

SCORE_COLUMNS = ("mos", "dmos", "score")
LOWER_IS_BETTER = ("dmos",)  # differential scores measure damage
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class ScoredImages:
    """Images with opinion scores, one entry a row of the table."""

    name: str  # of the data set
    folder: Path  # where relative paths start
    paths: list[Path]
    scores: Float[np.ndarray, " n"]
    groups: list[str]  # images of one group stay on one side of a split
    subsets: list[str] | None
    references: list[Path] | None  # the pristine image of each, in full-reference mode
    score_column: str
    higher_is_better: bool
    deviations: Float[np.ndarray, " n"] | None = None  # standard deviations of the opinions, on the scores' scale
    official_split: list[str] | None = None  # train, validation or test, if the authors say which
    score_range: tuple[float, float] | None = None  # of the scale, if it is known
    shorter_side: int | None = None  # images are to be brought to it with `sizes.to_shorter_side`, features come after
    full_size: int | None = None  # images of the whole data set, if it is known

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, rows: Sequence[int]) -> ScoredImages:
        """The same with these rows only."""
        rows = list(rows)
        return dataclasses.replace(
            self,
            paths=[self.paths[i] for i in rows],
            scores=self.scores[rows],
            groups=[self.groups[i] for i in rows],
            subsets=None if self.subsets is None else [self.subsets[i] for i in rows],
            references=None if self.references is None else [self.references[i] for i in rows],
            deviations=None if self.deviations is None else self.deviations[rows],
            official_split=None if self.official_split is None else [self.official_split[i] for i in rows],
        )


def read_set(name: str, folder: str | Path, *, with_references: bool = False, field: str = "--images") -> ScoredImages:
    """The public data set `name` (iqa_layouts.LAYOUTS) from `folder`, as its authors distribute it.

    Images of one reference, or of one prompt, are a group; elsewhere each image is one, and equal files share one. With
    `with_references`, for full-reference mode, the pristine images are looked up too. Raises UserError, naming `field`
    or the row: an unknown name, missing tables, folders or images, no references in the set, a row without a number,
    scores that do not vary, an image listed twice, equal images of different references.
    """
    layout = layout_of(name, "--dataset" if field == "--images" else field)
    if with_references and not layout.references:
        raise UserError(f"--full-reference: {layout.name} has no pristine images to compare with.")
    folders = [layout.image_folders] + ([layout.reference_folders] if with_references else [])
    root, tables = find_tables(layout, Path(folder).expanduser(), folders, field)
    ratings = list(layout.read(tables))
    if not ratings:
        raise UserError(f"{tables[0]}: it lists no images; unpack it again.")
    places = [rating.place for rating in ratings]
    scores = numbers(places, [rating.score for rating in ratings], layout.score)
    vary(tables[0], scores, layout.score)
    images = _found(layout.name, root, layout.image_folders, places, [rating.image for rating in ratings])
    no_image_twice(places, images)
    groups = [rating.group if rating.group is not None else rating.image for rating in ratings]
    references = None
    if with_references:
        pristine = [rating.reference or "" for rating in ratings]
        references = _found(layout.name, root, layout.reference_folders, places, pristine, "reference ")
    if layout.references:
        no_equal_files(places, images, groups)
    else:  # nobody can fix what the authors published, and one group is enough
        for i, j in equal_files(images, groups):
            groups = [groups[i] if group == groups[j] else group for group in groups]
    given = [rating.deviation for rating in ratings if rating.deviation is not None]
    return ScoredImages(
        name=layout.name,
        folder=root,
        paths=images,
        scores=scores,
        groups=groups,
        subsets=_column(ratings, "subset"),
        references=references,
        score_column=layout.score,
        higher_is_better=layout.higher_is_better,
        deviations=numbers(places, given, "the standard deviation") if len(given) == len(ratings) else None,
        official_split=_column(ratings, "part"),
        score_range=layout.score_range,
        shorter_side=layout.shorter_side,
        full_size=layout.images,
    )


def _column(ratings: Sequence[Rating], field: str) -> list[str] | None:
    values = [getattr(rating, field) for rating in ratings]
    return None if None in values else values


def _found(
    name: str, root: Path, folders: Sequence[str], places: Sequence[Place], names: Sequence[str], kind: str = ""
) -> list[Path]:
    """Names -> files. Raises UserError if some are missing, saying how many and which is the first."""
    shelf = Shelf([root / folder for folder in folders])
    files = [shelf.find(image) for image in names]
    missing = [i for i, file in enumerate(files) if file is None]
    if missing:
        i = missing[0]
        raise UserError(
            f"{places[i]}: the {kind}image {names[i]!r} is not in {root} ({len(missing)} of {len(files)} rows of "
            f"{name} have none); unpack its archives again."
        )
    return [file for file in files if file is not None]


def read_scores(
    path: str | Path,
    *,
    name: str | None = None,
    score_column: str | None = None,
    group_column: str | None = None,
    subset_column: str | None = None,
    reference_column: str | None = None,
    deviation_column: str | None = None,
    lower_is_better: bool = False,
    shorter_side: int | None = None,
    field: str = "--scores",
) -> ScoredImages:
    """Reads the csv at `path`; file names in it are relative to its folder.

    Where a column is not named: the score is the one of `mos`, `dmos`, `score` that is there; `group` and `subset` are
    used if there; without groups the images of one `reference` are a group, and without that each image is its own.
    `dmos` is lower-is-better. Raises UserError for a file that cannot be read, naming `field`, for missing columns, scores
    that are no numbers or all equal, deviations that are not above 0, files that do not exist, images listed twice, and
    equal files in different groups, naming the line.
    """
    path = Path(path).expanduser()
    columns, rows = _read_rows(path, field)

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
    places = [Place(path, line) for line, _ in rows]
    scores = numbers(places, column("--score-column", chosen) or [], chosen)
    vary(path, scores, chosen)
    opinions = column("--deviation-column", deviation_column)
    references = column("--reference-column", reference_column)
    if references is not None and group_column is None:
        groups: list[str] | None = references
    else:
        groups = column("--group-column", group_column, "group") or column("", None, "reference")
    images = _files(places, names or [], "path")
    no_image_twice(places, images)
    dataset = ScoredImages(
        name=name or path.parent.resolve().name or path.stem,
        folder=path.parent,
        paths=images,
        scores=scores,
        groups=groups if groups is not None else [str(image) for image in images],
        subsets=column("--subset-column", subset_column, "subset"),
        references=None if references is None else _files(places, references, reference_column or ""),
        score_column=chosen,
        higher_is_better=not (lower_is_better or chosen.lower() in LOWER_IS_BETTER),
        deviations=None if opinions is None else _above_zero(places, opinions, deviation_column or ""),
        shorter_side=shorter_side,
    )
    for what, values in ((group_column or "group", dataset.groups), (subset_column or "subset", dataset.subsets)):
        empty = next((place for place, value in zip(places, values or [], strict=bool(values)) if not value), None)
        if empty is not None:
            raise UserError(f"{empty}: the column {what!r} is empty; fill it in.")
    no_equal_files(places, images, dataset.groups)
    return dataset


def csv_columns(path: str | Path, field: str) -> list[str]:
    """The names in the header of a csv. Raises UserError, naming `field`, if it cannot be read."""
    path = Path(path).expanduser()
    return _header(path, csv_rows(path, field))


def _header(path: Path, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    columns = [column.strip() for column in next(lines, (0, []))[1]]
    found = [name for separator, name in OTHER_SEPARATORS.items() if len(columns) == 1 and separator in columns[0]]
    if found:
        raise UserError(f"{path}: its columns are separated by {found[0]}; separate the columns by commas.")
    return columns


def _read_rows(path: Path, field: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and (line number, column -> text) of every row that is not empty."""
    lines = csv_rows(path, field)
    columns = _header(path, lines)
    rows = []
    for line, cells in lines:
        if len(cells) != len(columns):
            raise UserError(f"{path}, line {line}: {len(cells)} values for {len(columns)} columns; fix the row.")
        rows.append((line, dict(zip(columns, map(str.strip, cells), strict=True))))
    if not rows:
        raise UserError(f"{path}: it has no rows; give a header (path, mos) and one row an image.")
    return columns, rows


def _above_zero(places: list[Place], texts: list[str], column: str) -> Float[np.ndarray, " n"]:
    values = numbers(places, texts, column)
    if (values <= 0).any():
        i = int(np.argmax(values <= 0))
        raise UserError(f"{places[i]}: {column} is {texts[i]!r}; a standard deviation of opinions is above 0.")
    return values


def _files(places: list[Place], names: list[str], column: str) -> list[Path]:
    """Names -> paths, all of which exist."""
    folder = places[0].path.parent
    files = [folder / Path(name).expanduser() for name in names]
    missing = [
        (place, name) for place, name, file in zip(places, names, files, strict=True) if not name or not file.is_file()
    ]
    if missing:
        place, name = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{place}: {column} {name!r} is no file in {folder}{more}; paths are relative to the csv.")
    return files
