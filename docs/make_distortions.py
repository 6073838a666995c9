"""Makes the table and the levels in distortions.md from the bank, and its pictures from a procedural scene.

python docs/make_distortions.py             # the text
python docs/make_distortions.py --pictures  # the text and the pictures, a strip of five levels a type
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from PIL import Image

from contrique_jax import distort
from contrique_jax.data.scenes import pristine_scene
from contrique_jax.distort import bank

HERE = Path(__file__).parent
TEXT, PICTURES = HERE / "distortions.md", "images/distortions"
SCENE = (3, 17, 168, 224)  # seed, number, height, width
BEGIN, END = "<!-- made by make_distortions.py -->", "<!-- end -->"
OPENING = re.compile(r"^## (\d\d) .+\n\n!\[.+\n\n- .+\n", re.M)
GAP = 4  # pixels between the images of a strip


def overview() -> list[str]:
    """The table."""
    lines = ["| type | name | group | parameter | L1 | L2 | L3 | L4 | L5 | classes | severity |", "|--" * 11 + "|"]
    for row in bank.BANK:
        levels = " | ".join(f"{value:g}" for value in row.levels)
        first, last = (bank.class_id(row.type, level) for level in (1, bank.NUM_LEVELS))
        severity = " ".join(map(str, row.severity))
        link = f"[{row.name}](#{anchor(row)})"
        lines.append(
            f"| {row.type:02} | {link} | {row.group} | {row.parameter} | {levels} | {first}..{last} | {severity} |"
        )
    return lines


def heading(row: bank.Distortion) -> str:
    return f"{row.type:02} {row.name}"


def anchor(row: bank.Distortion) -> str:
    """The name that a heading's link has on the pages of code hosts."""
    return heading(row).lower().replace(" ", "-")


def opening(row: bank.Distortion) -> str:
    """The first lines of a type's section: heading, picture, levels."""
    levels = ", ".join(f"{value:g}" for value in row.levels)
    picture = f"![{row.name} at its five levels]({PICTURES}/{row.type:02}.jpg)"
    return f"## {heading(row)}\n\n{picture}\n\n- {row.group}; {row.parameter}: {levels}\n"


def text() -> str:
    """The whole file, with the table and the openings of sections as the bank has them."""
    before, _, rest = TEXT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    after, found = OPENING.subn(lambda match: opening(bank.get(int(match[1]))), after)
    assert found == len(bank.BANK), f"{TEXT} has {found} sections of types"
    return "\n".join([before + BEGIN, "", *overview(), "", END]) + after


def strip(image: np.ndarray, type: int) -> Image.Image:
    """The image at the five levels of a type, side by side."""
    height, width, _ = image.shape
    page = Image.new("RGB", (bank.NUM_LEVELS * (width + GAP) - GAP, height), (255, 255, 255))
    for level in range(1, bank.NUM_LEVELS + 1):
        page.paste(Image.fromarray(distort.apply(image, type, level)), ((level - 1) * (width + GAP), 0))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true")
    flags = parser.parse_args()
    TEXT.write_text(text(), encoding="utf-8")
    if flags.pictures:
        (HERE / PICTURES).mkdir(parents=True, exist_ok=True)
        image = pristine_scene(*SCENE)
        for type in bank.TYPES:
            strip(image, type).save(HERE / PICTURES / f"{type:02}.jpg", quality=80, optimize=True)


if __name__ == "__main__":
    main()
