"""Re-IQA's pairs: records and types against the original program's, and what the sampler promises."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare

from contrique_jax.augment.half import half_by_points
from contrique_jax.recipes.reiqa import content, quality, recipe
from contrique_jax.recipes.reiqa.config import ReiqaConfig, ReiqaData, ReiqaLoss, ReiqaModel
from contrique_jax.recipes.reiqa.types import TABLE, distorted


@pytest.fixture(scope="module")
def stored(shared):
    with np.load(shared / "systems" / "reference" / "reiqa.npz") as data:
        return {name: data[name] for name in data.files if name.startswith("record/")}


def test_a_record_is_the_originals(stored):
    """The picture and three copies at both sizes, with windows and offsets. The original exchanges crops by adding and
    subtracting in place, in views that overlap: what both share is lost, and the picture that is halved is damaged too."""
    image, corners = stored["record/image"], stored["record/crop_top_left_per_scale"]
    offsets, wanted = stored["record/offset_y_x_per_scale"], stored["record/item"].reshape(2, 4, 2, 3, 20, 20)
    codes = [(3 * image.astype(int) + 17 * kind + 5 * level) % 256 for kind, level in stored["record/choice_level"]]
    pictures = np.stack([image, *codes]).astype(np.float32) / 255
    for scale, which in enumerate(((0, 1), (2, 3))):
        if scale:
            pictures = np.array(half_by_points(jnp.asarray(pictures)))
        ours = quality.exchanged(quality.two_crops(jnp.asarray(pictures), corners[scale], offsets[scale], 20), scale)
        for copy in which:
            (top, left), (dy, dx) = corners[scale], offsets[scale]
            a = pictures[copy, top : top + 20, left : left + 20]
            b = pictures[copy, top + dy : top + dy + 20, left + dx : left + dx + 20]
            a += b
            b[...] = a - b
            a -= b
        theirs = quality.two_crops(jnp.asarray(pictures), corners[scale], offsets[scale], 20)
        np.testing.assert_allclose(np.asarray(theirs).transpose(0, 1, 4, 2, 3), wanted[scale], atol=1e-5)
        apart = np.abs(np.asarray(ours).transpose(0, 1, 4, 2, 3) - wanted[scale])
        assert apart[:, :, :, 20 - dy : dy].max() < 1e-5, "rows that no other crop has"


@functools.lru_cache
def plans(copies=12, types=26, side=160, least=0.1, most=0.3):
    return jax.tree.map(np.asarray, quality.choices(0, 3, np.arange(6000), (copies, types, side, least, most)))[1]


@pytest.mark.parametrize("case", [(160, 0.1, 0.3), (64, 0.2, 0.6)])
def test_crops_overlap_as_they_should(case):
    side, least, most = case
    dy, dx = plans(2, 3, *case).offset.reshape(-1, 2).T
    shared_part = (side - dy) * (side - dx) / side**2
    assert (dy >= 0).all() and (dx >= 0).all() and (dx < side).all()
    assert shared_part.min() >= least - 1e-9 and shared_part.max() <= most + 1e-9
    fewest, columns = quality.offsets_of(*case)
    assert chisquare(np.bincount(dy - fewest, minlength=len(columns))).pvalue > 1e-3
    widest = dx[dy == fewest]
    assert chisquare(np.bincount(widest, minlength=columns[0])).pvalue > 1e-3
    if case == (160, 0.1, 0.3):
        assert (dy.min(), dy.max(), dx.min(), dx.max()) == (112, 143, 0, 105)
        assert abs(shared_part.mean() - 0.153) < 0.003


def test_types_of_a_photograph_differ_and_levels_are_alike():
    drawn = plans()
    assert all(len(set(row)) == 11 for row in drawn.places[:3000])
    assert chisquare(np.bincount(drawn.places.ravel(), minlength=26)).pvalue > 1e-3
    assert chisquare(np.bincount(drawn.levels.ravel(), minlength=6)[1:]).pvalue > 1e-3


def test_a_photograph_smaller_than_its_window_lies_in_the_middle_of_it():
    images = jnp.full((2, 20, 90, 3), 7, jnp.uint8)
    corner = quality.corner_of(jnp.asarray([0.9, 0.0]), (20, 90), jnp.asarray(60))
    assert corner.tolist() == [-20, 15]
    crops = np.asarray(quality.two_crops(images, corner, jnp.asarray([28, 3]), 32))
    assert (crops[:, 0, :20] == 0).all() and (crops[:, 0, 20:] == 7).all()
    assert (crops[:, 1, :12] == 7).all() and (crops[:, 1, 12:] == 0).all()


EQUAL = {
    "imblurlens": 2, "imcolorsaturate": 5, "imsaturate": 6, "imbrighten": 13, "imdarken": 14, "immeanshift": 15,
    "imcontrastc": 18, "imresizedist": 16, "imresizedist_bilinear": 23, "imresizedist_nearest": 24, "imresizedist_lanczos": 25,
}  # fmt: skip


def test_types_are_the_originals_where_they_are_the_same(shared):
    """To a code, which the original cuts off and ours rounds; the nearest pixel is a matter of rounding if two are as near."""
    with np.load(shared / "systems" / "reference" / "reiqa_distortions.npz") as data:
        image, wanted = data["image"], {name: data[name].astype(float) for name in EQUAL}
    applied = jax.jit(
        lambda place, level: distorted(place, jnp.zeros(2, jnp.uint32), jnp.asarray(image), level, (*EQUAL.values(),))
    )
    for place, name in enumerate(EQUAL):
        for level in range(5):
            apart = np.abs(np.asarray(applied(place, level + 1), float) - wanted[name][level])
            assert np.mean(apart > 1) <= (0.2 if "nearest" in name else 0), (name, level)


@pytest.mark.slow
def test_every_type_changes_a_photograph_and_stays_in_bytes():
    """But for the shift of nothing and Lab's factor of 1; the same key gives the same."""
    scene = np.asarray(Image.effect_noise((64, 64), 40).convert("RGB").resize((96, 64), Image.Resampling.BICUBIC))
    image = jnp.asarray(np.stack([scene[..., 0], scene[::-1, :, 1], scene[:, ::-1, 2]], axis=2))
    key = jnp.asarray([3, 4], jnp.uint32)
    applied = jax.jit(lambda place, level: distorted(place, key, image, level, tuple(TABLE)))
    for place, kind in enumerate(TABLE):
        made = np.asarray(applied(place, 5))
        assert made.dtype == np.uint8 and np.abs(made.astype(int) - np.asarray(image)).mean() > 0.05, kind
        np.testing.assert_array_equal(made, applied(place, 5))


def test_content_crops_are_of_a_fifth_of_the_area_or_more():
    tries = np.random.default_rng(0).random((3000, content.TRIES, 4)).astype(np.float32)
    boxes = np.array([content.box_of(300, 400, one) for one in tries])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas, ratios = width * height / 120_000, width / height
    assert (boxes >= 0).all() and (boxes[:, 2] <= 400).all() and (boxes[:, 3] <= 300).all()
    assert 0.195 < areas.min() < 0.22 and areas.max() > 0.95
    assert 0.74 < ratios.min() < 0.78 and 1.29 < ratios.max() < 1.35
    assert content.box_of(30, 400, np.zeros((10, 4), np.float32)) == (180, 0, 220, 30), "the middle of a strip"


def test_a_content_model_has_one_pair_a_photograph():
    config = ReiqaConfig(
        data=ReiqaData(authentic="scenes:4", batch_size=2, view_size=32),
        model=ReiqaModel("resnet18", base_width=4, patches=1, kind="content", input_scaling="imagenet"),
        loss=ReiqaLoss(queue=2, negatives="queue"),
    )
    config.validate()
    image = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)

    class Source:
        name = "pictures"
        load = staticmethod(lambda record: image)
        __len__ = lambda self: 4  # noqa: E731

    (draws,) = recipe.draw(config, {"authentic": Source()}, 0, range(2))
    rows = [recipe.load(config, {"authentic": Source()}, 0, draws, row, None) for row in range(2)]
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), recipe.example_shapes(config)[0])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), rows[0]) == shapes
    batch = jax.jit(lambda examples: recipe.finish(config, examples))(
        (jax.tree.map(lambda *each: np.stack(each), *rows),)
    )
    assert batch["views"].shape == (2, 1, 2, 32, 32, 3) and batch["views"].dtype == np.uint8
    np.testing.assert_allclose(
        np.asarray(batch["views"][0], float),
        jax.jit(lambda row: recipe.finish_row(config, 0, row))(rows[0])["views"],
        atol=1,
    )
