"""Pickles are read and never run."""

from __future__ import annotations

import os
import pickle
import pickletools
import sys
import types

import numpy as np
import pytest

from contrique_jax.convert.linear_steps import MOST_STEPS
from contrique_jax.convert.sklearn_pickle import read_regressor
from contrique_jax.errors import UserError

joblib = pytest.importorskip("joblib")
linear_model = pytest.importorskip("sklearn.linear_model")
from sklearn.pipeline import Pipeline, make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler  # noqa: E402
from sklearn.svm import SVR  # noqa: E402

ElasticNet, LinearRegression, Ridge = linear_model.ElasticNet, linear_model.LinearRegression, linear_model.Ridge
STRANGE = "which a Ridge, an ElasticNet or a linear SVR does not need; nothing was run"

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 12))
Y = X @ RNG.normal(size=12) + 40 + RNG.normal(size=30)


def same(found: dict, ridge) -> None:
    np.testing.assert_array_equal(found["coef_"], np.ravel(ridge.coef_))
    assert found["coef_"].dtype == np.float64
    assert found["intercept_"] == float(np.squeeze(ridge.intercept_)) and found["alpha"] == float(ridge.alpha)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("alpha", [0.1, np.float64(0.25)], ids=["float", "scalar"])
def test_what_scikit_learn_pickles(tmp_path, protocol, alpha):
    ridge = Ridge(alpha=alpha).fit(X, Y)
    (tmp_path / "r.save").write_bytes(pickle.dumps(ridge, protocol))
    same(read_regressor(tmp_path / "r.save"), ridge)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_joblib_dumps_uncompressed(tmp_path, protocol):
    ridge = Ridge(alpha=0.5).fit(X.astype(np.float32), Y.astype(np.float32)[:, None])  # coef_ [1, d], intercept_ [1]
    ridge.coef_ = np.asfortranarray(ridge.coef_)
    joblib.dump(ridge, tmp_path / "r.save", protocol=protocol)
    same(read_regressor(tmp_path / "r.save"), ridge)
    joblib.dump(ridge, tmp_path / "r.save", compress=3)
    with pytest.raises(UserError, match="without compression"):
        read_regressor(tmp_path / "r.save")


REGRESSORS = {
    "ElasticNet": ElasticNet(alpha=0.1),
    "SVR": SVR(kernel="linear", C=3.0),
    "standardised": make_pipeline(StandardScaler(), ElasticNet(alpha=0.1)),
    "not centred": make_pipeline(StandardScaler(with_mean=False), Ridge(alpha=2.0)),
    "not divided": make_pipeline(StandardScaler(with_std=False), SVR(kernel="linear")),
    "MinMaxScaler": Pipeline(
        [("scale", MinMaxScaler((-1, 1))), ("none", "passthrough"), ("svr", SVR(kernel="linear"))]
    ),
    "two scalers": make_pipeline(MinMaxScaler(), None, StandardScaler(), Ridge(alpha=0.1)),
}


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump])
def test_what_other_linear_regressors_and_scalers_predict(tmp_path, name, dump):
    x = X * np.linspace(0.5, 3, 12) + np.arange(12)  # scales that differ, far from 0
    model = REGRESSORS[name].fit(x, Y)
    with open(tmp_path / "r.save", "wb") as stream:
        dump(model, stream)
    found = read_regressor(tmp_path / "r.save")
    np.testing.assert_allclose(x @ found["coef_"] + found["intercept_"], model.predict(x), rtol=1e-10)
    assert found["alpha"] == 0, "that of a Ridge on the features themselves alone"


def refused(path, model, says: str) -> None:
    path.write_bytes(pickle.dumps(model))
    with pytest.raises(UserError, match=says) as caught:
        read_regressor(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_line_or_not_fitted_is_one_sentence(tmp_path):
    ridge = Ridge().fit(X, Y)
    narrow = make_pipeline(StandardScaler().fit(X[:, :5]), ridge)
    inside = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), ridge)).fit(X, Y)
    itself = make_pipeline(StandardScaler().fit(X), ridge)
    itself.steps.append(("again", itself))
    for model, says in (
        (SVR().fit(X, Y), "an SVR whose kernel is 'rbf', not 'linear'"),
        (make_pipeline(RobustScaler(), Ridge()).fit(X, Y), "names sklearn.preprocessing._data.RobustScaler, which"),
        (make_pipeline(MinMaxScaler(clip=True), Ridge()).fit(X, Y), "a MinMaxScaler that clips"),
        (make_pipeline(MinMaxScaler(), Ridge()), "a Ridge without coef_; fit it"),
        (StandardScaler().fit(X), "it is StandardScaler; give a Ridge"),
        (Pipeline([("a", ridge), ("b", ridge)]), "it is Ridge and Ridge"),
        (narrow, "a StandardScaler of 5 features before 12 coefficients"),
        (inside, "it is StandardScaler and Pipeline; give"),
        (itself, "it is StandardScaler and Ridge and Pipeline"),
        (make_pipeline(*[StandardScaler()] * MOST_STEPS, Ridge()).fit(X, Y), "it is StandardScaler and"),
        (make_pipeline(StandardScaler(), Ridge()).fit(X, np.stack([Y, Y], 1)), "do not predict one score"),
    ):
        refused(tmp_path / "r.save", model, says)
    sparse = pytest.importorskip("scipy.sparse")
    refused(tmp_path / "r.save", SVR(kernel="linear").fit(sparse.csr_matrix(X), Y), "it names scipy")


def old_pickle(path, protocol: int, state: dict) -> None:
    """As scikit-learn 1.0.1 wrote it beside NumPy 1: `numpy.core` for `numpy._core`."""
    module = types.ModuleType("sklearn.linear_model._ridge")
    module.Ridge = type("Ridge", (), {"__module__": module.__name__})
    made = module.Ridge()
    made.__dict__ |= state
    real = sys.modules["sklearn.linear_model._ridge"]
    sys.modules["sklearn.linear_model._ridge"] = module
    try:
        data = pickle.dumps(made, protocol)
    finally:
        sys.modules["sklearn.linear_model._ridge"] = real
    before, since = b"numpy._core.", b"numpy.core."
    if protocol < 4:
        data = data.replace(before, since)
    else:  # text has its length in front, and protocol 4 frames theirs, which a reader may leave out
        data = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        data = data[:2] + data[11:]
    path.write_bytes(data)


OLD = {
    "alpha": 0.1, "fit_intercept": True, "normalize": "deprecated", "copy_X": True, "max_iter": None, "tol": 0.001,
    "solver": "auto", "random_state": None, "positive": False, "n_features_in_": 12, "coef_": RNG.normal(size=12),
    "n_iter_": None, "intercept_": np.float64(37.207), "_sklearn_version": "1.0.1",
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_version_1_0_1_pickled(tmp_path, protocol):
    old_pickle(tmp_path / "KonIQ.save", protocol, OLD)
    names = {value for _, value, _ in pickletools.genops((tmp_path / "KonIQ.save").read_bytes())}
    assert any("numpy.core.multiarray" in str(name) for name in names)
    found = read_regressor(tmp_path / "KonIQ.save")
    np.testing.assert_array_equal(found["coef_"], OLD["coef_"])
    assert (found["intercept_"], found["alpha"], found["_sklearn_version"]) == (37.207, 0.1, "1.0.1")


def test_big_endian_and_named_features(tmp_path):
    names = np.array([f"feature {i}" for i in range(12)], dtype=object)
    old_pickle(tmp_path / "r.save", 2, OLD | {"coef_": OLD["coef_"].astype(">f4"), "feature_names_in_": names})
    np.testing.assert_array_equal(read_regressor(tmp_path / "r.save")["coef_"], OLD["coef_"].astype(np.float32))


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, call, *arguments):
        self.made = (call, arguments)

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("call", [(os.system, "mkdir {}"), (os.mkdir, "{}"), (eval, "__import__('os').mkdir('{}')")])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, monkeypatch, protocol, call):
    monkeypatch.chdir(tmp_path)
    function, argument = call
    path = tmp_path / "bad.save"
    for place in ("made", None):
        runs = Runs(function, argument.format("made"))
        ridge = Ridge().fit(X, Y)
        ridge.random_state = runs
        path.write_bytes(pickle.dumps(ridge if place else runs, protocol))
        with pytest.raises(UserError, match=STRANGE):
            read_regressor(path)
        assert not (tmp_path / "made").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "made").exists()  # if it is run, it does harm


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cbuiltins\ngetattr\n",
        b"cnumpy\nload\n",
        b"cnumpy.core.multiarray\nfromfile\n",
        b"c_codecs\ndecode\n",
        b"csklearn.linear_model._ridge\nRidge.__init__\n",
        b"cjoblib.numpy_pickle\nload\n",
        b"\x82\x01",  # an extension code
        b"cnumpy\ndtype\n}X\x04\x00\x00\x00codeX\x02\x00\x00\x00f8sb",  # a state for a class
        b"cnumpy\ndtype\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00punic\x86R",
        b"Pperson\n",
        b"\x96" + (1 << 40).to_bytes(8, "little"),  # a terabyte, before there are bytes
        b"})" + b"q\x00h\x00\x86" * 60 + b"K\x01s",  # a key whose hash asks for 2^60 others
        b"\x8f(" + b")" + b"q\x00h\x00\x86" * 60 + b"\x90",  # the same in a set
    ],
)
def test_opcodes_beyond_a_ridge(tmp_path, opcodes):
    (tmp_path / "x.save").write_bytes(b"\x80\x02" + opcodes + b".")
    stranger = opcodes.startswith(b"c") and not opcodes.startswith((b"cnumpy\ndtype", b"c_codecs\nencode"))
    with pytest.raises(
        UserError,
        match=STRANGE if stranger else r"x\.save: ",
    ):
        read_regressor(tmp_path / "x.save")
    ridge = Ridge(alpha=0.1).fit(X, Y)
    (tmp_path / "x.save").write_bytes(pickle.dumps(ridge, 2))
    same(read_regressor(tmp_path / "x.save"), ridge)


def test_arrays_that_are_no_plain_numbers(tmp_path):
    for coefficients in (np.array([{}] * 12, object), np.zeros(12, "f8,O"), np.zeros(12, "U3"), "text"):
        old_pickle(tmp_path / "r.save", 4, OLD | {"coef_": coefficients})
        with pytest.raises(UserError, match="cannot be read"):
            read_regressor(tmp_path / "r.save")
    old_pickle(tmp_path / "r.save", 4, OLD | {"coef_": np.zeros((2, 12)), "intercept_": np.zeros(2)})
    with pytest.raises(UserError, match="one score"):
        read_regressor(tmp_path / "r.save")


def test_other_models_and_unfitted_ones(tmp_path):
    (tmp_path / "r.save").write_bytes(pickle.dumps(LinearRegression().fit(X, Y)))
    with pytest.raises(UserError, match="LinearRegression"):
        read_regressor(tmp_path / "r.save")
    (tmp_path / "r.save").write_bytes(pickle.dumps(Ridge()))
    with pytest.raises(UserError, match="fitted"):
        read_regressor(tmp_path / "r.save")
    (tmp_path / "r.save").write_text("coefficients")
    with pytest.raises(UserError, match="not a pickle"):
        read_regressor(tmp_path / "r.save")
    with pytest.raises(UserError, match="cannot be read"):
        read_regressor(tmp_path / "absent.save")


@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump])
def test_every_truncation_is_one_sentence(tmp_path, dump):
    with open(tmp_path / "whole", "wb") as stream:
        dump(Ridge().fit(X, Y), stream)
    whole = (tmp_path / "whole").read_bytes()
    for cut in range(0, len(whole), 7):
        (tmp_path / "cut.save").write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"cut\.save"):
            read_regressor(tmp_path / "cut.save")
