"""Where a score stands among those of a probe's photographs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.standing import Standing


def test_shares_below_are_those_of_the_scores_themselves():
    scores = np.random.default_rng(0).normal(size=5000)
    standing = Standing.of(scores)
    asked = np.array([-9.0, -1.0, 0.0, 0.7, 9.0])
    np.testing.assert_allclose(standing.below(asked), [np.mean(scores < x) for x in asked], atol=0.006)
    shares = standing.histogram(np.linspace(-5, 5, 11))
    assert shares.sum() == pytest.approx(1) and (shares >= 0).all()


def test_of_equal_scores_half_are_below():
    assert Standing.of(np.full(7, 3.0)).below([2, 3, 4]).tolist() == [0, 0.5, 1]


def test_it_is_kept_in_the_probe_s_file(tmp_path):
    probe = Probe(
        np.ones(3), 0.0, 1.0, NO_REFERENCE, "abc", "MINE", 1.0, 5.0, True, standing=Standing.of(np.arange(40.0))
    )
    probe.save(tmp_path / "p.npz")
    kept = load_probe(tmp_path / "p.npz").standing
    assert kept.photographs == 40 and (kept.percentiles == probe.standing.percentiles).all()
    falling = dataclasses.replace(probe, standing=Standing(kept.percentiles[::-1], 40))
    falling.save(tmp_path / "falling.npz")
    with pytest.raises(UserError, match="101 rising percentiles"):
        load_probe(tmp_path / "falling.npz")
