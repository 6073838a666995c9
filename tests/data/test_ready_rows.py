"""Images that come distorted already: each row's class, the image's own pixels, the same in both loaders."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from contrique_jax.augment.views import COLOURS
from contrique_jax.config import Config, DataConfig, TrainConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import Pipeline
from contrique_jax.data.sources import open_source
from contrique_jax.recipes.contrique import recipe
from contrique_jax.training import mesh
from contrique_jax.training.loop import train
from tests.training.test_train import losses, pipeline_of, tiny

CLASSES = [3, 125, 0, 3, 77, 124, 9, 10, 11, 12, 0, 64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 images of 512 x 384 and of other sizes, and list.csv with their classes."""
    folder = tmp_path_factory.mktemp("ready")
    for i in range(len(CLASSES)):
        coarse = Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8))
        coarse.resize((512, 384) if i < 8 else (300 + 11 * i, 280 + i)).save(folder / f"{i:02}.png")
    rows = [f"{i:02}.png,{class_id}" for i, class_id in enumerate(CLASSES)]
    (folder / "list.csv").write_text("\n".join(["path,class", *rows]))
    return folder


def pipeline(folder, rows: range | None = None, broken: BrokenLog | None = None, **changes) -> Pipeline:
    data = DataConfig(str(folder / "list.csv"), str(folder), **({"batch_size": 8} | changes))
    config = Config(data=data, train=TrainConfig(seed=5))
    sources = {
        role: open_source(getattr(data, role), role=role, field=f"config.data.{role}")
        for role in ("pristine", "authentic")
    }
    return Pipeline(
        config, recipe, sources, rows=rows or range(data.batch_size), broken=broken or BrokenLog(quiet=True)
    )


def by_pillow(path, div: int, y: float, x: float, size: int = 256) -> np.ndarray:
    """The whole image at its scale, then a crop, or if a side is short a centred one on black."""
    image = Image.open(path)
    w, h = image.width // div, image.height // div
    image = image.resize((w, h), Image.Resampling.BILINEAR) if div == 2 else image
    if min(h, w) >= size:
        left, top = int(x * (w - size + 1)), int(y * (h - size + 1))
        return np.asarray(image.crop((left, top, left + size, top + size)))
    left, top = round((w - size) / 2), round((h - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))  # Pillow fills with black


def test_every_row_has_its_class_and_the_pixels_of_its_image(folder):
    made = pipeline(folder, loader="threads")
    compared = set()
    for step, batch in enumerate(made.batches(0, 6)):
        draws = recipe.draw(made.config, made.sources, step, made.rows)[0]
        assert batch.classes[::2].tolist() == [CLASSES[record] for record in draws.record]
        assert batch.classes[1::2].tolist() == [126, 127, 128, 129]
        for row, record in enumerate(draws.record):
            for view in (0, 1):
                div, y, x, colour, flip = (part[row, view] for part in draws.views)
                if COLOURS[colour] not in ("none", "grey") or (record >= 8 and div == 2):
                    continue  # sides of other sizes are odd, where padding may round either way
                expected = by_pillow(folder / f"{record:02}.png", int(div), float(y), float(x))
                if COLOURS[colour] == "grey":
                    expected = np.asarray(Image.fromarray(expected).convert("L").convert("RGB"))
                got = batch.views[2 * row, view]
                np.testing.assert_array_equal(got[:, ::-1] if flip else got, expected)
                compared.add((int(record) < 8, int(div), bool(flip)))
    assert {(True, 1, True), (True, 2, True), (True, 1, False), (True, 2, False)} <= compared


@pytest.mark.slow
def test_tfdata_and_threads_give_the_same_images(folder):
    pytest.importorskip("tensorflow")
    for a, b in zip(*(pipeline(folder, loader=loader).batches(2, 5) for loader in ("threads", "tfdata")), strict=True):
        np.testing.assert_array_equal(a.classes, b.classes)
        difference = np.abs(a.views.astype(int) - b.views.astype(int))
        assert np.mean(np.minimum(difference, 256 - difference) > 1) < 0.01  # LAB and HSV bytes wrap


def test_processes_and_later_starts_read_the_same_rows(folder):
    whole = list(pipeline(folder, loader="threads").batches(0, 3))[2]
    for rows in (range(0, 4), range(4, 8)):
        part = next(pipeline(folder, rows, loader="threads").batches(2, 3))
        np.testing.assert_array_equal(part.views, whole.views[rows.start : rows.stop])
        np.testing.assert_array_equal(part.classes, whole.classes[rows.start : rows.stop])


@pytest.mark.parametrize("loader", ["threads", "tfdata"])
def test_in_place_of_a_broken_image_the_next_one_comes_with_its_own_class(folder, tmp_path, loader):
    if loader == "tfdata":
        pytest.importorskip("tensorflow")
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "04.png").write_text("no picture")
    broken = BrokenLog(tmp_path / "broken.txt", quiet=True)
    made = pipeline(tmp_path, broken=broken, loader=loader)
    seen = []
    for step, batch in enumerate(made.batches(0, 3)):
        seen += batch.classes[::2].tolist()
        records = [
            5 if record == 4 else record for record in recipe.draw(made.config, made.sources, step, made.rows)[0].record
        ]
        assert batch.classes[::2].tolist() == [CLASSES[record] for record in records]
    assert 77 not in seen and seen.count(124) == 2 and broken.count == 1


@pytest.mark.slow
def test_a_run_on_ready_images(folder, tmp_path):
    config = tiny(data__pristine=str(folder / "list.csv"))
    state = train(config, tmp_path, mesh.start(16, devices=1), pipeline_of(config))
    assert int(state.step) == 6 and (tmp_path / "model").is_dir()
    assert np.isfinite(losses(tmp_path)).all()
