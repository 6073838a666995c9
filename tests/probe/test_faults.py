"""Faults: each family by its own direction, beside the image's median window, in the units of the probe."""

from __future__ import annotations

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.inference.pretrained import FAULTS, PROBE
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED
from contrique_jax.probe import load_probe
from contrique_jax.probe.faults import FAMILIES, Faults, fit_faults

WIDTH = 12


@pytest.fixture(scope="module")
def planted() -> dict[str, np.ndarray]:
    """Windows differ along the first three features, and each family moves one of the others by .5 a level, up or down; the
    probe takes .1 off for each level."""
    rng = np.random.default_rng(0)
    undistorted = rng.normal(size=(400, WIDTH)) * np.where(np.arange(WIDTH) < 3, 5, 0.1)
    types, levels = np.tile([members[0] for members in FAMILIES.values()], 80), rng.integers(1, 6, 400)
    place, sign = 3 + np.arange(len(types)) % len(FAMILIES), np.where(np.arange(len(types)) % len(FAMILIES) % 2, -1, 1)
    changes = rng.normal(0, 0.05, (len(types), WIDTH))
    changes[np.arange(len(types)), place] += 0.5 * levels * sign
    coefficients = np.zeros(WIDTH)
    coefficients[place] = -0.2 * sign
    return {
        "undistorted": undistorted,
        "changes": changes,
        "types": types,
        "levels": levels,
        "coefficients": coefficients,
    }


def test_a_faulty_window_loses_what_the_probe_would_take_off(planted):
    faults = fit_faults(**planted)
    windows = np.random.default_rng(1).normal(size=(13, 13, WIDTH)) * np.where(np.arange(WIDTH) < 3, 5, 0.01)
    for number in range(len(FAMILIES)):
        shown = windows.copy()
        shown[9:, 9:, 3 + number] += 2.0 * (-1 if number % 2 else 1)  # level 4
        losses = faults.losses(shown)
        assert np.unravel_index(losses.argmin(), losses.shape) >= (9, 9)
        assert losses[9:, 9:].mean() == pytest.approx(-0.4, rel=0.15)
        assert np.abs(losses[:9]).max() < 0.08


def test_what_is_everywhere_is_no_fault_of_a_part(planted):
    faults, windows = fit_faults(**planted), np.random.default_rng(1).normal(size=(13, 13, WIDTH))
    np.testing.assert_allclose(faults.losses(windows + 3.0), faults.losses(windows), atol=1e-4)


def test_scores_of_damage_rise_in_a_fault(planted):
    """Of a probe for which lower is better."""
    faults = fit_faults(**(planted | {"coefficients": -planted["coefficients"]}))
    windows = np.zeros((13, 13, WIDTH))
    windows[0, 5, 3] = 2.0
    losses = faults.losses(windows, higher_is_better=False)
    assert losses.argmax() == 5 and losses.max() > 0.3


def test_a_family_without_a_row_is_refused(planted):
    kept = planted["types"] != FAMILIES["noise"][0]
    with pytest.raises(UserError, match="no window shows noise"):
        fit_faults(
            planted["undistorted"],
            *(planted[name][kept] for name in ("changes", "types", "levels")),
            planted["coefficients"],
        )


def test_a_file_comes_back_and_a_damaged_one_is_refused(planted, tmp_path):
    faults = fit_faults(**planted, model_hash="abc")
    faults.save(tmp_path / "f.npz")
    again = Faults.load(tmp_path / "f.npz")
    assert again.model_hash == "abc" and np.array_equal(again.directions, faults.directions)
    Faults(np.full((2, 3), np.nan, np.float32), "abc").save(tmp_path / "nan.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "f.npz").read_bytes()[:-40])
    for name, says in (("nan", "damaged"), ("cut", "cut off"), ("none", "no such file")):
        with pytest.raises(UserError, match=says):
            Faults.load(tmp_path / f"{name}.npz")


def test_the_embedded_ones_are_of_the_embedded_probe():
    probe, faults = load_probe(EMBEDDED / DEFAULT / PROBE), Faults.load(EMBEDDED / DEFAULT / FAULTS)
    assert faults.model_hash == probe.model_hash and faults.directions.shape == (len(FAMILIES), len(probe.coefficients))
