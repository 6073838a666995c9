"""`contrique_jax.load`: features and scores as the commands give them, and a pure function to differentiate."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import contrique_jax
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.features import main as features_command
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.meter import Model
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe
from tests.planted import tiny_model
from tests.reference_weights import REFERENCE_MODEL, reference_variables


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """model/, four images of 64 x 48 as 0.png ... 3.png, a probe and one for references."""
    folder = tmp_path_factory.mktemp("api")
    tiny_model(folder / "model")
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    model = contrique_jax.load(folder / "model")
    probe = Probe(rng.normal(size=model.width), 2.5, 0.1, NO_REFERENCE, model._extractor.model_hash, "MINE", 1, 5, True)
    probe.save(folder / "probe.npz")
    dataclasses.replace(probe, feature_name=FULL_REFERENCE).save(folder / "fr.npz")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return contrique_jax.load(place / "model", probe=place / "probe.npz")


@pytest.fixture(scope="module")
def images(place):
    return [np.asarray(Image.open(place / f"{i}.png")) for i in range(4)]


def unit(images):
    return np.stack(images).astype(np.float32) / 255


def test_the_probe_s_shorter_side_is_taken_for_files_and_arrays(place, images):
    probe = dataclasses.replace(contrique_jax.load(place / "model", place / "probe.npz").probe, shorter_side=32)
    probe.save(place / "small.npz")
    model = contrique_jax.load(place / "model", place / "small.npz")
    small = [np.asarray(Image.fromarray(image).resize((32, 42), Image.Resampling.BILINEAR)) for image in images[:2]]
    wanted = contrique_jax.load(place / "model", place / "probe.npz").score(small)
    for given in ([place / "0.png", place / "1.png"], images[:2], [place / "0.png", images[1]]):
        np.testing.assert_allclose(model.score(given), wanted, rtol=1e-5)
    assert "resnet10" in repr(model) and "probe of MINE" in repr(model)


def test_features_are_those_of_the_command(model, images, place):
    paths = [place / f"{i}.png" for i in range(4)]
    line = ["--model", str(place / "model"), "--images", *map(str, paths), "--out", str(place / "f.npz")]
    features_command(line)
    with np.load(place / "f.npz") as stored:
        wanted = stored["features"]
    np.testing.assert_array_equal(model.features(paths), wanted)
    np.testing.assert_allclose(model.features(images), wanted, atol=2e-6)
    np.testing.assert_allclose(model.features([str(paths[0]), *images[1:]]), wanted, atol=2e-6)
    np.testing.assert_allclose(model.features(np.stack(images)), wanted, atol=2e-6)
    assert model.features([]).shape == (0, model.width)


def test_scores_are_the_probe_s(model, images, place):
    wanted = model.probe.predict(model.features(images))
    np.testing.assert_allclose(model.score(images), wanted, atol=1e-6)
    full = contrique_jax.load(place / "model", probe=place / "fr.npz")
    scores = full.score(images, reference=images[0])
    assert scores.shape == (4,) and abs(scores[0] - 2.5) < 1e-4
    with pytest.raises(UserError, match="reference"):
        full.score(images)
    with pytest.raises(UserError, match="judges an image alone"):
        model.score(images, reference=images[0])
    with pytest.raises(UserError, match="there is no probe"):
        contrique_jax.load(place / "model").score(images)


@pytest.mark.slow
def test_apply_batches_jits_and_differentiates(model, images):
    batch = unit(images)
    plain = model.apply(batch)
    assert plain.shape == (4, model.width) and plain.dtype == np.float32
    one_by_one = jax.jit(model.apply)
    np.testing.assert_allclose(np.concatenate([one_by_one(batch[i : i + 1]) for i in range(4)]), plain, atol=2e-6)
    weights = np.asarray(model.probe.coefficients, np.float32)
    gradient = jax.grad(lambda x: (model.apply(x) @ weights).sum())(batch)
    assert gradient.shape == batch.shape and np.isfinite(gradient).all()
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()
    up = batch + 0.02 * gradient / np.abs(gradient).max()  # uphill is up
    assert (model.apply(np.clip(up, 0, 1)) @ weights > plain @ weights).all()


def test_apply_is_features_up_to_the_rounding_of_the_half_size(shared):
    model = Model(Extractor(REFERENCE_MODEL, reference_variables(shared)))
    with np.load(shared / "reference" / "model_eval.npz") as stored:
        image, wanted = stored["image3"], stored["feature3"]  # 301 x 217
    found, half = np.asarray(model.apply(unit([image])))[0], model.width // 2
    assert np.linalg.norm(found[:half] - wanted[:half]) <= 1e-4
    assert np.linalg.norm(found[half:] - wanted[half:]) <= 1e-3


def test_bad_input_is_one_sentence(model, images, place):
    batch = unit(images[:1])
    for wrong, says in (
        (batch[0], r"\[64, 48, 3\]"), (batch[..., :1], r"\[1, 64, 48, 1\]"), (batch[..., 0], r"\[1, 64, 48\]"),
        (images[0][None], "uint8"), (batch.astype(int), "int64"), (None, "NoneType"), (batch[:0], r"\[0, 64"),
        (np.full_like(batch, np.nan), "NaN or values outside"), (batch * 255, "outside"), (-batch, "outside"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says) as caught:
            model.apply(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="uint8"):
        jax.jit(model.apply)(images[0][None])
    for wrong, says in (
        ([images[0][..., :2]], "image 0 is uint8"), ([batch[0]], "image 0 is float32"), (3, "is no list"),
        (None, "is no list"), ([place / "absent.png"], "absent.png"), ([None], "NoneType"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            model.features(wrong)
    (place / "broken.png").write_bytes(b"nonsense")
    with pytest.raises(BrokenImage, match=r"broken.png"):
        model.features([place / "0.png", place / "broken.png"])
    with pytest.raises(UserError, match="no folder"):
        contrique_jax.load(place / "absent")
    with pytest.raises(UserError, match="no such probe"):
        contrique_jax.load(place / "model", probe=place / "absent.npz")


def test_a_probe_of_another_model_is_refused_when_it_is_loaded(place, tmp_path):
    probe = Probe(np.zeros(6), 0.0, 1.0, NO_REFERENCE, "", "MINE", 1, 5, True)
    probe.save(tmp_path / "other.npz")
    with pytest.raises(UserError, match="reads 6 features"):
        contrique_jax.load(place / "model", probe=tmp_path / "other.npz")


def test_importing_the_package_imports_nothing_else():
    code = "import sys, contrique_jax; print([m for m in ('jax', 'numpy', 'flax', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
