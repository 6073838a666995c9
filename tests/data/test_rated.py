"""Rated images as records: stacks with labels, through the same source interface and the same pipeline."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contrique_jax.data.sources import open_source
from contrique_jax.errors import BrokenImage, UserError


@pytest.fixture
def folder(tmp_path):
    for i in range(4):
        Image.new("RGB", (12, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
        Image.new("RGB", (12, 8), (100 + i, 0, 0)).save(tmp_path / f"clean{i}.png")
    return tmp_path


def rated(folder, header: str, rows: list[str]):
    (folder / "rated.csv").write_text("\n".join([header, *rows]))
    return open_source(str(folder / "rated.csv"), role="rated", field="config.data.rated")


def test_single_images_with_their_scores(folder):
    source = rated(folder, "path,mos", [f"{i}.png,{5 - i}" for i in range(4)])
    assert len(source) == 4 and source.labels.tolist() == [5, 4, 3, 2] and source.sets[0].higher_is_better
    assert source.load(2).shape == (1, 8, 12, 3) and source.load(2)[0, 0, 0, 0] == 2
    assert source.item_name(3) == "3.png"


def test_pairs_with_references(folder):
    source = rated(folder, "path,reference,dmos", [f"{i}.png,clean{i}.png,{i}" for i in range(4)])
    assert not source.sets[0].higher_is_better
    assert source.load(3)[:, 0, 0, 0].tolist() == [3, 103]


def test_a_pair_of_two_sizes_is_broken_not_the_run(folder):
    Image.new("RGB", (6, 8)).save(folder / "clean1.png")
    source = rated(folder, "path,reference,mos", [f"{i}.png,clean{i}.png,{i}" for i in range(4)])
    with pytest.raises(BrokenImage, match="it is 12x8 and its reference 6x8"):
        source.load(1)


def test_a_table_without_scores_is_one_sentence(folder):
    with pytest.raises(UserError, match="no column of scores"):
        rated(folder, "path,taste", ["0.png,1"])


def test_arrays_may_hold_stacks(tmp_path):
    np.save(tmp_path / "clips.npy", np.arange(2 * 5 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 5, 4, 6, 3))
    source = open_source(f"arrays:{tmp_path / 'clips.npy'}", role="clips", field="config.data.clips")
    assert source.load(1).shape == (5, 4, 6, 3)
