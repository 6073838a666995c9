"""`contrique-jax convert csv-from-original F.csv OUT.csv` and `csv-to-original`: the original's lists of training images
(`File_names`, `labels`) as manifests (`path`, `class`) and back, row by row.

`labels` is the text of 126 numbers: one 1 at the class of a distorted image, only zeros for an authentic one. Which column
stands for which distortion is not known (docs/contrique.md), and training asks only which classes are equal: the
column's number, from 0, is taken as the class.
"""

from __future__ import annotations

import argparse
import csv
import functools
from collections.abc import Callable
from pathlib import Path

from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import number, open_table
from contrique_jax.io.outputs import atomic_write, output_path

ORIGINAL, OURS = ("File_names", "labels"), ("path", "class")
HELP = (
    "A csv of the original (columns File_names, labels) and a manifest for config.data.pristine or config.data.authentic "
    "(columns path, class) say the same: class is the place of the 1 in labels, 0 to 125, and empty if labels are all "
    "zero (authentic images). Which distortion a place stands for is not known; training asks only which classes are "
    "equal. Names are kept as they are: a manifest's are relative to its folder. Other columns are left out."
)


def csv_from_original_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = HELP
    parser.epilog = "Example: contrique-jax convert csv-from-original training.csv distorted.csv"
    parser.add_argument("csv", metavar="F.csv", help="columns File_names, labels")
    parser.add_argument("out", metavar="OUT.csv")


def csv_from_original(args: argparse.Namespace) -> None:
    """Raises UserError naming the first line that is off."""
    out = output_path("OUT", args.out, (".csv",))
    counts = rewrite(Path(args.csv).expanduser(), out, ORIGINAL, OURS, class_of)
    print(f"{out}: {counts}")


def csv_to_original_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = HELP
    parser.epilog = "Example: contrique-jax convert csv-to-original distorted.csv training.csv"
    parser.add_argument("csv", metavar="F.csv", help="columns path, class")
    parser.add_argument("out", metavar="OUT.csv")


def csv_to_original(args: argparse.Namespace) -> None:
    """Raises UserError naming the first line that is off."""
    out = output_path("OUT", args.out, (".csv",))
    counts = rewrite(Path(args.csv).expanduser(), out, OURS, ORIGINAL, labels_of)
    print(f"{out}: {counts}")


@functools.lru_cache(maxsize=4096)
def class_of(labels: str) -> str:
    """The class that a text of 126 numbers means, or "" for zeros only. Raises ValueError saying what is off."""
    text = labels.strip()
    numbers = text[1:-1].replace(",", " ").split() if text[:1] + text[-1:] == "[]" else []
    if len(numbers) != NUM_CLASSES:
        raise ValueError(f"labels should list {NUM_CLASSES} numbers in brackets and has {len(numbers)}")
    values = [number(one) for one in numbers]
    if set(values) - {0, 1} or values.count(1) > 1:
        raise ValueError("labels should be zeros and at most one 1")
    return str(values.index(1)) if 1 in values else ""


@functools.lru_cache(maxsize=4096)
def labels_of(class_id: str) -> str:
    """The inverse of `class_of`, as Python writes a list of floats."""
    known = ["", *map(str, range(NUM_CLASSES))]
    if class_id not in known:
        raise ValueError(f"class is {class_id!r}, not a number from 0 to {NUM_CLASSES - 1} or empty")
    return str([float(str(place) == class_id) for place in range(NUM_CLASSES)])


def rewrite(
    path: Path, out: Path, before: tuple[str, str], after: tuple[str, str], translate: Callable[[str], str]
) -> str:
    """Copies the columns `before` of the csv at `path` to columns `after`, the second one translated, and says how many
    rows there were. Holds one row at a time. Raises UserError naming the line of the first row that cannot be translated."""
    if out.exists() and path.exists() and out.samefile(path):
        raise UserError(f"{out}: the result would take the place of what it is read from; name another file.")
    table = open_table(path, "convert")
    places = [table.column(name) for name in before]
    count = authentic = 0
    with atomic_write(out) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(after)
        for line, (name, value) in table.rows(*places):
            if not name:
                raise UserError(f"{path}, line {line}: the column {before[0]!r} is empty.")
            try:
                translated = translate(value)
            except ValueError as error:
                raise UserError(f"{path}, line {line}: {error}; fix the row or take it out.") from error
            writer.writerow([name, translated])
            count, authentic = count + 1, authentic + ("" in (value, translated))
        if not count:
            raise UserError(f"{path}: it has a header but no rows.")
    return f"{count} rows, {authentic} of them authentic (no class)"
