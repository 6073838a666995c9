"""Readers of probes and regressors; each function makes one, with its files in a folder."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import ElasticNet, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVR

from contrique_jax.convert import sklearn_probe
from contrique_jax.convert.script_regressor import read_script
from contrique_jax.convert.sklearn_pickle import read_regressor
from contrique_jax.errors import printable
from contrique_jax.io.json_files import read_json
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.faults import Faults
from contrique_jax.probe.posterior import Calibration, fit_posterior
from contrique_jax.probe.spread import Spread
from contrique_jax.probe.why import Why
from tests.fuzz.foreign_files import changed_bytes, changed_json, changed_npz, changed_zip
from tests.fuzz.reader import Reader


def _probe() -> Probe:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    posterior = fit_posterior(features, 0.1, Calibration(0.04, 0.5))
    spread = Spread(np.ones((1, 6), "f4"), np.zeros(1), np.zeros(1), np.ones(1), np.array([1.0, 0.1, 0.1]), 0.01)
    return Probe(
        np.linspace(-1, 1, 6), 3.5, 0.1, NO_REFERENCE, "abc123", "MINE", 1.0, 5.0, True, 0.25, posterior, 512, spread
    )


def probe(folder: Path) -> Reader:
    def read(path: Path) -> None:
        found = load_probe(path)
        features = np.ones((3, len(found.coefficients)), np.float32)
        assert np.isfinite(found.predict(features)).all() and found.score_low < found.score_high
        deviations = found.deviations(features)
        assert deviations is None or np.isfinite(deviations).all()
        assert type(found.higher_is_better) is bool and printable(found.data_set) == found.data_set

    _probe().save(folder / "p.npz")
    with np.load(folder / "p.npz") as stored:
        return Reader(folder / "p.npz", changed_npz(dict(stored)), read)


def why(folder: Path) -> Reader:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("f4") for shape in ((6,), (6,), (3, 6), (3,), (3, 6), (3,))]
    Why(arrays[0], np.abs(arrays[1]), *arrays[2:], 5.0, "abc").save(folder / "w.npz")

    def read(path: Path) -> None:
        found = Why.load(path)
        probabilities, levels = found.judge(np.ones((2, len(found.centre))))
        assert probabilities.shape == levels.shape

    with np.load(folder / "w.npz") as stored:
        return Reader(folder / "w.npz", changed_npz(dict(stored)), read)


def faults(folder: Path) -> Reader:
    Faults(np.random.default_rng(0).normal(size=(3, 6)).astype("f4"), "abc").save(folder / "f.npz")

    def read(path: Path) -> None:
        found = Faults.load(path)
        assert np.isfinite(found.losses(np.ones((2, 2, found.directions.shape[1])))).all()

    with np.load(folder / "f.npz") as stored:
        return Reader(folder / "f.npz", changed_npz(dict(stored)), read)


def _ridges(folder: Path) -> list[bytes]:
    ridge = Ridge(alpha=0.1).fit(np.random.default_rng(0).normal(size=(8, 6)), np.arange(8.0))
    joblib.dump(ridge, folder / "j.save")
    x, y = np.random.default_rng(1).normal(size=(8, 6)), np.arange(8.0)
    others = [
        make_pipeline(StandardScaler(), ElasticNet(alpha=0.1)),
        make_pipeline(MinMaxScaler(), SVR(kernel="linear")),
    ]
    dumped = [pickle.dumps(model.fit(x, y), 4) for model in others]
    return [*(pickle.dumps(ridge, protocol) for protocol in range(2, 6)), (folder / "j.save").read_bytes(), *dumped]


def pickled_regressor(folder: Path) -> Reader:
    def read(path: Path) -> None:
        found = read_regressor(path)
        assert found["coef_"].dtype == np.float64 and found["coef_"].ndim == 1

    return Reader(folder / "r.save", changed_bytes(_ridges(folder)), read)


def regressor_as_json(folder: Path) -> Reader:
    sklearn_probe.write_json(dataclasses.replace(_probe(), posterior=None, spread=None), folder / "r.json")
    whole = read_json(folder / "r.json", 1 << 20)
    return Reader(folder / "r.json", changed_json(whole), sklearn_probe.read)


def regressor_of_skops(folder: Path) -> Reader:
    sklearn_probe.write_skops(_probe(), folder / "r.skops")
    whole = (folder / "r.skops").read_bytes()
    return Reader(folder / "r.skops", changed_zip(whole), sklearn_probe.read, 500)


def scripted_regressor(folder: Path) -> Reader:
    def read(path: Path) -> None:
        found = read_script(path)
        assert found["coef_"].dtype == np.float64 and found["coef_"].ndim == 1

    whole = (Path(__file__).parents[1] / "convert" / "regressor_live.pth").read_bytes()
    return Reader(folder / "r.pth", changed_zip(whole), read)
