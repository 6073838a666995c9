"""docs/distortions.md is what its command makes; the benchmark compares like with like."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from contrique_jax import distort
from contrique_jax.distort import bank
from contrique_jax.errors import run_verb

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")
ROOT = Path(__file__).parents[1]


def loaded(path: str) -> ModuleType:
    """A script as a module; what it sets in the environment does not stay."""
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_script", ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = dict(os.environ)
    sys.path.insert(0, str((ROOT / path).parent))  # as for a script
    spec.loader.exec_module(module)
    sys.path.pop(0)
    os.environ.clear()
    os.environ.update(before)
    return module


@pytest.fixture(scope="module")
def document() -> ModuleType:
    return loaded("docs/make_distortions.py")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    pytest.importorskip("tensorflow")
    return loaded("benchmarks/distortions.py")


def test_the_document_is_what_the_command_makes(document):
    assert document.TEXT.read_text(encoding="utf-8") == document.text(), "run python docs/make_distortions.py"


def test_the_document_names_every_level_and_its_links_lead_somewhere(document):
    text = document.text()
    headings = {line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    for row in bank.BANK:
        assert f"(#{document.anchor(row)})" in text and document.anchor(row) in headings
        assert " | ".join(f"{value:g}" for value in row.levels) in text
    for type in bank.TYPES:
        assert Image.open(ROOT / "docs" / document.PICTURES / f"{type:02}.jpg").height == document.SCENE[2]
    assert sum(path.stat().st_size for path in (ROOT / "docs" / document.PICTURES).iterdir()) < 1_500_000


def test_strips_show_the_levels_side_by_side(document):
    image = np.ascontiguousarray(skimage.data.astronaut()[::8, ::8])
    page = np.asarray(document.strip(image, 18))
    assert page.shape == (64, 5 * 64 + 4 * document.GAP, 3)
    for level in range(1, 6):
        left = (level - 1) * (64 + document.GAP)
        np.testing.assert_array_equal(page[:, left : left + 64], distort.apply(image, 18, level))


def test_every_type_has_a_reference_that_gives_images(benchmark):
    assert sorted(benchmark.REFERENCES) == [row.type for row in bank.BANK]
    image, rng = np.ascontiguousarray(skimage.data.astronaut()[::8, ::8]), np.random.default_rng(0)
    for row in bank.BANK:
        if row.type == 15 and importlib.util.find_spec("pywt") is None:
            continue
        for level in (2, 5):
            got = benchmark.theirs(image, row.type, level, rng)
            assert got.dtype == np.uint8 and got.shape == image.shape and (got != image).any()


@pytest.mark.parametrize("type, least", [(1, 50), (2, 35), (8, 45), (10, 40), (17, 50), (22, 20), (25, 50)])
def test_references_do_the_same_work(benchmark, type, least):
    """PSNR [dB] between both."""
    image = np.ascontiguousarray(skimage.data.coffee()[:384:4, :512:4])
    for level in (2, 4):
        got = benchmark.theirs(image, type, level, np.random.default_rng(0))
        want = distort.apply(image, type, level)
        assert (got == want).all() or peak_signal_noise_ratio(want, got) >= least


def test_the_benchmarks_table_names_what_misses_the_goal(benchmark):
    chosen = bank.TYPES
    times = {which: {type: 2.0 for type in (*chosen, 0)} for which in ("ours", "side by side", "theirs")}
    times["ours"][10], times["theirs"][12] = 3.5, 1.0
    del times["theirs"][0]
    *lines, last = benchmark.table(chosen, times)
    assert last == "more than 1.5 times theirs: 10 (1.8), 12 (2.0)"
    assert [int(line[:2]) for line in lines[1 : len(chosen) + 1]] == list(chosen)
    assert lines[-1].split()[:6] == ["mean", "of", "the", "126", "classes", f"{(5 * 51.5 + 2) / 126:.2f}"]


@pytest.mark.slow
def test_the_benchmark_runs(benchmark, capsys):
    assert run_verb(benchmark.main, ["--type", "17,18", "--rounds", "1", "--threads", "2"]) == 0
    out = io.StringIO(capsys.readouterr().out)
    assert sum(line.startswith(("17 darken", "18 mean shift", "undistorted")) for line in out) == 3
    assert run_verb(benchmark.main, ["--type", "26"]) == 2
