"""The pipeline: both loaders give the same images, broken files are counted, shares add up, memory stays flat."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from contrique_jax.config import Config, DataConfig, TrainConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.scenes import authentic_scene, pristine_scene
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError
from contrique_jax.recipes.contrique import recipe
from tests.tiny_config import FEW_TYPES


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folders of 12 clean and 12 other small JPEGs."""
    folder = tmp_path_factory.mktemp("photographs")
    for role, scene in (("pristine", pristine_scene), ("authentic", authentic_scene)):
        (folder / role).mkdir()
        for index in range(12):
            image = Image.fromarray(scene(1, index))
            image.resize((150, 110) if role == "pristine" else (90 + 7 * index, 80)).save(
                folder / role / f"{index:02}.jpg"
            )
    return folder


def pipeline(folder, rows: range | None = None, broken: BrokenLog | None = None, **changes) -> Pipeline:
    settings = {"batch_size": 8, "height": 96, "width": 128, "view_size": 64, "pristine_share": 0.2}
    settings["type_weights"] = FEW_TYPES
    data = DataConfig(str(folder / "pristine"), str(folder / "authentic"), **(settings | changes))
    config = Config(data=data, train=TrainConfig(seed=5))
    sources = {
        role: open_source(getattr(data, role), role=role, field=f"config.data.{role}")
        for role in ("pristine", "authentic")
    }
    return Pipeline(
        config, recipe, sources, rows=rows or range(data.batch_size), broken=broken or BrokenLog(quiet=True)
    )


def test_a_batch_has_its_shape(photographs):
    batch = next(pipeline(photographs, loader="threads").batches(0, 1))
    assert batch.views.shape == (8, 2, 64, 64, 3) and batch.views.dtype == np.uint8
    assert batch.classes.shape == (8,) and batch.classes.dtype == np.int32
    assert (batch.classes[::2] < 126).all() and batch.classes[1::2].tolist() == [126, 127, 128, 129]
    assert batch.views.std() > 10


@pytest.mark.slow
def test_tfdata_and_threads_give_the_same_images(photographs):
    pytest.importorskip("tensorflow")
    ours = list(pipeline(photographs, loader="threads", type_weights=()).batches(2, 5))
    theirs = list(pipeline(photographs, loader="tfdata", type_weights=()).batches(2, 5))
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.classes, b.classes)
        difference = np.abs(a.views.astype(int) - b.views.astype(int))
        difference = np.minimum(difference, 256 - difference)  # LAB and HSV bytes wrap
        assert np.mean(difference > 1) < 0.01


@pytest.mark.slow
def test_rows_for_the_device_are_those_of_the_host(photographs):
    """The same (seed, step): what the device makes of the decoded rows is what the host makes of them. With the other
    loader: `test_contract.py`; every type, row by row: `test_host_views.py`."""
    pytest.importorskip("tensorflow")
    host = list(pipeline(photographs, loader="tfdata").batches(1, 3))
    device = pipeline(photographs, loader="tfdata", augment_on="device")
    finish = jax.jit(functools.partial(recipe.finish, device.config))
    for wanted, rows in zip(host, device.batches(1, 3), strict=True):
        views, classes = finish(rows)
        np.testing.assert_array_equal(classes, wanted.classes)
        difference = np.abs(np.asarray(views).astype(int) - wanted.views.astype(int))
        assert np.mean(np.minimum(difference, 256 - difference) > 1) < 0.01


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_batches_start_anywhere(photographs, loader):
    if loader == "tfdata":
        pytest.importorskip("tensorflow")
    whole = list(pipeline(photographs, loader=loader).batches(0, 4))
    late = list(pipeline(photographs, loader=loader).batches(3, 4))
    np.testing.assert_array_equal(whole[3].views, late[0].views)


def test_processes_read_only_their_rows(photographs):
    whole = next(pipeline(photographs, loader="threads").batches(1, 2))
    asked: list[int] = []
    for rows in (range(0, 4), range(4, 8)):
        part = pipeline(photographs, rows=rows, loader="threads")
        load = part.sources["pristine"].load
        part.sources["pristine"].load = lambda record, load=load: (asked.append(record), load(record))[1]
        batch = next(part.batches(1, 2))
        np.testing.assert_array_equal(batch.views, whole.views[rows.start : rows.stop])
        np.testing.assert_array_equal(batch.classes, whole.classes[rows.start : rows.stop])
    assert len(asked) == 4


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_broken_images_are_counted_and_named(photographs, tmp_path, loader):
    if loader == "tfdata":
        pytest.importorskip("tensorflow")
    for role in ("pristine", "authentic"):
        (tmp_path / role).mkdir()
        for path in (photographs / role).iterdir():
            (tmp_path / role / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pristine" / "03.jpg").write_text("not a picture")
    whole = (tmp_path / "authentic" / "04.jpg").read_bytes()
    (tmp_path / "authentic" / "04.jpg").write_bytes(whole[: len(whole) // 2])
    broken = BrokenLog(tmp_path / "broken.txt", quiet=True)
    batches = list(pipeline(tmp_path, broken=broken, loader=loader).batches(0, 6))
    assert len(batches) == 6
    assert broken.count == 2
    named = (tmp_path / "broken.txt").read_text()
    assert "03.jpg" in named and "04.jpg" in named and named.count("\n") == 2


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_a_source_without_one_readable_image_stops_the_run(tmp_path, loader):
    if loader == "tfdata":
        pytest.importorskip("tensorflow")
    for role in ("pristine", "authentic"):
        (tmp_path / role).mkdir()
        for index in range(4):
            (tmp_path / role / f"{index}.jpg").write_text("text")
    with pytest.raises(UserError, match="cannot be read"):
        next(pipeline(tmp_path, loader=loader).batches(0, 1))


def test_arrays_need_no_tensorflow(tmp_path, monkeypatch):
    import importlib.util

    scenes = np.stack([pristine_scene(0, index, 96, 128) for index in range(6)])
    np.save(tmp_path / "scenes.npy", scenes)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # from here on importing it fails
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    source = f"arrays:{tmp_path / 'scenes.npy'}"
    data = DataConfig(source, source, batch_size=4, height=96, width=128, view_size=64, type_weights=FEW_TYPES)
    arrays = {role: open_source(source, role=role, field=f"config.data.{role}") for role in ("pristine", "authentic")}
    made = Pipeline(Config(data=data), recipe, arrays, rows=range(4), broken=BrokenLog())
    assert len(list(made.batches(0, 3))) == 3
    with pytest.raises(UserError, match="TensorFlow is not installed"):
        Pipeline(
            Config(data=dataclasses.replace(data, loader="tfdata")), recipe, arrays, rows=range(4), broken=BrokenLog()
        )


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_memory_stays_flat(photographs, loader):
    if loader == "tfdata":
        pytest.importorskip("tensorflow")

    def resident() -> float:
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("reads the resident size from /proc")
    batches = pipeline(photographs, loader=loader).batches(0, 300)
    sizes = [resident() for step, _ in enumerate(batches) if step in (100, 299)]
    assert sizes[1] - sizes[0] < 30


# Blurs by Fourier transform, from more threads than XLA's pool has.
MANY_THREADS = """
from contrique_jax.config import Config, DataConfig
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.sources import open_source
from contrique_jax.recipes.contrique import recipe
sources = {role: open_source("scenes:16", role=role, field=role, canvas=(96, 128)) for role in ("pristine", "authentic")}
blurs = (0.0, 1.0, 1.0, 1.0) + (0.0,) * 21
data = DataConfig(
    batch_size=32, height=96, width=128, view_size=64, loader="threads", workers=4, type_weights=blurs
)
for _ in Pipeline(Config(data=data), recipe, sources, rows=range(32), broken=BrokenLog()).batches(0, 20):
    pass
"""


@pytest.mark.slow
def test_threads_do_not_wait_for_each_other_for_ever():
    """As they did under jaxlib 0.11, whose Fourier transform waits in the pool's threads for the pool."""
    environment = os.environ | {"NPROC": "2", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", MANY_THREADS], env=environment, timeout=240, check=True)
