"""Public data sets in miniature: the folders, file names, tables and columns that their authors distribute."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path: Path, kind: str | None = None) -> None:
    """A small image unlike any other: its pixels come from its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list(str(path.name).encode()) + list(path.parent.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path, kind)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def workbook(path: Path, sheets: dict[str, Sequence[Sequence[object]]]) -> None:
    """An .xlsx as Excel writes it: text in a table of shared strings, numbers in cells, empty cells left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    strings = list(dict.fromkeys(str(v) for rows in sheets.values() for row in rows for v in row if isinstance(v, str)))
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

    def cell(column: int, row: int, value: object) -> str:
        where = f"{chr(65 + column)}{row}"
        if isinstance(value, str):
            return f'<c r="{where}" t="s"><v>{strings.index(value)}</v></c>'
        return f'<c r="{where}"><v>{value}</v></c>'

    with zipfile.ZipFile(path, "w") as book:
        names = "".join(
            f'<sheet name="{escape(name)}" sheetId="{i}" r:id="rId{i}"/>' for i, name in enumerate(sheets, 1)
        )
        book.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{office}"><sheets>{names}</sheets></workbook>')
        links = "".join(f'<Relationship Id="rId{i + 1}" Target="worksheets/s{i}.xml"/>' for i in range(len(sheets)))
        book.writestr("xl/_rels/workbook.xml.rels", f"<Relationships>{links}</Relationships>")
        texts = "".join(f"<si><t>{escape(text)}</t></si>" for text in strings)
        book.writestr("xl/sharedStrings.xml", f"<sst {main}>{texts}</sst>")
        for i, rows in enumerate(sheets.values()):
            body = "".join(
                f'<row r="{r}">{"".join(cell(c, r, v) for c, v in enumerate(row) if v is not None)}</row>'
                for r, row in enumerate(rows, 1)
                if any(v is not None for v in row)
            )
            book.writestr(f"xl/worksheets/s{i}.xml", f"<worksheet {main}><sheetData>{body}</sheetData></worksheet>")


def cells(texts: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    """A MATLAB cell array of strings."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def live(folder: Path) -> None:
    folders = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
    count = sum(folders.values())
    for name, images in folders.items():
        for i in range(1, images + 1):
            picture(folder / name / f"img{i}.bmp")
    for name in ("bikes", "plane"):
        picture(folder / "refimgs" / f"{name}.bmp")
    references = [("bikes.bmp", "plane.bmp")[i % 2] for i in range(count)]
    orgs = np.array([[int(i % 10 == 0) for i in range(count)]], np.uint8)
    scores = np.where(orgs, 0, np.linspace(20, 90, count))
    savemat(
        folder / "dmos_realigned.mat", {"dmos_new": scores, "dmos_std": np.linspace(5, 6, count)[None], "orgs": orgs}
    )
    savemat(folder / "dmos.mat", {"dmos": scores + 1, "orgs": orgs})
    savemat(folder / "refnames_all.mat", {"refnames_all": cells(references, (1, count))})


def csiq(folder: Path) -> None:
    distortions = {
        "noise": ("AWGN", "AWGN"),
        "jpeg": ("JPEG", "JPEG"),
        "jpeg 2000": ("jpeg2000", "jpeg2000"),
        "fnoise": ("fnoise", "fnoise"),
        "blur": ("BLUR", "BLUR"),
        "contrast": ("contrast", "contrast"),
    }
    rows: list[list[object]] = [
        ["CSIQ DMOS"],
        [],
        [],
        [None] * 3 + ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
    ]
    for reference in (1600, "family"):
        picture(folder / "src_imgs" / f"{reference}.png")
        for index, (kind, (place, infix)) in enumerate(distortions.items(), 1):
            for level in (1, 2):
                picture(folder / "dst_imgs" / place / f"{reference}.{infix}.{level}.png")
                rows.append([None] * 3 + [reference, index, kind, level, level / 100 + 0.05, level / 2 - index / 100])
    rows.insert(10, [])
    workbook(folder / "csiq.DMOS.xlsx", {"all_by_distortion": [["other"]], "all_by_image": rows})


def tid2013(folder: Path) -> None:
    names = [f"{'iI'[r == 1]}{r:02}_{kind:02}_{level}.bmp" for r in (1, 25) for kind in (1, 24) for level in (1, 5)]
    for name in names:
        picture(folder / "distorted_images" / name.replace("i01", "I01"))
    for name in ("I01.BMP", "i25.bmp"):
        picture(folder / "reference_images" / name, "BMP")
    lines(folder / "mos_with_names.txt", *(f"{5.5 - i / 2:.5f} {name}" for i, name in enumerate(names)))
    lines(folder / "mos_std.txt", *(f"{0.13 + i / 1000:.5f}" for i in range(len(names))))


def kadid10k(folder: Path) -> None:
    rows = []
    for reference in ("I01", "I02"):
        picture(folder / "images" / f"{reference}.png")
        for kind in (1, 25):
            for level in (1, 5):
                name = f"{reference}_{kind:02}_{level:02}.png"
                picture(folder / "images" / name)
                rows.append(f"{name},{reference}.png,{4.57 - level / 2 - kind / 30:.2f},{kind / 100 + level / 10:.3f}")
    lines(folder / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)


def koniq10k(folder: Path) -> None:
    rows = [("10004473376.jpg", "77.38", "training"), ("826373.jpg", "31.0", "validation"), ("99.jpg", "68.7", "test")]
    for name, _, _ in rows:
        picture(folder / "1024x768" / name)
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    entries = (f"{name},0.0,0.0,0.24,0.7,0.06,105,{mos},0.527,{part}" for name, mos, part in rows)
    lines(folder / "koniq10k_distributions_sets.csv", header, *entries)


def clive(folder: Path) -> None:
    names = [f"t{i}.bmp" for i in range(1, 8)] + ["100.bmp", "10.bmp", "1164.JPG"]
    for name in names:
        picture(folder / "Images" / ("trainingImages" if name.startswith("t") else ".") / name)
    for variable, values in (
        ("AllImages_release", cells(names, (10, 1))),
        ("AllMOS_release", np.linspace(10, 90, 10)[None]),
        ("AllStdDev_release", np.linspace(11, 20, 10)[None]),
    ):
        (folder / "Data").mkdir(parents=True, exist_ok=True)
        savemat(folder / "Data" / f"{variable}.mat", {variable: values})


def flive(folder: Path) -> None:
    names = [
        "voc_emotic_ava/AVA__1.jpg",
        "blur_dataset/motion0044.jpg",
        "EE371R/rq59.jpg",
        "voc_emotic_ava/EMOTIC__a.jpg",
    ]
    for name in names:
        picture(folder / "database" / name)
    scores = (f"{name},{75.4 - i}" for i, name in enumerate(names))
    lines(folder / "database" / "labels_image.csv", "name,mos", *scores)
    lines(folder / "database" / "labels640.csv", "mos_image,name_image,width_image", f"72.4,{names[3]},1024")
    padded = (f"{name},{valid},1" for name, valid in zip(names[:3], ("False", "True", "False"), strict=True))
    lines(folder / "database" / "labels=640_padded.csv", "name_image,is_valid,mos_image", *padded)


def spaq(folder: Path) -> None:
    names = ["00001.jpg", "00002.jpg", "00003.png"]
    for name in names:
        picture(folder / "TestImage" / name)
    header = ["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"]
    rows = [[name, 34.53 + i, 60.0, 61.0, 62.0, 63.0, 64] for i, name in enumerate(names)]
    workbook(folder / "Annotations" / "MOS and Image attribute scores.xlsx", {"Sheet1": [header, *rows]})


def pipal(folder: Path) -> None:
    for i, reference in enumerate(("A0001", "A0002")):
        picture(folder / "Train_Ref" / f"{reference}.bmp")
        names = [f"{reference}_{kind:02}_{number:02}.bmp" for kind in (0, 6) for number in (0, 11)]
        for j, name in enumerate(names):
            picture(folder / f"Distortion_{1 + j % 4}" / name)
        lines(
            folder / "Train_Label" / f"{reference}.txt",
            *(f"{name},{1400.5 + 9 * j - i}" for j, name in enumerate(names)),
        )


def agiqa3k(folder: Path) -> None:
    rows = []
    for i, generator in enumerate(("AttnGAN_normal", "midjourney_lowstep", "xl2.2_normal")):
        for j, prompt in enumerate(("statue of a man", '"robots, close-up"')):
            picture(folder / f"{generator}_{j:03}.jpg")
            rows.append(
                f"{generator}_{j:03}.jpg,{prompt},,,,{0.97 + i + j / 2},{0.22 + i / 100 + j / 100:.2f},0.41,0.62"
            )
    lines(folder / "data.csv", "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align", *rows)


def biq2021(folder: Path) -> None:
    rows = {"Train": ["ss01 (1726).jpg,0.2874", "ss03 (3753).jpg,0.8471"], "Test": ["ss02 (1491).jpg,0.4559"]}
    for part, entries in rows.items():
        for entry in entries:
            picture(folder / "Images" / entry.split(",")[0])
        lines(folder / f"{part} (Images and MOS).csv", "Image Name,MOS,,", *(f"{entry},," for entry in entries))


MINIATURES: dict[str, Callable[[Path], None]] = {
    build.__name__: build
    for build in (live, csiq, tid2013, kadid10k, koniq10k, clive, flive, spaq, pipal, agiqa3k, biq2021)
}
