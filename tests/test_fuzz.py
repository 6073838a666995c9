"""Every reader of files that come from others, given files that began as right ones: a UserError or a right value, never
another exception, in under 2 seconds and 200 MB. The same files every time; the counts are printed at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pickle
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from sklearn.linear_model import Ridge

from contrique_jax.config import Config, ModelConfig
from contrique_jax.convert import sklearn_probe
from contrique_jax.convert.original_csv import OURS, class_of, labels_of, rewrite
from contrique_jax.convert.ridge_pickle import read_ridge
from contrique_jax.convert.torch_file import read_state_dict
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.iqa_sets import tables as iqa_tables
from contrique_jax.data.sources import open_source
from contrique_jax.errors import UserError, printable
from contrique_jax.evaluation.splits import make_splits, read_splits, write_splits
from contrique_jax.io.csv_rows import table_paths
from contrique_jax.io.json_files import read_json
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import flat_shapes, load_model, save_model, to_flat
from contrique_jax.probe import NO_REFERENCE, Probe, load_probe
from contrique_jax.probe.posterior import Calibration, fit_posterior
from contrique_jax.probe.spread import Spread
from contrique_jax.probe.why import Why
from contrique_jax.training.checkpoint import Checkpoints, load_for_inference
from tests.foreign_files import changed_bytes, changed_json, changed_npz, changed_zip, tables

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

CASES, SECONDS, MEGABYTES = 2000, 2.0, 200
MODEL = ModelConfig("resnet18", base_width=4, projection_dim=8, compute_dtype="float32")


@dataclass
class Reader:
    """`read` takes the path of a file, in which bytes of `files` stand, and asserts that what it gives is right."""

    path: Path
    files: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    cases: int = CASES


READERS: dict[str, Callable[[Path], Reader]] = {}


def reader(make: Callable[[Path], Reader]) -> Callable[[Path], Reader]:
    READERS[make.__name__] = make
    return make


@pytest.mark.parametrize("name", READERS)
def test_a_foreign_file_is_read_right_or_refused(name, tmp_path, record_property):
    subject = READERS[name](tmp_path)
    counts = {"cases": 0, "refused": 0, "read": 0}
    slowest = most = 0.0

    @settings(
        max_examples=subject.cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(subject.files)
    def one(data: bytes) -> None:
        nonlocal slowest, most
        subject.path.write_bytes(data)
        before, begun = _memory(), time.process_time()
        counts["cases"] += 1
        try:
            subject.read(subject.path)
            counts["read"] += 1
        except UserError as error:
            counts["refused"] += 1
            assert printable(str(error)) == str(error) and subject.path.name in str(error), str(error)
        spent, taken = time.process_time() - begun, _memory(peak=True) - before
        slowest, most = max(slowest, spent), max(most, taken)
        assert spent < SECONDS and taken < MEGABYTES, f"{spent:.1f} s, {taken:.0f} MB"

    with contextlib.redirect_stderr(io.StringIO()):
        one()
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    record_property("counts", f"{name}: {said}; at most {slowest:.2f} s of CPU and {max(most, 0):.0f} MB")
    assert counts["refused"] and counts["read"], said  # else it shows nothing


def _memory(peak: bool = False) -> float:
    """Resident memory of this process, or its peak since the last call for it as it is [MB]; 0 where there is no /proc."""
    if sys.platform != "linux":
        return 0.0
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured anew
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(wanted))


# tables


def _pictures(folder: Path) -> None:
    for name in ("a", "b", "c", "r"):
        (folder / f"{name}.png").write_bytes(name.encode())


@reader
def scores(folder: Path) -> Reader:
    def read(path: Path) -> None:
        images = read_scores(path)
        assert np.isfinite(images.scores).all() and np.ptp(images.scores) > 0
        assert len(images.paths) == len(images.groups) == len(images.scores) and all(p.is_file() for p in images.paths)

    _pictures(folder)
    return Reader(folder / "t.csv", tables(), read)


@reader
def manifest(folder: Path) -> Reader:
    def read(path: Path) -> None:
        source = open_source(str(path), role="pristine", field="data.pristine")
        assert len(source) and all(source.item_name(i) for i in range(len(source)))
        assert source.classes is None or (len(source.classes) == len(source) and source.classes.min() >= 0)

    return Reader(folder / "t.csv", tables(("path", "class", "mos", "", "image_name")), read)


@reader
def paths_of_a_table(folder: Path) -> Reader:
    return Reader(folder / "t.csv", tables(), lambda path: [p.name for p in table_paths(path, "PATH")])


@reader
def csv_of_the_original(folder: Path) -> Reader:
    def read(path: Path) -> None:
        rewrite(path, folder / "out.csv", ("File_names", "labels"), OURS, class_of)

    whole = f'File_names,labels\na.png,"{labels_of("3")}"\nb.png,"{labels_of("")}"\n'.encode()
    return Reader(folder / "t.csv", changed_bytes([whole]), read)


@reader
def workbook(folder: Path) -> Reader:
    book = openpyxl.Workbook()
    for row in (["Image name", "MOS"], ["00001.jpg", 50.0], ["00002.jpg", 60.5]):
        book.active.append(row)
    book.save(folder / "b.xlsx")
    whole = (folder / "b.xlsx").read_bytes()
    return Reader(folder / "b.xlsx", changed_zip(whole), lambda path: list(iqa_tables.spaq([path])), 1000)


@reader
def matlab(folder: Path) -> Reader:
    names = np.array([["a.jpg"], ["b.jpg"]], object)
    stream: list[bytes] = []
    for packed in (False, True):
        savemat(folder / "m.mat", {"AllImages_release": names, "AllMOS_release": [1, 2.0]}, do_compression=packed)
        stream.append((folder / "m.mat").read_bytes())
    savemat(folder / "s.mat", {"AllStdDev_release": [1, 1.0]})

    def read(path: Path) -> None:
        assert len(list(iqa_tables.clive([path, path, folder / "s.mat"]))) == 2

    return Reader(folder / "m.mat", changed_bytes(stream), read)


# probes and regressors


def _probe() -> Probe:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    posterior = fit_posterior(features, 0.1, Calibration(0.04, 0.5))
    spread = Spread(np.ones((1, 6), "f4"), np.zeros(1), np.zeros(1), np.ones(1), np.array([1.0, 0.1, 0.1]), 0.01)
    return Probe(
        np.linspace(-1, 1, 6), 3.5, 0.1, NO_REFERENCE, "abc123", "MINE", 1.0, 5.0, True, 0.25, posterior, 512, spread
    )


@reader
def probe(folder: Path) -> Reader:
    def read(path: Path) -> None:
        found = load_probe(path)
        features = np.ones((3, len(found.coefficients)), np.float32)
        assert np.isfinite(found.predict(features)).all() and found.score_low < found.score_high
        deviations = found.deviations(features)
        assert deviations is None or not np.isnan(deviations).any()
        assert type(found.higher_is_better) is bool and printable(found.data_set) == found.data_set

    _probe().save(folder / "p.npz")
    with np.load(folder / "p.npz") as stored:
        return Reader(folder / "p.npz", changed_npz(dict(stored)), read)


@reader
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


def _ridges(folder: Path) -> list[bytes]:
    ridge = Ridge(alpha=0.1).fit(np.random.default_rng(0).normal(size=(8, 6)), np.arange(8.0))
    joblib.dump(ridge, folder / "j.save")
    return [*(pickle.dumps(ridge, protocol) for protocol in range(2, 6)), (folder / "j.save").read_bytes()]


@reader
def pickled_regressor(folder: Path) -> Reader:
    def read(path: Path) -> None:
        found = read_ridge(path)
        assert found["coef_"].dtype == np.float64 and found["coef_"].ndim == 1

    return Reader(folder / "r.save", changed_bytes(_ridges(folder)), read)


@reader
def regressor_as_json(folder: Path) -> Reader:
    sklearn_probe.write_json(dataclasses.replace(_probe(), posterior=None, spread=None), folder / "r.json")
    whole = read_json(folder / "r.json", 1 << 20)
    return Reader(folder / "r.json", changed_json(whole), sklearn_probe.read)


@reader
def regressor_of_skops(folder: Path) -> Reader:
    sklearn_probe.write_skops(_probe(), folder / "r.skops")
    whole = (folder / "r.skops").read_bytes()
    return Reader(folder / "r.skops", changed_zip(whole), sklearn_probe.read, 500)


# models


def _model(folder: Path) -> Path:
    save_model(folder / "model", MODEL, init_model(MODEL, 1), provenance={"steps": 10})
    return folder / "model"


def _load(folder: Path) -> None:
    model, variables = load_model(folder)
    assert {name: array.shape for name, array in to_flat(variables).items()} == flat_shapes(model)
    assert all(np.isfinite(array).all() for array in to_flat(variables).values())


@reader
def description(folder: Path) -> Reader:
    path = _model(folder) / "model.json"
    whole = read_json(path, 1 << 20)
    return Reader(path, changed_json(whole), lambda path: _load(path.parent))


@reader
def weights(folder: Path) -> Reader:
    """Changes of the header, which is JSON, and of the bytes near it."""
    path = _model(folder) / "model.safetensors"
    whole = path.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:size])

    def packed(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + whole[size:]

    files = changed_json(header).map(packed) | changed_bytes([whole[:size]]).map(lambda data: data + whole[size:])
    return Reader(path, files | st.just(whole), lambda path: _load(path.parent))


@reader
def checkpoint(folder: Path) -> Reader:
    """One of its files changed; a few cases, because Orbax takes its time."""
    variables = init_model(MODEL, 1)
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(3, variables, Config(model=MODEL))
    checkpoints.wait()
    checkpoints.close()
    place = folder / "checkpoints" / "3"
    whole = {path: path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    chosen: list[Path] = []

    def changes(path: Path) -> st.SearchStrategy[bytes]:
        return changed_bytes([whole[path]]).map(lambda data: chosen.append(path) or data)

    def read(path: Path) -> None:
        target = chosen[-1]
        target.write_bytes(path.read_bytes())
        try:
            model, found = load_for_inference(place)
        except UserError as error:
            raise UserError(str(error).replace(str(place), str(path))) from error
        finally:
            target.write_bytes(whole[target])
        assert {name: array.shape for name, array in to_flat(found).items()} == flat_shapes(model)

    return Reader(folder / "changed", st.sampled_from(sorted(whole)).flatmap(changes), read, 150)


@reader
def pytorch(folder: Path) -> Reader:
    torch = pytest.importorskip("torch")
    state = {"encoder.conv1.weight": torch.ones(4, 3, 7, 7), "encoder.bn1.weight": torch.ones(4, dtype=torch.float16)}
    whole = []
    for zipped in (True, False):
        torch.save({"state_dict": state, "epoch": 3}, folder / "c.pth", _use_new_zipfile_serialization=zipped)
        whole.append((folder / "c.pth").read_bytes())

    def read(path: Path) -> None:
        tensors, _ = read_state_dict(path)
        assert all(isinstance(array, np.ndarray) for array in tensors.values())
        assert sum(np.isfinite(array).size for array in tensors.values()) < 1e6

    return Reader(folder / "c.pth", changed_bytes(whole) | changed_zip(whole[0]), read)


@reader
def splits(folder: Path) -> Reader:
    groups = [f"g{i // 3}" for i in range(36)]
    write_splits(folder / "s.json", make_splits(groups, 2, 0), groups, {"seed": 0})
    whole = read_json(folder / "s.json", 1 << 20)

    def read(path: Path) -> None:
        for split in read_splits(path, groups):
            rows = np.concatenate([split.train, split.validation, split.test])
            assert sorted(rows) == list(range(36))

    return Reader(folder / "s.json", changed_json(whole), read)


def test_an_archive_that_would_unpack_to_much_is_refused(tmp_path):
    """Zeros of 300 MB in 300 kB."""
    with (
        zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("coefficients.npy", "w") as part,
    ):
        np.lib.format.write_array(part, np.zeros(40_000_000))
    with pytest.raises(UserError, match="more than 64 MiB"):
        load_probe(tmp_path / "p.npz")
