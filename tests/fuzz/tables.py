"""Readers of tables; each function makes one, with its files in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
from scipy.io import savemat

from contrique_jax.convert.original_csv import OURS, class_of, labels_of, rewrite
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.iqa_sets import tables as iqa_tables
from contrique_jax.data.sources import open_source
from contrique_jax.evaluation.splits import make_splits, read_splits, write_splits
from contrique_jax.io.csv_rows import table_paths
from contrique_jax.io.json_files import read_json
from tests.fuzz.foreign_files import changed_bytes, changed_json, changed_zip, tables
from tests.fuzz.reader import Reader


def _pictures(folder: Path) -> None:
    for name in ("a", "b", "c", "r"):
        (folder / f"{name}.png").write_bytes(name.encode())


def scores(folder: Path) -> Reader:
    def read(path: Path) -> None:
        images = read_scores(path)
        assert np.isfinite(images.scores).all() and np.ptp(images.scores) > 0
        assert len(images.paths) == len(images.groups) == len(images.scores) and all(p.is_file() for p in images.paths)

    _pictures(folder)
    return Reader(folder / "t.csv", tables(), read)


def manifest(folder: Path) -> Reader:
    def read(path: Path) -> None:
        source = open_source(str(path), role="pristine", field="data.pristine")
        assert len(source) and all(source.item_name(i) for i in range(len(source)))
        assert source.classes is None or (len(source.classes) == len(source) and source.classes.min() >= 0)

    return Reader(folder / "t.csv", tables(("path", "class", "mos", "", "image_name")), read)


def array(folder: Path) -> Reader:
    def read(path: Path) -> None:
        source = open_source(f"arrays:{path}", role="authentic", field="data.authentic")
        assert source.load(len(source) - 1).shape[1:] == (4, 5, 3)

    np.save(folder / "a.npy", np.zeros((3, 4, 5, 3), np.uint8))
    return Reader(folder / "a.npy", changed_bytes([(folder / "a.npy").read_bytes()]), read)


def paths_of_a_table(folder: Path) -> Reader:
    return Reader(folder / "t.csv", tables(), lambda path: [p.name for p in table_paths(path, "PATH")])


def csv_of_the_original(folder: Path) -> Reader:
    def read(path: Path) -> None:
        rewrite(path, folder / "out.csv", ("File_names", "labels"), OURS, class_of)

    whole = f'File_names,labels\na.png,"{labels_of("3")}"\nb.png,"{labels_of("")}"\n'.encode()
    return Reader(folder / "t.csv", changed_bytes([whole]), read)


def workbook(folder: Path) -> Reader:
    book = openpyxl.Workbook()
    for row in (["Image name", "MOS"], ["00001.jpg", 50.0], ["00002.jpg", 60.5]):
        book.active.append(row)
    book.save(folder / "b.xlsx")
    whole = (folder / "b.xlsx").read_bytes()
    return Reader(folder / "b.xlsx", changed_zip(whole), lambda path: list(iqa_tables.spaq([path])), 1000)


def matlab(folder: Path) -> Reader:
    names = np.array([["a.jpg"], ["b.jpg"]], object)
    stream: list[bytes] = []
    for packed in (False, True):
        savemat(folder / "m.mat", {"AllImages_release": names, "AllMOS_release": [1, 2.0]}, do_compression=packed)
        stream.append((folder / "m.mat").read_bytes())
    savemat(folder / "s.mat", {"AllStdDev_release": [1, 1.0]})

    def read(path: Path) -> None:
        assert len(list(iqa_tables.clive([path, path, folder / "s.mat"]))) == 2

    return Reader(folder / "m.mat", changed_bytes(stream), read)


def splits(folder: Path) -> Reader:
    groups = [f"g{i // 3}" for i in range(36)]
    write_splits(folder / "s.json", make_splits(groups, 2, 0), groups, {"seed": 0})
    whole = read_json(folder / "s.json", 1 << 20)

    def read(path: Path) -> None:
        for split in read_splits(path, groups):
            rows = np.concatenate([split.train, split.validation, split.test])
            assert sorted(rows) == list(range(36))

    return Reader(folder / "s.json", changed_json(whole), read)
