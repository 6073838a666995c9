"""The probe, its deviations and its file."""

from __future__ import annotations

import dataclasses
import zipfile

import numpy as np
import pytest

from contrique_jax.errors import UserError
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.posterior import Calibration, fit_posterior


@pytest.fixture
def probe():
    return Probe(np.linspace(-1, 1, 6), 3.5, 0.1, NO_REFERENCE, "abc123", "MINE", 1.0, 5.0, True, 0.25)


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


@pytest.fixture
def sure_probe(probe, features):
    return dataclasses.replace(probe, posterior=fit_posterior(features, probe.alpha, Calibration(0.04, 0.5)))


def test_a_probe_comes_back_as_it_was(probe, tmp_path):
    probe.save(tmp_path / "probe.npz")
    loaded = load_probe(tmp_path / "probe.npz")
    for field in dataclasses.fields(Probe):
        mine, theirs = getattr(probe, field.name), getattr(loaded, field.name)
        assert type(mine) is type(theirs) and np.array_equal(mine, theirs)
    features = np.random.default_rng(0).normal(size=(5, 6))
    np.testing.assert_allclose(loaded.predict(features), features @ probe.coefficients + 3.5)
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


def test_a_probe_for_other_features_is_refused(probe):
    with pytest.raises(UserError, match="reads features"):
        probe.predict(np.zeros((2, 5)))
    with pytest.raises(UserError, match="6 features and this model gives 8"):
        probe.check_model("abc123", 8)
    with pytest.raises(UserError, match="abc123"):
        probe.check_model("ffffff", 6)
    with pytest.raises(UserError, match="NaN"):
        probe.predict(np.full((1, 6), np.nan))
    probe.check_model("abc123", 6)


def test_a_damaged_probe_is_one_sentence(probe, tmp_path):
    path = tmp_path / "probe.npz"
    probe.save(path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            load_probe(path)
    with pytest.raises(UserError, match="no such probe"):
        load_probe(tmp_path / "absent.npz")
    np.savez(path, something=np.zeros(3))
    with pytest.raises(UserError, match="not a probe"):
        load_probe(path)
    np.save(open(path, "wb"), np.zeros(3))  # noqa: SIM115
    with pytest.raises(UserError):
        load_probe(path)
    np.savez(path, coefficients=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        load_probe(path)


@pytest.mark.parametrize(
    "change", [{"coefficients": np.array([1, np.nan])}, {"intercept": np.inf}, {"deviation": np.nan}]
)
def test_a_probe_with_nan_is_refused(probe, change, tmp_path):
    dataclasses.replace(probe, **change).save(tmp_path / "probe.npz")
    with pytest.raises(UserError, match="NaN"):
        load_probe(tmp_path / "probe.npz")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shorter_side": np.array(0)}, "shorter_side is 0, and must be 1 to 65535 pixels"),
        ({"shorter_side": np.array(3.5)}, r"shorter_side is float64 \[\], and must be one int"),
        ({"higher_is_better": np.array(1)}, r"higher_is_better is int64 \[\], and must be one bool"),
        ({"score_low": np.array(5.0)}, "score_low is 5 and score_high 5"),
        ({"score_low": np.array("1")}, "score_low is <U1"),
        ({"intercept": np.array([3.5])}, r"intercept is float64 \[1\]"),
        ({"alpha": np.array(-1.0)}, "below 0"),
        ({"coefficients": np.full(6, 1e300)}, "a number beyond 1e.30 in coefficients"),
        ({"coefficients": np.zeros((2, 3))}, r"coefficients are an array \[2, 3\]"),
        ({"coefficients": np.array(["a"])}, "coefficients are <U1"),
        ({"coefficients": np.zeros(0)}, "not a row of numbers"),
        ({"feature_name": np.array("three-scale")}, "feature_name is 'three-scale'"),
        ({"data_set": np.array("MINE\x1b[31m")}, "holds control characters"),
        ({"format_version": np.array(True)}, "probe format True is unknown"),
        ({"model_hash": np.array(b"abc")}, "not of plain numbers or text"),
    ],
)
def test_a_field_that_cannot_be_right_is_named(probe, change, says, tmp_path):
    path = tmp_path / "probe.npz"
    probe.save(path)
    with np.load(path) as stored:
        np.savez(path, **(dict(stored) | change))
    with pytest.raises(UserError, match=says) as caught:
        load_probe(path)
    assert str(path) in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_folder_s_odd_name_does_not_spoil_a_probe(probe, tmp_path):
    dataclasses.replace(probe, data_set="a\nb").save(tmp_path / "probe.npz")
    assert load_probe(tmp_path / "probe.npz").data_set == "a\\nb"


def test_a_header_is_not_believed(probe, tmp_path):
    """8 TB in 128 bytes."""
    probe.save(tmp_path / "whole.npz")
    with zipfile.ZipFile(tmp_path / "whole.npz") as old, zipfile.ZipFile(tmp_path / "p.npz", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"'shape': (6,), }            ", b"'shape': (1099511627776,), }"))
    with pytest.raises(UserError, match="promises another size than it has"):
        load_probe(tmp_path / "p.npz")


def test_a_deviation_for_each_image_travels_with_the_probe(sure_probe, features, tmp_path):
    sure_probe.save(tmp_path / "probe.npz")
    loaded = load_probe(tmp_path / "probe.npz")
    far = np.concatenate([features, features + 30])
    found = loaded.deviations(far)
    np.testing.assert_allclose(found, sure_probe.posterior.deviations(far), rtol=1e-12)
    assert (found[:40] > 0.2).all() and found[40:].min() > 2 * found[:40].max()
    changed = dataclasses.replace(loaded, data_set="OTHER")
    np.testing.assert_array_equal(changed.deviations(far), found)
    with pytest.raises(UserError, match="reads features"):
        loaded.deviations(far[:, :5])


def test_without_a_posterior_one_deviation_serves_all_or_none(probe, features, tmp_path):
    probe.save(tmp_path / "old.npz")  # as probes were written before there was one
    with np.load(tmp_path / "old.npz") as stored:
        assert not any(name.startswith("posterior") for name in stored.files)
    old = load_probe(tmp_path / "old.npz")
    np.testing.assert_array_equal(old.deviations(features), np.full(40, 0.25))
    assert dataclasses.replace(old, deviation=None).deviations(features) is None


def test_the_file_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    posterior = fit_posterior(rng.normal(size=(300, 4096)).astype(np.float32), 1.0, Calibration(1.0, 1.0))
    Probe(np.zeros(4096), 0.0, 1.0, NO_REFERENCE, "", "X", 0.0, 1.0, True, 1.0, posterior).save(tmp_path / "p.npz")
    assert (tmp_path / "p.npz").stat().st_size < 1.2e6


@pytest.mark.parametrize(
    "change",
    [{"mean": np.zeros(5)}, {"rest": np.array(np.nan)}, {"noise": np.array(-1.0)}, {"directions": np.zeros((2, 6))},
     {"base": None}],
)  # fmt: skip
def test_a_damaged_posterior_is_one_sentence(sure_probe, change, tmp_path):
    path = tmp_path / "probe.npz"
    sure_probe.save(path)
    with np.load(path) as stored:
        fields = {name: stored[name] for name in stored.files}
    for name, value in change.items():
        fields.pop(f"posterior_{name}")
        if value is not None:
            fields[f"posterior_{name}"] = value
    np.savez(path, **fields)
    with pytest.raises(UserError, match="fit the probe again"):
        load_probe(path)
