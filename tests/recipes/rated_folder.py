"""A few images with references and scores, for runs of seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

LEVELS = 4  # of noise, of each of the references


def write_pairs(folder: Path, references: int = 6, sizes: tuple[int, int] = (72, 80)) -> Path:
    """`scores.csv` in `folder`: LEVELS images of each reference, under noise that rises, and dmos 10, 30, ..."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,dmos,reference"]
    for i in range(references):
        small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        clean = np.asarray(Image.fromarray(small).resize(sizes, Image.Resampling.BICUBIC))
        Image.fromarray(clean).save(folder / f"clean{i}.png")
        for level in range(LEVELS):
            noise = generator.normal(0, 12 * level + 1, clean.shape)
            Image.fromarray(np.clip(clean + noise, 0, 255).astype(np.uint8)).save(folder / f"{i}_{level}.png")
            lines.append(f"{i}_{level}.png,{10 + 20 * level},clean{i}.png")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder / "scores.csv"


@functools.cache
def pairs_csv() -> str:
    """One of those folders, for as long as this process lives."""
    folder = Path(tempfile.mkdtemp(prefix="contrique_jax."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(write_pairs(folder))
