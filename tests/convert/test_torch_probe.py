"""ARNIQA's regressors as probes."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest

from contrique_jax.convert.from_torch import from_torch
from contrique_jax.convert.script_regressor import read_script
from contrique_jax.convert.torch_probe import probe_from_torch
from contrique_jax.errors import UserError
from contrique_jax.probe import load_probe
from tests.convert.script_files import FILE, changed, pickled
from tests.convert.subverbs import run


def test_it_predicts_what_the_program_does(torch, tmp_path, capsys):
    program = torch.jit.load(FILE)
    features = torch.randn(5, 8)
    run(probe_from_torch, FILE, tmp_path / "live.npz")
    probe = load_probe(tmp_path / "live.npz")
    with torch.no_grad():
        wanted = program(features).numpy().ravel()
    np.testing.assert_allclose(probe.predict(features.numpy()), wanted, rtol=1e-5)
    run(from_torch, FILE, tmp_path / "model", code=2)
    assert "convert probe-from-torch" in capsys.readouterr().err


def test_the_scale_is_that_of_the_data_set_or_the_flags(tmp_path, capsys):
    run(probe_from_torch, FILE, tmp_path / "live.npz")
    probe = load_probe(tmp_path / "live.npz")
    assert (probe.score_low, probe.score_high, probe.higher_is_better, probe.data_set) == (1, 100, False, "live")
    assert probe.coefficients.shape == (8,) and probe.intercept == 3.5
    mine = tmp_path / "mine.pth"
    shutil.copy(FILE, mine)
    run(probe_from_torch, mine, tmp_path / "mine.npz", code=2)
    assert "give --low and --high and --higher-is-better yes|no" in capsys.readouterr().err
    assert not (tmp_path / "mine.npz").exists()
    run(probe_from_torch, mine, tmp_path / "mine.npz", "--low", 1, "--high", 5, "--higher-is-better", "yes")
    assert load_probe(tmp_path / "mine.npz").score_high == 5


def test_numbers_may_be_in_either_order_of_bytes(tmp_path):
    with zipfile.ZipFile(FILE) as file:
        numbers = np.frombuffer(file.read("regressor_live/data/0"), "<f4").astype(">f4").tobytes()
        one = np.frombuffer(file.read("regressor_live/data/1"), "<f4").astype(">f4").tobytes()
    found = read_script(changed(tmp_path / "big.pth", **{"byteorder": b"big", "0": numbers, "1": one}))
    np.testing.assert_array_equal(found["coef_"], read_script(FILE)["coef_"])
    assert found["intercept_"] == 3.5


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"data": pickled().replace(b"__torch__\nRegressor", b"posix\nsystem")}, "it names posix.system"),
        ({"data": pickled().replace(b"FloatStorage", b"nn.functional")}, "names torch.nn.functional"),
        ({"data": pickled()[:-30]}, "cut off or no regressor"),
        ({"data": pickled().replace(b"biases", b"biased")}, "no regressor with `weights` and `biases`"),
        ({"data": pickled().replace(b"(K\x01K\x08t", b"(K\x02K\x08t", 1)}, "an array beyond its numbers"),
        ({"data": pickled().replace(b"(K\x01K\x08t", b"(K\x02K\x04t", 1)}, r"shape \[2, 4\] do not predict one score"),
        ({"0": b"\0" * 12}, "an array beyond its numbers"),
    ],
)
def test_what_is_no_regressor_is_one_sentence_and_never_run(tmp_path, parts, says):
    path = changed(tmp_path / "regressor_live.pth", **parts)
    with pytest.raises(UserError, match=says) as caught:
        read_script(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_are_none_are_refused(tmp_path, capsys):
    path = changed(tmp_path / "regressor_live.pth", **{"0": np.full(8, np.nan, "<f4").tobytes()})
    run(probe_from_torch, path, tmp_path / "p.npz", code=2)
    assert str(path) in capsys.readouterr().err and not (tmp_path / "p.npz").exists()
