"""The stateless order: every record once an epoch, shares of processes, the frequencies of classes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from contrique_jax.config import DataConfig
from contrique_jax.data.order import check_sizes, steps_per_epoch
from contrique_jax.distort import bank
from contrique_jax.errors import UserError
from contrique_jax.recipes.contrique.order import draw, type_table


def order(rows: range | None = None, *, seed: int = 3, pristine: int = 21, authentic: int = 30, **changes):
    """Step -> the choices of both halves."""
    data = DataConfig(**({"batch_size": 8, "pristine_share": 0.25} | changes))
    return functools.partial(draw, data, seed, (pristine, authentic), rows=rows or range(data.batch_size))


def test_the_same_step_gives_the_same_choices_whatever_came_before():
    first, again = order(), order()
    for step in (5, 0, 17):
        again(step)
    for ours, theirs in zip(first(5), again(5), strict=True):
        for a, b in zip(ours[:3] + tuple(ours.views), theirs[:3] + tuple(theirs.views), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_global_batch(processes):
    whole, share = order()(4), 8 // processes
    parts = [order(range(p * share, (p + 1) * share))(4) for p in range(processes)]
    for half in (0, 1):
        for field in ("record", "class_id", "key"):
            joined = np.concatenate([getattr(part[half], field) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole[half], field))
        joined = np.concatenate([part[half].views.x for part in parts])
        np.testing.assert_array_equal(joined, whole[half].views.x)


def test_no_record_twice_in_an_epoch_and_another_order_in_the_next():
    plan = order()
    passes = [np.concatenate([plan(step)[0].record for step in range(start, start + 5)]) for start in (0, 5, 10)]
    for seen in passes:
        assert len(np.unique(seen)) == 20  # 21 records, 4 a step: the last partial batch is dropped
        assert seen.min() >= 0 and seen.max() <= 20
    assert not np.array_equal(passes[0], passes[1])
    assert {int(r) for seen in passes for r in seen} == set(range(21)), "the dropped record changes from pass to pass"


def test_every_seed_source_and_pass_has_an_order_of_its_own():
    orders = set()
    for seed in range(3):
        plan = order(seed=seed, pristine=24, authentic=24)
        for start in (0, 6):
            for role in (0, 1):
                orders.add(tuple(int(r) for step in range(start, start + 6) for r in plan(step)[role].record))
    assert len(orders) == 3 * 2 * 2 and all(sorted(seen) == list(range(24)) for seen in orders)


def test_authentic_images_are_classes_of_their_own():
    assert order()(0)[1].class_id.tolist() == [126, 127, 128, 129]
    assert order(range(4, 8))(0)[1].class_id.tolist() == [128, 129]


def test_classes_are_drawn_as_configured():
    plan = order(pristine=5000, authentic=5000, batch_size=2000, pristine_share=0.25)
    classes = np.concatenate([plan(step)[0].class_id for step in range(8)])
    share = np.mean(classes == bank.PRISTINE)
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(classes))
    distorted = classes[classes != bank.PRISTINE]
    counts = np.bincount(distorted // 5, minlength=25)
    assert set(np.flatnonzero(counts) + 1) == set(bank.TYPES)
    expected = len(distorted) / len(bank.TYPES)
    assert np.abs(counts[counts > 0] - expected).max() < 5 * np.sqrt(expected)
    levels = np.bincount(distorted % 5, minlength=5) / len(distorted)
    np.testing.assert_allclose(levels, 0.2, atol=0.03)


def test_weights_choose_types():
    weights = [0.0] * 25
    weights[0], weights[9] = 1.0, 3.0
    plan = order(pristine=5000, authentic=5000, batch_size=2000, pristine_share=0.0, type_weights=tuple(weights))
    types = plan(0)[0].class_id // 5 + 1
    assert set(types.tolist()) == {1, 10}
    assert abs(np.mean(types == 10) - 0.75) < 0.06


def test_types_and_shares():
    types, shares = type_table(())
    assert types == bank.TYPES
    np.testing.assert_allclose(sum(shares), 1.0)


def test_steps_and_sizes():
    assert steps_per_epoch({"pristine": 21, "authentic": 30}, 8) == 5
    with pytest.raises(UserError, match=r"config\.data\.authentic holds 3 images"):
        check_sizes({"pristine": 10, "authentic": 3}, 8)


def test_views_are_full_and_half_in_random_order():
    plan = order(pristine=5000, authentic=5000, batch_size=2000)
    for half in plan(0):
        assert np.array_equal(half.views.div.sum(axis=1), np.full(1000, 3))
        assert 400 < np.sum(half.views.div[:, 0] == 1) < 600


def test_merged_identities_are_drawn_as_the_undistorted_class():
    assert [bank.BANK[id // 5].name for id in bank.IDENTITIES] == [
        "gaussian blur", "motion blur", "saturation in Lab", "mean shift",
    ]  # fmt: skip
    apart, merged = order(pristine=500, authentic=500), order(pristine=500, authentic=500, merge_identity_classes=True)
    seen = 0
    for step in range(60):
        plain, joint = apart(step)[0], merged(step)[0]
        identity = np.isin(plain.class_id, bank.IDENTITIES)
        seen += identity.sum()
        np.testing.assert_array_equal(joint.class_id, np.where(identity, bank.PRISTINE, plain.class_id))
        np.testing.assert_array_equal(joint.record, plain.record)
    assert seen > 0
