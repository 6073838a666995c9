"""Views: geometry and colour spaces as Pillow, LittleCMS and SciPy compute them, and what the draws promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image, ImageCms

from contrique_jax.augment import views
from contrique_jax.augment.views import COLOURS, ViewDraw
from tests.reference_weights import REFERENCE_DATA

grey, lab, hsv, mean_subtracted = (
    jax.jit(space) for space in (views.grey, views.lab, views.hsv, views.mean_subtracted)
)
SPACES = {"grey": grey, "lab": lab, "hsv": hsv, "ms": mean_subtracted}
half_size = jax.jit(views.half_size)
make_view = jax.jit(views.make_view, static_argnums=2)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


def photograph(h: int, w: int, seed: int = 0) -> np.ndarray:
    """Smooth colour under noise, with saturated, black and white patches."""
    rng = np.random.default_rng(seed)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(h, w, 3)), (6, 6, 0), mode="wrap")
    image = np.clip(128 + 90 * smooth / smooth.std() + rng.normal(0, 5, (h, w, 3)), 0, 255)
    image[: h // 8, : w // 8], image[-h // 8 :, : w // 8] = 0, 255
    image[: h // 8, -w // 8 :] = rng.integers(0, 2, 3) * 255
    return image.astype(np.uint8)


def draw(div: int = 1, y: float = 0.3, x: float = 0.7, colour: str = "none", flip: bool = False) -> ViewDraw:
    return ViewDraw(np.int32(div), np.float32(y), np.float32(x), np.int32(COLOURS.index(colour)), np.bool_(flip))


def circular(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Distance of codes on the circle of 256."""
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    return np.minimum(difference, 256 - difference)


def pillow_half(image: np.ndarray) -> np.ndarray:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def pillow_lab(image: np.ndarray) -> np.ndarray:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    intent = ImageCms.Intent.PERCEPTUAL
    transform = ImageCms.buildTransformFromOpenProfiles(*profiles, "RGB", "LAB", renderingIntent=intent)
    return np.asarray(ImageCms.applyTransform(Image.fromarray(image), transform))


def scipy_ms(image: np.ndarray) -> np.ndarray:
    window = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    result = np.empty_like(image)
    for channel in range(3):
        plane = image[..., channel].astype(np.float32)
        mean = scipy.ndimage.correlate1d(plane, window / window.sum(), 0, np.float32, mode="reflect")
        mean = scipy.ndimage.correlate1d(mean, window / window.sum(), 1, np.float32, mode="reflect")
        difference = plane - mean
        stretched = (difference - difference.min()) / (np.ptp(difference) + np.float32(1e-3))
        result[..., channel] = (stretched * 255).astype(np.uint8)
    return result


def place_and_pad(image: np.ndarray, y: float, x: float, size: int) -> np.ndarray:
    """RandomCrop at y, x, or torchvision's CenterCrop: pad the short sides, then cut the long ones, half to even."""
    h, w = image.shape[:2]
    if min(h, w) >= size:
        top, left = int(np.float32(y) * np.float32(h - size + 1)), int(np.float32(x) * np.float32(w - size + 1))
    else:
        down, right = max(size - h, 0), max(size - w, 0)
        image = np.pad(image, ((down // 2, (down + 1) // 2), (right // 2, (right + 1) // 2), (0, 0)))
        top, left = round((image.shape[0] - size) / 2.0), round((image.shape[1] - size) / 2.0)
    return image[top : top + size, left : left + size]


# geometry


@pytest.mark.parametrize("shape", [(384, 512), (2, 2), (2, 8), (4, 6), (64, 32), (130, 258)])
def test_half_size_is_pillows(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(half_size(image), pillow_half(image))


def test_half_size_of_extreme_pixels_is_pillows():
    image = (np.random.default_rng(2).random((200, 300, 3)) < 0.5).astype(np.uint8) * 255
    np.testing.assert_array_equal(half_size(image), pillow_half(image))


@pytest.mark.parametrize("shape", [(383, 512), (384, 511), (1, 1)])
def test_odd_sides_are_refused(shape):
    image = np.zeros((*shape, 3), np.uint8)
    with pytest.raises(ValueError, match="odd side"):
        half_size(image)
    with pytest.raises(ValueError, match="odd side"):
        make_view(image, draw(), 32)


@pytest.mark.parametrize("shape", [(140, 150), (136, 128), (128, 132), (128, 128)])
def test_half_scale_crop_is_the_crop_of_the_whole_half_at_every_border(shape):
    image = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = pillow_half(image)
    rows, columns = whole.shape[0] - 63, whole.shape[1] - 63
    for top, left in np.ndindex(rows, columns):
        view = make_view(image, draw(2, (top + 0.5) / rows, (left + 0.5) / columns), 64)
        np.testing.assert_array_equal(view, whole[top : top + 64, left : left + 64], err_msg=f"{top}, {left}")


def test_places_close_to_one_stay_inside():
    image, last = photograph(700, 900), np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(make_view(image, draw(1, last, last), 64), image[-64:, -64:])


def test_half_size_filters_along_rows_first():
    # as every Pillow did up to 12; from 13 on, columns come first if an image is over twice as tall as wide
    image = np.random.default_rng(4).integers(0, 256, (200, 60, 3), dtype=np.uint8)
    narrow = Image.fromarray(image).resize((30, 200), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(half_size(image), np.asarray(narrow.resize((30, 100), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("shape", [(384, 512), (96, 128), (66, 300), (130, 66), (34, 62)])
@pytest.mark.parametrize("div", [1, 2])
def test_a_view_is_the_crop_or_the_padded_centre(shape, div):
    image = photograph(*shape)
    scaled = image if div == 1 else pillow_half(image)
    for y, x in [(0.0, 0.0), (0.4, 0.99999994)]:
        np.testing.assert_array_equal(make_view(image, draw(div, y, x), 64), place_and_pad(scaled, y, x, 64))


@pytest.mark.parametrize("shape", [(63, 64), (65, 31), (67, 61), (64, 64), (1, 200), (69, 80)])
def test_crop_or_pad_takes_any_shape(shape):
    image = photograph(*shape)
    ours = jax.jit(views.crop_or_pad, static_argnums=3)(image, np.float32(0.5), np.float32(0.9), 64)
    np.testing.assert_array_equal(ours, place_and_pad(image, 0.5, 0.9, 64))


def test_half_of_the_canvas_is_padded_above_and_below():
    view = np.asarray(make_view(np.full((384, 512, 3), 200, np.uint8), draw(2), 256))
    assert (view[32:224] == 200).all() and not view[:32].any() and not view[224:].any()


# colour


def test_colours_of_the_reference(shared):
    data = np.load(shared / "reference" / "colour_views.npz")
    off = total = 0
    exact = {"HSV": [], "LAB": [], "MS": []}
    for number in range(3):
        image = data[f"image{number}"]
        np.testing.assert_array_equal(grey(image), data[f"grayscale{number}"])
        assert circular(lab(image), data[f"lab{number}"]).max() <= 1
        assert circular(hsv(image), data[f"hsv{number}"]).max() <= 1
        difference = np.abs(np.asarray(mean_subtracted(image)).astype(int) - data[f"ms{number}"])
        assert difference.max() <= 1
        exact["HSV"].append(circular(hsv(image), data[f"hsv{number}"]) == 0)
        exact["LAB"].append(circular(lab(image), data[f"lab{number}"]) == 0)
        exact["MS"].append(difference == 0)
        off, total = off + np.count_nonzero(difference), total + difference.size
    assert off <= 1e-4 * total
    shares = {name: np.mean([same.mean() for same in images]) for name, images in exact.items()}
    print("exact samples: grey 100 %, " + ", ".join(f"{name} {share:.3%}" for name, share in shares.items()))
    assert min(shares.values()) >= 0.97


def test_colours_of_the_reference_over_a_grid():
    data = np.load(REFERENCE_DATA / "colour_views.npz")
    np.testing.assert_array_equal(grey(data["grid"]), data["grid_grayscale"])
    assert circular(lab(data["grid"]), data["grid_lab"]).max() <= 1
    assert circular(hsv(data["grid"]), data["grid_hsv"]).max() <= 1
    difference = np.abs(np.asarray(mean_subtracted(data["image0"])).astype(int) - data["ms0"])
    assert difference.max() <= 1 and np.count_nonzero(difference) <= 1e-4 * difference.size


def test_colours_are_pillows_over_the_cube():
    axis = np.unique(np.append(np.arange(0, 256, 3), [1, 2, 254])).astype(np.uint8)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(len(axis), -1, 3)
    picture = Image.fromarray(cube)
    np.testing.assert_array_equal(grey(cube), np.asarray(picture.convert("L"))[..., None].repeat(3, -1))
    difference = circular(hsv(cube), np.asarray(picture.convert("HSV")))
    assert difference[..., 0].max() <= 1 and not difference[..., 1:].any() and np.mean(difference == 0) > 0.98
    difference = circular(lab(cube), pillow_lab(cube))
    assert difference.max() <= 1 and np.mean(difference == 0, axis=(0, 1)).min() >= 0.97


def test_saturation_is_pillows_for_every_pair_of_extremes():
    low, high = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    image = np.stack([low, high, np.minimum(low, high)], -1).astype(np.uint8)
    np.testing.assert_array_equal(
        np.asarray(hsv(image))[..., 1], np.asarray(Image.fromarray(image).convert("HSV"))[..., 1]
    )


def test_lab_bytes_wrap():
    codes = {
        (255, 255, 255): (255, 0, 0), (0, 0, 0): (0, 0, 0), (128, 128, 128): (137, 0, 0),
        (255, 0, 0): (138, 81, 70), (0, 255, 0): (224, 177, 81), (0, 0, 255): (75, 68, 144),
    }  # fmt: skip
    ours = lab(np.array([list(codes)], np.uint8))
    assert circular(ours, np.array([list(codes.values())])).max() <= 1


def test_ms_is_scipys():
    off = total = 0
    for seed in range(8):
        image = photograph(100, 120, seed)
        image[: 10 * (seed % 3)] = 0  # as a padded view
        difference = np.abs(np.asarray(mean_subtracted(image)).astype(int) - scipy_ms(image))
        assert difference.max() <= 1
        off, total = off + np.count_nonzero(difference), total + difference.size
    assert off <= 1e-4 * total


@pytest.mark.parametrize("value", [0, 77, 255])
def test_ms_of_a_flat_image_is_black(value):
    assert not np.asarray(mean_subtracted(np.full((64, 64, 3), value, np.uint8))).any()


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_view_picks_the_space(colour):
    image = photograph(64, 64)
    expected = SPACES[colour](image) if colour in SPACES else image
    np.testing.assert_array_equal(views.colour_view(image, jnp.int32(COLOURS.index(colour))), expected)


def test_padding_comes_before_the_colour_space():
    image = photograph(96, 128)
    padded = place_and_pad(pillow_half(image), 0, 0, 64)
    assert np.abs(np.asarray(make_view(image, draw(2, colour="ms"), 64)).astype(int) - scipy_ms(padded)).max() <= 1


# views


@pytest.mark.parametrize("colour", COLOURS)
def test_a_flipped_view_is_the_view_mirrored(colour):
    image = photograph(96, 160)
    plain, flipped = (np.asarray(make_view(image, draw(1, colour=colour, flip=flip), 64)) for flip in (False, True))
    np.testing.assert_array_equal(flipped, plain[:, ::-1])


def test_finish_view_finishes_a_crop_cut_elsewhere():
    image, choice = photograph(192, 256), draw(2, 0.2, 0.6, "hsv", flip=True)
    crop = place_and_pad(pillow_half(image), 0.2, 0.6, 64)
    np.testing.assert_array_equal(jax.jit(views.finish_view)(crop, choice), make_view(image, choice, 64))


def some_draws(count: int) -> ViewDraw:
    drawn = jax.vmap(views.draw_views)(jax.random.split(jax.random.key(7), count))
    return drawn._replace(colour=jnp.arange(2 * count, dtype=jnp.int32).reshape(count, 2) % len(COLOURS))


def same_but_for_rounding(a: np.ndarray, b: np.ndarray) -> None:
    """Compilers contract and order float arithmetic as they like: a code on the edge may fall to its neighbour."""
    difference = circular(a, b)
    assert difference.max() <= 1 and np.mean(difference > 0) <= 1e-4


@pytest.mark.slow
def test_jit_eager_loop_and_vmap_agree():
    draws = some_draws(5)
    images = np.stack([photograph(96, 160, seed) for seed in range(5)])
    compiled = jax.jit(views.two_views, static_argnums=2)
    one = [ViewDraw(*(part[i] for part in draws)) for i in range(5)]
    loop = np.stack([compiled(images[i], one[i], 64) for i in range(5)])
    assert loop.shape == (5, 2, 64, 64, 3) and loop.dtype == np.uint8
    same_but_for_rounding(views.two_views(images[0], one[0], 64), loop[0])
    mapped = jax.jit(jax.vmap(lambda image, choice: views.two_views(image, choice, 64)))(images, draws)
    same_but_for_rounding(mapped, loop)


def test_only_the_branch_taken_runs():
    text = str(jax.make_jaxpr(lambda image, choice: views.make_view(image, choice, 64))(photograph(96, 160), draw()))
    assert text.count("cond[") == 3  # scale, colour, flip


@pytest.mark.slow
def test_tfdata_runs_the_same_views():
    tf = pytest.importorskip("tensorflow")
    from jax.experimental import jax2tf

    def two(image: jax.Array, *parts: jax.Array) -> jax.Array:
        return views.two_views(image, ViewDraw(*parts), 64)

    draws = jax.tree.map(np.asarray, some_draws(5))
    images = np.stack([photograph(96, 160, seed) for seed in range(5)])
    in_graph = tf.function(jax2tf.convert(two, with_gradient=False), autograph=False)
    theirs = np.stack(list(tf.data.Dataset.from_tensor_slices((images, *draws)).map(in_graph).as_numpy_iterator()))
    compiled = jax.jit(two)
    same_but_for_rounding(theirs, np.stack([compiled(images[i], *(part[i] for part in draws)) for i in range(5)]))


# draws


def test_draws_have_their_distributions():
    count = 20_000
    drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(views.draw_views))(jax.random.split(jax.random.key(3), count)))
    assert [part.dtype for part in drawn] == [np.int32, np.float32, np.float32, np.int32, np.bool_]
    assert all(part.shape == (count, 2) for part in drawn)
    assert (drawn.div.sum(1) == 3).all() and set(np.unique(drawn.div)) == {1, 2}
    assert abs((drawn.div[:, 0] == 1).mean() - 0.5) < 0.015
    for share in (drawn.y, drawn.x):
        assert share.min() >= 0 and share.max() < 1
        np.testing.assert_allclose(
            np.quantile(share, [0.1, 0.5, 0.9], axis=0), [[0.1] * 2, [0.5] * 2, [0.9] * 2], atol=0.015
        )
    counts = np.stack([np.bincount(drawn.colour[:, view], minlength=5) for view in (0, 1)])
    assert counts.shape == (2, 5) and np.abs(counts / count - 0.2).max() < 0.015
    assert np.abs(drawn.flip.mean(0) - 0.5).max() < 0.015
    columns = np.concatenate([drawn.div[:, :1], drawn.y, drawn.x, drawn.colour, drawn.flip], axis=1).astype(float)
    assert np.abs(np.corrcoef(columns.T) - np.eye(9)).max() < 0.03  # independent, of each other and of the other view


def test_draws_repeat_with_their_key():
    a, b, c = (views.draw_views(jax.random.key(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert not np.array_equal(a.y, c.y)
