"""Two-scale features: what they are, and that size, company and order of the images do not matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from contrique_jax.config import ModelConfig
from contrique_jax.data.sizes import half_size
from contrique_jax.errors import UserError, run_verb
from contrique_jax.features import main
from contrique_jax.inference import batching
from contrique_jax.inference import extractor as module
from contrique_jax.inference.extractor import Extractor, two_scale_features
from contrique_jax.io.machine import available_cores, use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks.encoder import encode
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.training.load import load_network, random_weights
from tests.planted import TINY, tiny_model

SIZES = [(1, 1), (33, 47), (64, 64), (31, 70), (2, 65), (64, 64), (64, 64), (64, 64)]


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def extractor():
    return Extractor(TINY, random_weights(TINY))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def folder(images, tmp_path):
    """The images as files, with a broken one, an empty one and a text among them."""
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "3b.png").write_bytes((tmp_path / "3.png").read_bytes()[:200])
    (tmp_path / "5b.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def alone(variables, image):
    """One unpadded image at its own size and at Pillow's half, each through the encoder."""
    half = Image.fromarray(image).resize((max(image.shape[1] // 2, 1), max(image.shape[0] // 2, 1)))
    run = jax.jit(lambda x: encode(TINY, variables, x[None].astype(jnp.float32) / 255)[0])
    return np.concatenate([run(image), run(np.asarray(half))])


def test_features_are_those_of_each_image_alone(extractor, images):
    features = extractor.features(images)
    assert features.shape == (len(images), extractor.width) and features.dtype == np.float32
    for i in (1, 2, 3):
        np.testing.assert_allclose(features[i], alone(extractor.variables, images[i]), atol=2e-6)
    halves = features.reshape(len(images), 2, -1)
    np.testing.assert_allclose(np.linalg.norm(halves[1:], axis=2), 1, atol=1e-5)
    assert np.isfinite(features[0]).all()  # one pixel may well leave nothing after the ReLUs


def test_company_and_order_do_not_matter(extractor, images, monkeypatch):
    features = extractor.features(images)
    np.testing.assert_allclose(extractor.features(images[::-1])[::-1], features, atol=2e-6)
    np.testing.assert_allclose(extractor.features(images[2:3]), features[2:3], atol=2e-6)
    assert extractor.features([]).shape == (0, extractor.width)
    monkeypatch.setattr(batching, "MOST_IMAGES", 2)  # the 64 x 64 ones now fill batches of their own shape
    np.testing.assert_allclose(extractor.features(images), features, atol=2e-6)


def blocky(image):
    """Black and white blocks of 8 pixels, at whose edges a bicubic filter overshoots."""
    return (255 * (image[::8, ::8] > 127)).astype(np.uint8).repeat(8, 0).repeat(8, 1)[: len(image), : image.shape[1]]


def unrounded_half(image):
    """Pillow's bicubic half size of each channel in float, clipped as bytes would be."""
    size = (max(image.shape[1] // 2, 1), max(image.shape[0] // 2, 1))
    planes = [Image.fromarray(plane.astype(np.float32) / 255) for plane in np.moveaxis(image, 2, 0)]
    return np.clip(np.stack([plane.resize(size, Image.Resampling.BICUBIC) for plane in planes], -1), 0, 1)


@pytest.mark.parametrize("chosen", [(2, 6), (1,)], ids=["even", "odd"])
def test_the_pure_function_is_the_same_but_for_rounding_the_half_size(extractor, images, chosen):
    batch, width = np.stack([blocky(images[i]) for i in chosen]), extractor.width // 2
    found = jax.jit(lambda x: two_scale_features(TINY, extractor.variables, x))(batch.astype(np.float32) / 255)
    reference = extractor.features(list(batch))
    np.testing.assert_allclose(found[:, :width], reference[:, :width], atol=2e-6)
    halves = np.stack([unrounded_half(image) for image in batch])
    wanted = jax.jit(lambda x: encode(TINY, extractor.variables, x))(halves)
    np.testing.assert_allclose(found[:, width:], wanted, atol=5e-6)
    np.testing.assert_allclose(found[:, width:], reference[:, width:], atol=5e-3)


@pytest.mark.slow
def test_the_gradient_of_the_pure_function_goes_through_both_sizes(extractor, images):
    image = images[2].astype(np.float32) / 255
    direction = np.random.default_rng(1).normal(size=image.shape).astype(np.float32)

    def along(step):
        features = two_scale_features(TINY, extractor.variables, (image + step * direction)[None])
        return features.reshape(2, -1) @ jnp.linspace(-1, 1, extractor.width // 2)

    value, slope = jax.jit(along), jax.jit(jax.grad(lambda step, size: along(step)[size]))
    differences = (value(3e-4) - value(-3e-4)) / 6e-4
    np.testing.assert_allclose([slope(0.0, size) for size in (0, 1)], differences, rtol=0.05)


def test_features_are_float32_computations_whatever_the_training_dtype(images):
    variables = random_weights(TINY)
    low = ModelConfig(**{**TINY.__dict__, "compute_dtype": "bfloat16"})
    np.testing.assert_array_equal(
        Extractor(low, variables).features(images[2:3]), Extractor(TINY, variables).features(images[2:3])
    )


def test_files_give_the_same_features_and_broken_ones_are_named(extractor, images, folder, monkeypatch, capsys):
    paths = sorted(folder.glob("*.png"))
    kept, features, broken = extractor.from_files(paths)
    assert [path.name for path in kept] == [f"{i}.png" for i in range(len(images))]
    assert [error.name for error in broken] == [str(folder / "3b.png"), str(folder / "5b.png")]
    np.testing.assert_allclose(features, extractor.features(images), atol=2e-6)
    assert capsys.readouterr().err == ""  # no bar if there is no terminal
    monkeypatch.setattr(module, "CHUNK_IMAGES", 3)
    items = list(extractor.stream(iter(paths)))
    assert [item.path for item in items] == paths
    np.testing.assert_allclose(np.stack([item.features for item in items if not item.broken]), features, atol=2e-6)


def test_a_stream_can_be_left_early(extractor, folder, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_IMAGES", 1)
    seen = []
    endless = (seen.append(i) or folder / "2.png" for i in range(10**9))
    stream = extractor.stream(endless)
    assert next(stream).features is not None
    stream.close()
    assert len(seen) < 4 * available_cores() + 10


def test_large_images_are_scaled_down_and_named(folder, capsys):
    small = Extractor(TINY, random_weights(TINY), max_megapixels=0.001)
    _, features, _ = small.from_files([folder / "3.png"])
    scale = (0.001e6 / (31 * 70)) ** 0.5
    expected = Image.open(folder / "3.png").resize((int(70 * scale), int(31 * scale)), reducing_gap=3.0)
    np.testing.assert_allclose(features, small.features([np.asarray(expected)]), atol=2e-6)
    assert "1 image scaled down to 0.001 megapixels" in capsys.readouterr().err


def test_images_are_brought_to_the_shorter_side_first(folder):
    small = Extractor(TINY, random_weights(TINY), shorter_side=20)
    _, features, _ = small.from_files([folder / "3.png"])
    expected = Image.open(folder / "3.png").resize((20 * 70 // 31, 20), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(features, small.features([np.asarray(expected)]), atol=2e-6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
        None,
    ],
)
def test_arrays_that_are_no_images_are_refused(extractor, image):
    with pytest.raises(UserError, match="image 0"):
        extractor.features([image])


def test_half_size_is_pillows_default():
    image = np.random.default_rng(0).integers(0, 256, (41, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(half_size(image), Image.fromarray(image).resize((15, 20), Image.Resampling.BICUBIC))


def test_the_command_writes_what_it_says(extractor, folder, tmp_path, capsys):
    model = tiny_model(tmp_path / "run" / "model")
    out = tmp_path / "features.npz"
    arguments = ["--model", str(model.parent), "--images", str(folder), str(folder / "0.png"), "--out", str(out)]
    assert run_verb(main, arguments) == 0
    with np.load(out, allow_pickle=False) as stored:
        assert stored["path"].tolist() == [str(folder / f"{i}.png") for i in range(len(SIZES))]
        assert stored["features"].shape == (len(SIZES), extractor.width) and stored["features"].dtype == np.float32
        assert str(stored["model_hash"]) == content_hash(*load_network(str(model)))
    said = capsys.readouterr().err
    assert "3b.png" in said and "5b.png" in said and "2 of 10 images could not be read" in said
    assert (
        run_verb(main, [*arguments, "--images", str(folder / "0.png"), str(folder / "3b.png")]) == 1
    )  # asked for by name


@pytest.mark.parametrize(
    ("named", "out", "says"),
    [("3b.png", "f.npz", "the only image could not be read"), ("0.png", "f.txt", "should end in .npz"),
     ("0.png", "absent/f.npz", "does not exist"), ("absent.png", "f.npz", "absent.png")],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_leave_nothing(folder, named, out, says, capsys):
    model = tiny_model(folder / "model")
    assert run_verb(main, ["--model", str(model), "--images", str(folder / named), "--out", str(folder / out)]) == 2
    assert says in capsys.readouterr().err
    assert not (folder / out).exists() and not list(folder.glob(".*part"))


def test_networks_by_name(tmp_path):
    folder = tiny_model(tmp_path / "run" / "model")
    model, variables = load_network(str(folder))
    assert model == TINY and load_network(str(tmp_path / "run"))[0] == TINY
    control, weights = load_network(f"random:{folder}")
    assert control == TINY and content_hash(control, weights) == content_hash(model, variables)
    for wrong in (str(tmp_path / "absent"), "random:resnet7", str(tmp_path)):
        with pytest.raises(UserError):
            load_network(wrong)


def test_the_compilation_cache_can_be_switched_off_and_moved(tmp_path, monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    use_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == before and user_cache("x") is None
    monkeypatch.setenv("CONTRIQUE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache("x") == tmp_path / "cache" / "contrique_jax" / "x"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert user_cache("x") is None
