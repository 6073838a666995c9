"""What holds for the whole bank: the table, the classes, and every distortion that is there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from contrique_jax.distort import bank
from contrique_jax.errors import UserError

TYPES = bank.TYPES
DRAWN = {3, 5, 11, 12, 13, 14, 15, 19, 20, 23}  # types that depend on the key
ADDING = {11, 12, 13, 14, 15, 23}  # types that put something into a flat image
IDENTITIES = [(1, 1), (3, 1), (8, 1), (18, 3)]
UNORDERED = {18, 21, 25}  # levels not in order of strength, or not strictly so in PSNR
FLIPS = {6, 9, 10, 22}  # types that quantise: a rounding error may tip a value over
LEVELS = {  # as the MATLAB files of the KADIS generator have them
    1: (0.1, 0.5, 1, 2, 5), 2: (1, 2, 4, 6, 8), 3: (1, 2, 4, 6, 10),
    4: (1, 3, 6, 8, 12), 5: (1, 3, 6, 8, 12), 6: (64, 48, 32, 16, 8),
    7: (0.4, 0.2, 0.1, 0, -0.4), 8: (1, 2, 3, 6, 9), 9: (16, 32, 45, 120, 400),
    10: (43, 36, 24, 7, 4), 11: (0.001, 0.002, 0.003, 0.005, 0.01), 12: (0.0001, 0.0005, 0.001, 0.002, 0.003),
    13: (0.001, 0.005, 0.01, 0.02, 0.03), 14: (0.001, 0.005, 0.01, 0.02, 0.05), 15: (0.01, 0.03, 0.05, 0.1, 0.15),
    16: (0.1, 0.2, 0.4, 0.7, 1.1), 17: (0.05, 0.1, 0.2, 0.4, 0.8), 18: (0.15, 0.08, 0, -0.08, -0.15),
    19: (0.05, 0.1, 0.2, 0.5, 1), 20: (20, 40, 60, 80, 100), 21: (0.01, 0.05, 0.1, 0.2, 0.5),
    22: (20, 16, 13, 10, 7), 23: (2, 4, 6, 8, 10), 24: (1, 2, 3, 6, 12),
    25: (0.3, 0.15, 0, -0.4, -0.6),
}  # fmt: skip
KEY_DATA = np.array([3, 141], np.uint32)

each_type = pytest.mark.parametrize("type", TYPES)


@pytest.fixture(scope="module")
def source(photo) -> np.ndarray:
    return photo("astronaut", 96, 128)


def stretched(image: np.ndarray) -> np.ndarray:
    """min-max stretched bytes"""
    low, high = float(image.min()), float(image.max())
    return np.floor(255 * (image - low) / (high - low) + 0.5).astype(np.uint8)


def assert_same(type: int, got: np.ndarray, want: np.ndarray) -> None:
    """Equal up to float rounding: one code here and there, or one block where the type quantises."""
    difference = np.abs(np.asarray(got, int) - np.asarray(want, int))
    assert (difference > 0).mean() < (0.02 if type in FLIPS else 0.001)
    assert type in FLIPS or difference.max() <= 1


def test_class_ids_are_final():
    assert (bank.NUM_TYPES, bank.NUM_LEVELS, bank.PRISTINE, bank.NUM_CLASSES) == (25, 5, 125, 126)
    assert [row.type for row in bank.BANK] == list(range(1, 26))
    ids = [bank.class_id(type, level) for type in range(1, 26) for level in range(1, 6)]
    assert ids == list(range(125))
    assert (bank.class_id(1, 1), bank.class_id(10, 3), bank.class_id(25, 5)) == (0, 47, 124)


def test_levels_are_those_of_the_matlab_files():
    assert {row.type: row.levels for row in bank.BANK} == LEVELS


def test_severity_ranks_the_levels():
    for row in bank.BANK:
        assert len(row.levels) == len(row.severity) == 5
        strength = {18: lambda v: abs(v), 25: lambda v: abs(v + 0.2)}.get(row.type)
        strengths = [round(strength(value), 6) for value in row.levels] if strength else list(range(1, 6))
        ranks = [1 + sum(other < mine for other in strengths) for mine in strengths]
        want = [0 if (row.type, level) in IDENTITIES else rank for level, rank in enumerate(ranks, 1)]
        assert list(row.severity) == want, row.name


def test_numbers_out_of_range_are_a_users_mistake():
    for type in (0, -1, 26):
        with pytest.raises(UserError, match=f"type {type}"):
            bank.get(type)
    for type, level in ((0, 1), (26, 1), (3, 0), (3, 6)):
        with pytest.raises(UserError, match=f"type {type}, level {level}"):
            bank.class_id(type, level)


@each_type
def test_output(run, source, type):
    """Shape, dtype, range; the same for the same key; another one for another key only where something is drawn."""
    levels = []
    for level in range(1, 6):
        got = run.distort(source, bank.class_id(type, level), 1)
        assert got.shape == source.shape and got.dtype == np.uint8
        assert got.min() == 0 and got.max() == 255
        np.testing.assert_array_equal(got, run.distort(source, bank.class_id(type, level), 1))
        levels.append(got)
    assert (run.distort(source, bank.class_id(type, 4), 2) != levels[3]).any() == (type in DRAWN)
    for a, b in zip(levels[1:], levels[:-1], strict=True):
        assert (a != b).any()


@each_type
def test_floats_are_finite(run, image, type):
    for level in range(1, 6):
        got = run(type, level, image)
        assert got.shape == image.shape and got.dtype == np.float32
        assert np.isfinite(got).all()


@each_type
def test_flat_images_stay_flat(run, type):
    """Nothing to stretch: no division by zero, and rounding errors are not blown up to an image."""
    for value in (0, 130, 255):
        got = run.distort(np.full((96, 128, 3), value, np.uint8), bank.class_id(type, 4), 4)
        assert type in ADDING or len(np.unique(got)) == 1


@pytest.mark.slow
@each_type
def test_vmap_is_a_loop(run, photo, image, type):
    images = np.stack([image, photo("astronaut", 75, 93) / 255]).astype(np.float32)
    keys = jax.vmap(jax.random.key)(jnp.array([6, 7]))
    both = np.asarray(jax.jit(jax.vmap(bank.get(type).apply))(keys, images, jnp.array([2, 5])))
    loop = np.stack([run(type, 2, images[0], 6), run(type, 5, images[1], 7)])
    assert_same(type, np.rint(255 * both), np.rint(255 * loop))


@pytest.mark.slow
def test_tensorflow_gives_the_same(run, source):
    tf = pytest.importorskip("tensorflow")
    from jax.experimental import jax2tf

    in_graph = tf.function(jax2tf.convert(bank.distort, with_gradient=False), autograph=False)
    key_data = np.asarray(jax.random.key_data(jax.random.key(8)))
    classes = [*(bank.class_id(type, level) for type in TYPES for level in (2, 5)), bank.PRISTINE]
    records = tf.data.Dataset.from_tensor_slices(np.array(classes, np.int32))
    images = records.map(lambda class_id: in_graph(key_data, source, class_id), num_parallel_calls=2)
    for class_id, got in zip(classes, images.as_numpy_iterator(), strict=True):
        assert_same(class_id // 5 + 1, got, run.distort(source, class_id, 8))


def test_pristine_is_unchanged(run, source):
    dim = (source // 2 + 20).astype(np.uint8)
    np.testing.assert_array_equal(run.distort(dim, bank.PRISTINE), dim)
    np.testing.assert_array_equal(run.distort(dim, bank.PRISTINE, minmax=False, types=(7,)), dim)


@pytest.mark.parametrize("type, level", IDENTITIES)
def test_identity_classes_only_stretch(run, source, type, level):
    full = stretched(source)
    np.testing.assert_array_equal(run.distort(full, bank.class_id(type, level)), full)
    # halves of a code, which a shorter range has, may go either way
    assert np.abs(run.distort(source, bank.class_id(type, level)) - full.astype(int)).max() <= 1


@pytest.mark.parametrize("type", [type for type in TYPES if type not in UNORDERED])
def test_strength_grows_with_the_level(run, photo, type):
    ratios = np.zeros(5)
    for name in ("astronaut", "coffee", "chelsea"):
        source = stretched(photo(name, 96, 128))
        for level in range(1, 6):
            got = run.distort(source, bank.class_id(type, level))
            ratios[level - 1] += 100 if (got == source).all() else peak_signal_noise_ratio(source, got)
    assert (np.diff(ratios) < 0).all()


def test_listing_types_changes_nothing_but_the_branches(run, source):
    for type in (7, 14):
        class_id = bank.class_id(type, 5)
        np.testing.assert_array_equal(run.distort(source, class_id, 9, types=(7, 14)), run.distort(source, class_id, 9))
    lowered = jax.jit(bank.distort, static_argnames="types").lower(KEY_DATA, source, jnp.int32(0), types=(7, 14))
    assert lowered.as_text().count("stablehlo.case") == 1  # one branch is chosen, not one of several results


def test_without_minmax_the_end_is_clipped(run, source):
    got = run.distort(source, bank.class_id(7, 5), minmax=False, types=(7,))
    x = source / 255.0
    value = x.max(-1, keepdims=True)
    want = np.floor(255 * np.clip(value + 0.4 * (value - x), 0, 1) + 0.5)
    assert np.abs(got - want).max() <= 1 and (got != want).mean() < 0.001
