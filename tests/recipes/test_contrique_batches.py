"""Distortion and views of many rows at once equal those of one row at a time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data

from contrique_jax.augment.grouped import by_kind
from contrique_jax.augment.views import ViewDraw, draw_views
from contrique_jax.distort import bank
from contrique_jax.recipes.contrique.batches import Canvases, Crops, batch_of, cropped_views, synthetic_views

SIZE = 64
PHOTOGRAPHS = [
    skimage.data.astronaut()[:192, :256],
    skimage.data.coffee()[60:252, :256],
    skimage.data.chelsea()[:192, :256],
]


def views_of_rows(count: int) -> ViewDraw:
    return jax.tree.map(np.asarray, jax.vmap(draw_views)(jax.random.split(jax.random.key(1), count)))


def one(rows: Canvases | Crops, i: int) -> Canvases | Crops:
    return jax.tree.map(lambda part: part[i], rows)


def far_apart(a: np.ndarray, b: np.ndarray) -> float:
    """The share of samples that differ by more than one code; LAB and HSV bytes wrap."""
    difference = np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))
    return float(np.mean(np.minimum(difference, 256 - difference) > 1))


@pytest.mark.parametrize("count", [1, 7, 60])
def test_by_kind_takes_each_row_through_its_own_branch_once(count: int):
    generator = np.random.default_rng(count)
    kinds, x = generator.integers(0, 6, count), generator.normal(size=(count, 3))
    branches = [functools.partial(jnp.multiply, factor) for factor in range(1, 7)]
    done = jax.jit(
        lambda kinds, x: by_kind(lambda kind, row: jax.lax.switch(kind, branches, row), kinds, (x,), kinds=6)
    )(kinds, x)
    np.testing.assert_allclose(done, x * (kinds + 1)[:, None], rtol=1e-6)


def test_by_kind_runs_no_other_branch():
    """A branch that no row asks for is compiled, not run."""
    called = []

    def other(x):
        jax.debug.callback(lambda: called.append(1))
        return x

    mapped = jax.jit(
        lambda kinds, x: by_kind(lambda k, row: jax.lax.switch(k, [lambda x: x, other], row), kinds, (x,), kinds=2)
    )
    jax.block_until_ready(mapped(jnp.zeros(9, int), jnp.ones((9, 2))))
    jax.effects_barrier()
    assert not called
    jax.block_until_ready(mapped(jnp.ones(9, int), jnp.ones((9, 2))))
    jax.effects_barrier()
    assert called


@pytest.mark.slow
def test_many_rows_equal_one_at_a_time():
    """Every class once: all types at a level each, the undistorted one, every colour space."""
    classes = np.array([bank.class_id(kind, 1 + kind % 5) for kind in bank.TYPES] + [bank.PRISTINE], np.int32)
    count = len(classes)
    images = np.stack([PHOTOGRAPHS[i % 3] for i in range(count)])
    keys = np.random.default_rng(0).integers(0, 2**32, (count, 2), dtype=np.uint32)
    settings = {"types": bank.TYPES, "minmax": True, "size": SIZE}
    canvases = Canvases(images, classes, keys, views_of_rows(count))
    crops = Crops(np.stack([images[:, :SIZE, :SIZE], images[:, -SIZE:, -SIZE:]], 1), classes + 126, canvases.views)
    views, labels = jax.jit(functools.partial(batch_of, **settings))((canvases, crops))
    np.testing.assert_array_equal(labels[::2], classes)
    np.testing.assert_array_equal(labels[1::2], classes + 126)
    alone = jax.jit(functools.partial(synthetic_views, **settings))
    for i in range(count):
        row = one(canvases, i)
        wanted = alone(row.keys, row.images, row.classes, row.views)
        assert far_apart(views[2 * i], wanted) <= 0.01, bank.BANK[min(classes[i] // 5, 24)].name
    finish = jax.jit(cropped_views)
    assert (
        max(far_apart(views[2 * i + 1], finish(one(crops, i).images, one(crops, i).views)) for i in range(count)) == 0
    )
