"""Features kept between runs belong to the bytes of an image, the model and the preprocessing."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image

from contrique_jax.errors import UserError
from contrique_jax.evaluation.brisque import NaturalStatistics
from contrique_jax.inference import cache
from contrique_jax.inference.cache import cached_features
from contrique_jax.io.parts import Parts


@pytest.fixture
def place(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "cache").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "set" / f"{i}.png")
    return tmp_path


class Watched(NaturalStatistics):
    """Counts the files that were looked at."""

    def stream(self, paths):
        paths = list(paths)
        self.seen = [path.name for path in paths]
        return super().stream(paths)


def describe(place, folder="set", **settings):
    extractor = Watched(**{"max_megapixels": 16} | settings)
    found, broken = cached_features(extractor, sorted((place / folder).glob("*.png")), place / "cache", place / folder)
    return extractor.seen, {path.name: values for path, values in found.items()}, broken


def test_what_was_described_is_not_described_again_wherever_it_lies(place):
    seen, first, _ = describe(place)
    assert len(seen) == 4
    shutil.copytree(place / "set", place / "moved" / "set")
    (place / "moved" / "set" / "0.png").rename(place / "moved" / "set" / "renamed.png")
    shutil.copy(place / "set" / "1.png", place / "set" / "twin.png")
    assert describe(place)[0] == []
    seen, again, _ = describe(place, "moved/set")
    assert seen == [] and np.array_equal(again["renamed.png"], first["0.png"])


def test_other_bytes_sizes_and_limits_are_described_again(place):
    _, first, _ = describe(place)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(place / "set" / "2.png")
    seen, again, _ = describe(place)
    assert seen == ["2.png"] and not np.array_equal(again["2.png"], first["2.png"])
    assert len(describe(place, shorter_side=30)[0]) == 4 and len(describe(place, max_megapixels=0.001)[0]) == 4
    assert describe(place)[0] == [] and describe(place, shorter_side=30)[0] == []


def test_a_run_that_is_killed_keeps_what_it_had(place, monkeypatch):
    """Nothing but what was written image by image, since nothing is done at its end."""

    def killed(self, paths):
        yield from itertools.islice(NaturalStatistics.stream(self, list(paths)), 3)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Watched, "stream", killed)
        patch.setattr(cache._Kept, "write", lambda self: None)
        describe(place)
    seen, found, _ = describe(place)
    assert seen == ["3.png"] and len(found) == 4


def test_a_full_disk_costs_a_warning(place, monkeypatch, capsys):
    def full(self, key, record):
        raise UserError("the disk is full")

    monkeypatch.setattr(Parts, "add", full)
    seen, found, broken = describe(place)
    assert len(seen) == len(found) == 4 and not broken
    assert capsys.readouterr().err.count("warning: features are not kept in case the run is interrupted: the disk") == 1
    assert describe(place)[0] == []


def test_equal_broken_files_are_all_named_and_tried_again(place):
    for name in ("a.png", "b.png"):
        (place / "set" / name).write_bytes(b"nonsense")
    for _ in range(2):
        seen, found, broken = describe(place)
        assert "a.png" in seen and "a.png" not in found and len(found) == 4
        assert [error.name for error in broken] == [str(place / "set" / name) for name in ("a.png", "b.png")]
