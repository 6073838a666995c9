"""Losses between opinions: what costs nothing, what costs most, and which rows count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrique_jax.losses.opinion import TERMS, ranking, weighted_sum

GIVEN = np.array([0.1, 0.9, 0.4, 0.4, 0.7], np.float32)
ALL = np.ones(5, np.float32)


@pytest.mark.parametrize("name", TERMS)
def test_what_is_as_it_should_be_costs_nothing(name):
    assert TERMS[name](GIVEN, GIVEN, ALL) == pytest.approx(0, abs=1e-6)
    assert TERMS[name](-GIVEN, GIVEN, ALL) > 0.1


@pytest.mark.parametrize("name", TERMS)
def test_rows_of_no_weight_count_for_nothing(name):
    found = np.random.default_rng(0).random(5).astype(np.float32)
    without = TERMS[name](np.append(found, 9.0), np.append(GIVEN, -5.0), np.append(ALL, 0))
    np.testing.assert_allclose(without, TERMS[name](found, GIVEN, ALL), rtol=1e-5)


def test_correlation_is_numpys_and_a_constant_costs_a_half():
    found = np.random.default_rng(1).random(5).astype(np.float32)
    expected = (1 - np.corrcoef(found, GIVEN)[0, 1]) / 2
    np.testing.assert_allclose(TERMS["correlation"](found, GIVEN, ALL), expected, rtol=1e-5)
    constant = jax.value_and_grad(TERMS["correlation"])(jnp.full(5, 0.3), jnp.asarray(GIVEN), jnp.asarray(ALL))
    assert constant[0] == pytest.approx(0.5) and np.isfinite(constant[1]).all()


def test_ranking_asks_for_order_and_distance_of_unequal_scores():
    assert ranking(2 * GIVEN + 7, GIVEN, ALL) == pytest.approx(0, abs=1e-6)  # farther apart than needed
    two, ones = np.array([0.2, 0.6], np.float32), np.ones(2, np.float32)
    np.testing.assert_allclose(ranking(two[::-1], two, ones), 0.8, rtol=1e-6)
    assert ranking(two, np.full(2, 0.5, np.float32), ones) == 0


def test_the_sum_names_its_parts():
    whole, parts = weighted_sum({"mse": 2.0, "mae": 0.0, "ranking": 0.5}, 0.5 * GIVEN, GIVEN, ALL)
    assert set(parts) == {"mse", "ranking"}
    np.testing.assert_allclose(whole, 2 * parts["mse"] + 0.5 * parts["ranking"], rtol=1e-6)
