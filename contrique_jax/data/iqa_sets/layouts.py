"""Public data sets with opinion scores: what their authors distribute, one row of a table a data set.

docs/datasets.md says where each layout was read, and what could not be confirmed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from contrique_jax.data.iqa_sets import tables as iqa_tables
from contrique_jax.data.iqa_sets.ratings import Rating
from contrique_jax.errors import UserError


@dataclass(frozen=True)
class Layout:
    """One data set, as it lies on disk and as its scores are meant."""

    name: str
    images: int  # in the whole set, with scores that are published
    references: int  # pristine images; 0 if there are none
    score_range: tuple[float, float] | None  # of the scale; single scores may leave it a little; None: it has no ends
    higher_is_better: bool
    score: str  # what the authors' table calls the score
    grouping: str  # what keeps images on one side of a split: reference, prompt or image
    official_split: tuple[str, ...]  # parts that the tables tell apart
    tables: tuple[tuple[str, ...], ...]  # files of scores; if there are several versions, the preferred one first
    image_folders: tuple[str, ...]  # looked through in this order; not all of them need be there
    reference_folders: tuple[str, ...]
    read: Callable[[Sequence[Path]], Iterator[Rating]]
    shorter_side: int | None = None  # images are scaled down to it before anything else


LAYOUTS: dict[str, Layout] = {
    "live": Layout(
        name="LIVE",
        images=779,
        references=29,
        score_range=(0, 100),
        higher_is_better=False,
        score="dmos",
        grouping="reference",
        official_split=(),
        tables=(("dmos_realigned.mat", "refnames_all.mat"), ("dmos.mat", "refnames_all.mat")),
        image_folders=(".",),
        reference_folders=("refimgs",),
        read=iqa_tables.live,
    ),
    "csiq": Layout(
        name="CSIQ",
        images=866,
        references=30,
        score_range=(0, 1),
        higher_is_better=False,
        score="dmos",
        grouping="reference",
        official_split=(),
        tables=(("csiq.DMOS.xlsx",),),
        image_folders=("dst_imgs",),
        reference_folders=("src_imgs",),
        read=iqa_tables.csiq,
    ),
    "tid2013": Layout(
        name="TID2013",
        images=3000,
        references=25,
        score_range=(0, 9),
        higher_is_better=True,
        score="mos",
        grouping="reference",
        official_split=(),
        tables=(("mos_with_names.txt", "mos_std.txt"), ("mos_with_names.txt",)),
        image_folders=("distorted_images",),
        reference_folders=("reference_images",),
        read=iqa_tables.tid2013,
    ),
    "kadid10k": Layout(
        name="KADID-10k",
        images=10125,
        references=81,
        score_range=(1, 5),
        higher_is_better=True,  # though the column is called dmos
        score="dmos",
        grouping="reference",
        official_split=(),
        tables=(("dmos.csv",),),
        image_folders=("images",),
        reference_folders=("images",),
        read=iqa_tables.kadid10k,
    ),
    "koniq10k": Layout(
        name="KonIQ-10k",
        images=10073,
        references=0,
        score_range=(1, 100),
        higher_is_better=True,
        score="MOS",
        grouping="image",
        official_split=("train", "validation", "test"),
        tables=(("koniq10k_distributions_sets.csv",), ("koniq10k_scores_and_distributions.csv",)),
        image_folders=("1024x768", "512x384"),
        reference_folders=(),
        read=iqa_tables.koniq10k,
    ),
    "clive": Layout(
        name="CLIVE",
        images=1162,
        references=0,
        score_range=(0, 100),
        higher_is_better=True,
        score="mos",
        grouping="image",
        official_split=(),
        tables=(("Data/AllImages_release.mat", "Data/AllMOS_release.mat", "Data/AllStdDev_release.mat"),),
        image_folders=("Images",),
        reference_folders=(),
        read=iqa_tables.clive,
    ),
    "flive": Layout(
        name="FLIVE",
        images=39810,
        references=0,
        score_range=(0, 100),
        higher_is_better=True,
        score="mos",
        grouping="image",
        official_split=("train", "validation", "test"),
        tables=(
            ("labels_image.csv", "labels640.csv", "labels=640_padded.csv"),
            ("labels_image.csv", "labels>640.csv", "labels<=640_padded.csv"),
            ("labels_image.csv",),
        ),
        image_folders=(".", "database"),
        reference_folders=(),
        read=iqa_tables.flive,
    ),
    "spaq": Layout(
        name="SPAQ",
        images=11125,
        references=0,
        score_range=(0, 100),
        higher_is_better=True,
        score="MOS",
        grouping="image",
        official_split=(),
        tables=(("Annotations/MOS and Image attribute scores.xlsx",), ("MOS and Image attribute scores.xlsx",)),
        image_folders=("TestImage",),
        reference_folders=(),
        read=iqa_tables.spaq,
        shorter_side=512,
    ),
    "pipal": Layout(
        name="PIPAL",
        images=23200,  # of the training part, the one whose scores are public
        references=200,
        score_range=None,  # Elo ratings
        higher_is_better=True,
        score="elo",
        grouping="reference",
        official_split=(),
        tables=(("Train_Label",),),
        image_folders=(*(f"Distortion_{i}" for i in range(1, 5)), *(f"Distortion/Distortion_{i}" for i in range(1, 5))),
        reference_folders=("Train_Ref",),
        read=iqa_tables.pipal,
    ),
    "agiqa3k": Layout(
        name="AGIQA-3K",
        images=2982,
        references=0,
        score_range=(0, 5),
        higher_is_better=True,
        score="mos_quality",
        grouping="prompt",
        official_split=(),
        tables=(("data.csv",),),
        image_folders=(".", "images", "AGIQA-3K"),
        reference_folders=(),
        read=iqa_tables.agiqa3k,
    ),
    "biq2021": Layout(
        name="BIQ2021",
        images=12000,
        references=0,
        score_range=(0, 1),
        higher_is_better=True,
        score="MOS",
        grouping="image",
        official_split=("train", "test"),
        tables=(("Train (Images and MOS).csv", "Test (Images and MOS).csv"), ("Train.csv", "Test.csv")),
        image_folders=("Images",),
        reference_folders=(),
        read=iqa_tables.biq2021,
    ),
}


def layout_of(name: str, field: str = "--dataset") -> Layout:
    """The layout of a data set; letter case and hyphens do not count. Raises UserError for one that is not known."""
    key = "".join(letter for letter in name.lower() if letter.isalnum())
    if key not in LAYOUTS:
        raise UserError(
            f"{field}: there is no data set {name!r} (known: {', '.join(layout.name for layout in LAYOUTS.values())}); "
            f"read any other from a csv{' with --scores' if field == '--dataset' else ''}."
        )
    return LAYOUTS[key]


def find_tables(
    layout: Layout, folder: Path, folders: Sequence[tuple[str, ...]], field: str = "--images"
) -> tuple[Path, list[Path]]:
    """(folder of the data set, its table files): `folder` itself, or the one in it that an archive unpacked to.

    Of each of `folders`, the image_folders for one, some folder must be there too. Raises UserError that names, for
    `field`, everything that is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{field}: there is no folder {folder}.")
    roots = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    for names in layout.tables:
        for root in roots:
            missing = _missing(root, names, folders)
            if not missing:
                return root, [root / name for name in names]
            if all((root / name).exists() for name in names):
                folder = root  # the scores are here: say what this folder lacks
    missing = min((_missing(folder, names, folders) for names in layout.tables), key=len)
    raise UserError(
        f"{field}: {folder} does not hold {layout.name} as its authors distribute it; missing: {', '.join(missing)}."
    )


def _missing(root: Path, names: Sequence[str], folders: Sequence[tuple[str, ...]]) -> list[str]:
    tables = [name for name in names if not (root / name).exists()]
    return tables + [f"{names[0]}/" for names in folders if not any((root / name).is_dir() for name in names)]


class Shelf:
    """Files by name in a few folders. Letter case does not count: some archives were packed where it does not."""

    def __init__(self, folders: Sequence[Path]):
        self._folders = [folder for folder in folders if folder.is_dir()]
        self._listings: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """The file `name`, which may name subfolders, in the first folder that has it."""
        parts = PurePosixPath(name).parts
        for folder in self._folders:
            place: Path | None = folder
            for part in parts:
                place = self._listing(place).get(part.lower()) if place is not None and place.is_dir() else None
            if place is not None and parts and place.is_file():
                return place
        return None

    def _listing(self, folder: Path) -> dict[str, Path]:
        if folder not in self._listings:
            self._listings[folder] = {name.lower(): folder / name for name in os.listdir(folder)}
        return self._listings[folder]
