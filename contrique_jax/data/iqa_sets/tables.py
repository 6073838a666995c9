"""The score tables of public data sets, each as its authors distribute it -> ratings. One small function a layout.

A reader gets the table files that its layout names, in that order. It gives scores as text, to be checked in one place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from contrique_jax.data.iqa_sets.matlab import vector
from contrique_jax.data.iqa_sets.ratings import Place, Rating
from contrique_jax.data.iqa_sets.xlsx import sheet_rows
from contrique_jax.distort.bank import BANK
from contrique_jax.errors import UserError
from contrique_jax.io.csv_rows import csv_rows
from contrique_jax.io.regular import read_text

# LIVE numbers its images through these folders, in this order.
LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
# CSIQ: the distortion's name in the table -> its folder, and its name within file names (letter case does not count).
CSIQ_NAMES = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}
TID_DISTORTIONS = (
    *("white noise", "colour noise", "correlated noise", "masked noise", "high-frequency noise", "impulse noise"),
    *("quantisation", "gaussian blur", "denoising", "jpeg", "jpeg2000", "jpeg transmission", "jpeg2000 transmission"),
    *("pattern noise", "local blocks", "mean shift", "contrast", "colour saturation", "multiplicative noise"),
    *("comfort noise", "lossy compression of noise", "colour dither", "chromatic aberration", "sparse sampling"),
)
_KONIQ_PARTS = {"training": "train", "validation": "validation", "test": "test"}


def live(tables: Sequence[Path]) -> Iterator[Rating]:
    """Copies of the references, which `orgs` marks, are left out, as everywhere."""
    scores_file, names_file = tables
    name = "dmos_new" if scores_file.name == "dmos_realigned.mat" else "dmos"
    scores, orgs = vector(scores_file, name), vector(scores_file, "orgs")
    deviations = vector(scores_file, "dmos_std") if name == "dmos_new" else None
    references = vector(names_file, "refnames_all")
    images = [(folder, f"img{i}.bmp") for folder, count in LIVE_FOLDERS.items() for i in range(1, count + 1)]
    columns = {name: scores, "orgs": orgs, "refnames_all": references, "dmos_std": deviations}
    _same_length({key: values for key, values in columns.items() if values is not None}, len(images), scores_file)
    for i, (folder, file) in enumerate(images):
        if not float(orgs[i]):
            yield Rating(
                Place(scores_file, i + 1, "entry"),
                f"{folder}/{file}",
                scores[i],
                deviation=None if deviations is None else deviations[i],
                group=references[i],
                subset=folder,
                reference=references[i],
            )


def csiq(tables: Sequence[Path]) -> Iterator[Rating]:
    columns = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")
    for place, row in _records(tables[0], columns, sheet="all_by_image"):
        if not any(row.values()):
            continue
        if row["dst_type"] not in CSIQ_NAMES:
            raise UserError(f"{place}: dst_type is {row['dst_type']!r}; expected one of {', '.join(CSIQ_NAMES)}.")
        folder, infix = CSIQ_NAMES[row["dst_type"]]
        yield Rating(
            place,
            f"{folder}/{row['image']}.{infix}.{row['dst_lev']}.png",
            row["dmos"],
            deviation=row["dmos_std"],
            group=row["image"],
            subset=row["dst_type"],
            reference=f"{row['image']}.png",
        )


def tid2013(tables: Sequence[Path]) -> Iterator[Rating]:
    lines = _words(tables[0])
    deviations = [words for _, words in _words(tables[1])] if len(tables) > 1 else None
    if deviations is not None and len(deviations) != len(lines):
        raise UserError(
            f"{tables[1]} has {len(deviations)} lines for {len(lines)} of {tables[0].name}; unpack it again."
        )
    for i, (place, words) in enumerate(lines):
        match = re.fullmatch(r"i(\d\d)_(\d\d)_\d\.bmp", words[-1].lower())
        if len(words) != 2 or match is None or not 1 <= int(match[2]) <= len(TID_DISTORTIONS):
            raise UserError(f"{place}: {' '.join(words)!r} is not a score and a name like I01_01_1.bmp.")
        yield Rating(
            place,
            words[1],
            words[0],
            deviation=None if deviations is None else deviations[i][0],
            group=f"I{match[1]}",
            subset=TID_DISTORTIONS[int(match[2]) - 1],
            reference=f"I{match[1]}.bmp",
        )


def kadid10k(tables: Sequence[Path]) -> Iterator[Rating]:
    names = {entry.type: entry.name for entry in BANK}
    # the column `var` holds standard deviations: 0.471 beside a mean of 4.67, of opinions 4 and 5
    for place, row in _records(tables[0], ("dist_img", "ref_img", "dmos", "var")):
        match = re.fullmatch(r"i\d\d_(\d\d)_\d\d\.png", row["dist_img"].lower())
        if match is None or int(match[1]) not in names:
            raise UserError(f"{place}: {row['dist_img']!r} is not a name like I01_01_01.png.")
        yield Rating(
            place,
            row["dist_img"],
            row["dmos"],
            deviation=row["var"],
            group=row["ref_img"],
            subset=names[int(match[1])],
            reference=row["ref_img"],
        )


def koniq10k(tables: Sequence[Path]) -> Iterator[Rating]:
    """`SD` is on the scale of the five answers, not of these scores, and is left out."""
    split = tables[0].name == "koniq10k_distributions_sets.csv"
    score = "MOS" if split else "MOS_zscore"
    for place, row in _records(tables[0], ("image_name", score, "set") if split else ("image_name", score)):
        if split and row["set"] not in _KONIQ_PARTS:
            raise UserError(f"{place}: set is {row['set']!r}; expected one of {', '.join(_KONIQ_PARTS)}.")
        yield Rating(place, row["image_name"], row[score], part=_KONIQ_PARTS[row["set"]] if split else None)


def clive(tables: Sequence[Path]) -> Iterator[Rating]:
    """The seven images that taught the observers, t1.bmp to t7.bmp, are left out, as everywhere."""
    variables = ("AllImages_release", "AllMOS_release", "AllStdDev_release")
    names, scores, deviations = (vector(path, name) for path, name in zip(tables, variables, strict=True))
    _same_length(dict(zip(variables, (names, scores, deviations), strict=True)), len(names), tables[0])
    for i, name in enumerate(names):
        if not re.fullmatch(r"t[1-7]\.bmp", name.lower()):
            yield Rating(Place(tables[1], i + 1, "entry"), name, scores[i], deviation=deviations[i])


def flive(tables: Sequence[Path]) -> Iterator[Rating]:
    """Pictures, not patches. Test: the pictures above 640 pixels; validation: those marked `is_valid`."""
    parts: dict[str, str] = {}
    if len(tables) == 3:
        for place, row in _records(tables[2], ("name_image", "is_valid")):
            if row["is_valid"].lower() not in ("true", "false"):
                raise UserError(f"{place}: is_valid is {row['is_valid']!r}; expected True or False.")
            if row["is_valid"].lower() == "true":
                parts[row["name_image"]] = "validation"
        parts |= {row["name_image"]: "test" for _, row in _records(tables[1], ("name_image",))}
    for place, row in _records(tables[0], ("name", "mos")):
        part = parts.get(row["name"], "train") if parts else None
        yield Rating(place, row["name"], row["mos"], subset=row["name"].split("/")[0], part=part)


def spaq(tables: Sequence[Path]) -> Iterator[Rating]:
    for place, row in _records(tables[0], ("Image name", "MOS")):
        yield Rating(place, row["Image name"], row["MOS"])


def pipal(tables: Sequence[Path]) -> Iterator[Rating]:
    """One text file a reference in Train_Label, lines such as `A0001_00_00.bmp,1452.3`; no header."""
    for path in sorted(tables[0].glob("*.txt")):
        for number, cells in csv_rows(path, tables[0].name):
            place = Place(path, number)
            match = re.fullmatch(r"(A\d+)_(\d\d)_\d+\.bmp", cells[0].strip())
            if len(cells) != 2 or match is None:
                raise UserError(f"{place}: {','.join(cells)!r} is not a name like A0001_00_00.bmp and a score.")
            yield Rating(
                place, match[0], cells[1].strip(), group=match[1], subset=match[2], reference=f"{match[1]}.bmp"
            )


def agiqa3k(tables: Sequence[Path]) -> Iterator[Rating]:
    """Images of one prompt, whoever painted them, stay together; the part before the first _ names the generator."""
    for place, row in _records(tables[0], ("name", "prompt", "mos_quality", "std_quality")):
        generator = row["name"].split("_")[0]
        yield Rating(
            place, row["name"], row["mos_quality"], row["std_quality"], group=row["prompt"] or None, subset=generator
        )


def biq2021(tables: Sequence[Path]) -> Iterator[Rating]:
    for path, part in zip(tables, ("train", "test"), strict=True):
        for place, row in _records(path, ("Image Name", "MOS")):
            yield Rating(place, row["Image Name"], row["MOS"], subset=row["Image Name"][:4].lower(), part=part)


def _records(path: Path, columns: Sequence[str], sheet: str | None = None) -> Iterator[tuple[Place, dict[str, str]]]:
    """(place, column -> text) of each row below the header, which is the first row that names all `columns`."""
    excel = path.suffix == ".xlsx"
    rows: Iterable[tuple[int, list[str]]] = sheet_rows(path, sheet) if excel else csv_rows(path, path.name)
    rows = iter(rows)
    header = next((cells for _, row in rows if set(columns) <= set(cells := [cell.strip() for cell in row])), None)
    if header is None:
        raise UserError(f"{path}: no row names the columns {', '.join(columns)}; this is not the authors' table.")
    where = {column: header.index(column) for column in columns}
    for number, cells in rows:
        values = {column: cells[i].strip() if i < len(cells) else "" for column, i in where.items()}
        yield Place(path, number, "row" if excel else "line"), values


def _words(path: Path) -> list[tuple[Place, list[str]]]:
    """The words of each line that has some."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}).") from error
    return [(Place(path, i), line.split()) for i, line in enumerate(lines, 1) if line.strip()]


def _same_length(columns: dict[str, Sequence[str]], expected: int, path: Path) -> None:
    for name, values in columns.items():
        if len(values) != expected:
            raise UserError(f"{path}: {name} has {len(values)} entries, {expected} are expected; unpack it again.")
