"""Cells of Excel workbooks."""

from __future__ import annotations

import zipfile

import pytest
from miniature_sets import workbook

from contrique_jax.data.iqa_sets.xlsx import sheet_rows
from contrique_jax.errors import UserError


def test_cells_are_read(tmp_path):
    path = tmp_path / "a.xlsx"
    rows = [[None, "x & <y>", 1600, 0.5], [], [None], [3.0, "x & <y>", None, " é "]]
    workbook(path, {"first": [["other"]], "second": rows})
    assert list(sheet_rows(path)) == [(1, ["other"])]
    assert list(sheet_rows(path, "second")) == [(1, ["", "x & <y>", "1600", "0.5"]), (4, ["3", "x & <y>", "", "é"])]


def test_as_openpyxl_writes_them(tmp_path):
    import openpyxl  # here, so that the module's other tests need no more than the package does

    book = openpyxl.Workbook()
    book.active.append(["a", 1, 2.5, None, "b"])
    sheet = book.create_sheet("second")
    sheet["D4"], sheet["I4"], sheet["D5"], sheet["AB6"] = "image", "dmos", 1600, 0.061989
    book.save(tmp_path / "a.xlsx")
    assert list(sheet_rows(tmp_path / "a.xlsx")) == [(1, ["a", "1", "2.5", "", "b"])]
    assert list(sheet_rows(tmp_path / "a.xlsx", "second")) == [
        (4, ["", "", "", "image", "", "", "", "", "dmos"]),
        (5, ["", "", "", "1600"]),
        (6, [*[""] * 27, "0.061989"]),
    ]


def test_what_is_no_workbook_says_so(tmp_path):
    path = tmp_path / "a.xlsx"
    workbook(path, {"first": [["a"]]})
    with pytest.raises(UserError, match=r"no sheet 'second' \(sheets found: first\)"):
        list(sheet_rows(path, "second"))
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "<workbook>")
    whole = path.read_bytes()
    (tmp_path / "c.xlsx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d.xlsx").write_bytes(b"")
    for name in ("b", "c", "d", "absent"):
        with pytest.raises(UserError, match=rf"{name}.xlsx cannot be read as an Excel workbook"):
            list(sheet_rows(tmp_path / f"{name}.xlsx"))
