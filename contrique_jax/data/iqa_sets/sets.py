"""Data sets with opinion scores, checked row by row before anything is computed: public ones by name, any from a csv.

path,mos,subset,group
images/a.png,3.41,indoor,17
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.data.clips import is_frames
from contrique_jax.data.iqa_sets.layouts import Shelf, find_tables, layout_of
from contrique_jax.data.iqa_sets.ratings import (
    Place,
    Rating,
    equal_files,
    equal_files_together,
    merged_groups,
    no_equal_files,
    no_image_twice,
    numbers,
    vary,
)
from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.csv_rows import PATHS_ALIKE, SCORES_ALIKE, Table, beside, is_file, located, open_table

SCORE_COLUMNS = ("mos", "dmos", "score")
LOWER_IS_BETTER = ("dmos",)  # differential scores measure damage


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
        groups = merged_groups(groups, equal_files(images, groups))
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
    path_column: str | None = None,
    score_column: str | None = None,
    group_column: str | None = None,
    subset_column: str | None = None,
    reference_column: str | None = None,
    deviation_column: str | None = None,
    lower_is_better: bool = False,
    shorter_side: int | None = None,
    keep_duplicates_apart: bool = False,
    field: str = "--scores",
) -> ScoredImages:
    """Reads the csv at `path`; file names in it are relative to its folder (`csv_rows.beside` has the one exception).

    Where a column is not named: images are in `path`, the score is the one of `mos`, `dmos`, `score` that is there; `group`
    and `subset` are used if there; without groups the images of one `reference` are a group, and without that each image
    is its own. `dmos` is lower-is-better. Files that hold the same bytes are named on stderr, and their groups become one
    unless `keep_duplicates_apart`. Raises UserError for a file that cannot be read, naming `field`, for columns that are
    missing or of one name, scores that are no numbers or all equal, deviations that are not above 0, files that do not
    exist and images listed twice, naming the line.
    """
    path = _on_this_machine(path, field)
    table = open_table(path, field)
    images_in = path_column or "path"
    at = {"path": table.column(images_in, "--path-column", () if path_column else PATHS_ALIKE)}
    chosen = score_column or _score_column(table)
    for what, given, default in (
        ("score", chosen, None),
        ("group", group_column, "group"),
        ("subset", subset_column, "subset"),
        ("reference", reference_column, "reference"),
        ("deviation", deviation_column, None),
    ):
        if given or default in table.columns:
            at[what] = table.column(given or default or "", f"--{what}-column")
    rows = list(table.rows(*at.values()))
    if not rows:
        raise UserError(f"{path}: it has no rows; give a header (path, mos) and one row an image.")
    places = [Place(path, line) for line, _ in rows]
    cells = dict(zip(at, map(list, zip(*(cells for _, cells in rows), strict=True)), strict=True))
    decimal_commas = table.separator == ";"
    scores = numbers(places, cells["score"], chosen, decimal_commas)
    vary(path, scores, chosen)
    for what in ("group", "subset"):
        if "" in cells.get(what, []):
            column = table.columns[at[what]]
            raise UserError(f"{places[cells[what].index('')]}: the column {column!r} is empty; fill it in.")
    folder = beside(path, cells["path"])
    images = _files(places, cells["path"], images_in, folder)
    no_image_twice(places, images)
    references = cells["reference"] if reference_column is not None else None
    order = ("reference", "group") if references and group_column is None else ("group", "reference")
    groups = next((cells[what] for what in order if what in cells), None) or [str(image) for image in images]
    if "" in groups:
        raise UserError(f"{places[groups.index('')]}: the column 'reference' is empty; fill it in.")
    return ScoredImages(
        name=name or path.parent.resolve().name or path.stem,
        folder=folder,
        paths=images,
        scores=scores,
        groups=equal_files_together(places, images, groups, keep_duplicates_apart),
        subsets=cells.get("subset"),
        references=None if references is None else _files(places, references, reference_column or "", folder),
        score_column=chosen,
        higher_is_better=not (lower_is_better or chosen.lower() in LOWER_IS_BETTER),
        deviations=_above_zero(places, cells["deviation"], deviation_column or "", decimal_commas)
        if "deviation" in cells
        else None,
        shorter_side=shorter_side,
    )


def _score_column(table: Table) -> str:
    """The one of SCORE_COLUMNS that is there. Raises UserError if there is none, or one more but for letter case."""
    found = [column for column in table.columns if column.lower() in SCORE_COLUMNS]
    if len(set(found)) == 1 and found[0] in SCORE_COLUMNS:
        return found[0]
    several, similar = list(dict.fromkeys(found)), list(dict.fromkeys(table.alike(SCORES_ALIKE)))
    if len(several) > 1:
        what = f"several columns of scores ({', '.join(several)}); name one with --score-column"
    elif len(similar) == 1:
        what = f"no column of scores called {' or '.join(SCORE_COLUMNS)}; is it {similar[0]!r}? "
        what += f"say --score-column {similar[0]!r}"
    else:
        what = "no column of scores; name one with --score-column" + ", ".join([""] + similar)
    raise UserError(f"{table}: {what} ({table.found}).")


def csv_columns(path: str | Path, field: str) -> list[str]:
    """The names in the header of a csv. Raises UserError, naming `field`, if it cannot be read."""
    return open_table(_on_this_machine(path, field), field).columns


def _on_this_machine(path: str | Path, field: str) -> Path:
    if buckets.is_address(path):
        raise UserError(
            f"{field}: {path}: opinions are read from files of this machine; copy the table and its images."
        )
    return Path(path).expanduser()


def _above_zero(places: list[Place], texts: list[str], column: str, decimal_commas: bool) -> Float[np.ndarray, " n"]:
    values = numbers(places, texts, column, decimal_commas)
    if (values <= 0).any():
        i = int(np.argmax(values <= 0))
        raise UserError(f"{places[i]}: {column} is {texts[i]!r}; a standard deviation of opinions is above 0.")
    return values


def _files(places: list[Place], names: list[str], column: str, folder: Path) -> list[Path]:
    """Names -> paths, all of which exist."""
    missing = [
        (place, name)
        for place, name in zip(places, names, strict=True)
        if not is_file(folder, name) and not is_frames(located(folder, name))
    ]
    if missing:
        place, name = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        turned = name.replace("\\", "/")
        advice = "write / for \\" if is_file(folder, turned) else "paths are relative to the csv"
        raise UserError(f"{place}: {column} {name!r} is no file in {folder}{more}; {advice}.")
    return [located(folder, name) for name in names]
