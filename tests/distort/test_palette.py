"""Type 06 against Pillow and against Floyd and Steinberg's serial loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from contrique_jax.data import scenes
from contrique_jax.distort import bank, palette

SIZES = bank.BANK[5].levels
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


def codes_of(image: np.ndarray) -> np.ndarray:
    """Bytes of floats that are 8-bit codes."""
    codes = 255 * np.asarray(image)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)
    return np.rint(codes).astype(np.uint8)


def colours_in(image: np.ndarray) -> np.ndarray:
    return np.unique(image.reshape(-1, 3), axis=0)


moments_of = jax.jit(palette.cell_moments)
choose = jax.jit(palette.choose_colours)
tables = jax.jit(palette.nearest_colours)


def median_cut(image: np.ndarray, count: int) -> np.ndarray:
    """Pillow's palette."""
    return np.reshape(Image.fromarray(image).quantize(count).getpalette()[: 3 * count], (-1, 3))


def dithered_by_pillow(image: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Floyd and Steinberg, which Pillow's `quantize` does only if it is given the palette."""
    pillow = Image.new("P", (1, 1))
    pillow.putpalette(np.resize(colours, (256, 3)).astype(np.uint8).tobytes())
    dithered = Image.fromarray(image).quantize(palette=pillow, dither=Image.Dither.FLOYDSTEINBERG)
    return np.asarray(dithered.convert("RGB"))


def lead(image: np.ndarray, got: np.ndarray, colours: np.ndarray) -> float:
    """PSNR over that of Pillow's dithering in `colours` [dB]."""
    return peak_signal_noise_ratio(image, got) - peak_signal_noise_ratio(image, dithered_by_pillow(image, colours))


def serial(levels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Floyd and Steinberg's algorithm, pixel after pixel, in integers."""
    height, width, _ = levels.shape
    errors = np.zeros((height + 1, width + 2, 3), int)  # a column more on both sides and a row above
    out = np.zeros(levels.shape, int)
    for r in range(height):
        for c in range(width):
            above, here = errors[r], errors[r + 1]
            passed = 7 * here[c] + 3 * above[c + 2] + 5 * above[c + 1] + above[c]
            wanted = np.clip(levels[r, c] + (passed + 8) // 16, 0, 1020)
            colour = int(table[np.ravel_multi_index(wanted // 32, (32, 32, 32))])
            out[r, c] = colour >> 16, colour >> 8 & 255, colour & 255
            here[c + 1] = wanted - 4 * out[r, c]
    return out


@pytest.mark.parametrize("height, width", [(64, 48), (49, 111)])  # slots for fewer rows than there are, for all rows
def test_dithering_is_the_serial_algorithms(photo, height, width):
    image = photo("astronaut", 200, 200)[30 : 30 + height, 50 : 50 + width].astype(np.int32)
    moments = moments_of(image)
    table = tables(moments, *choose(moments, 16))
    got = np.asarray(jax.jit(palette.dither)(4 * image, table))
    np.testing.assert_array_equal(got, serial(4 * image, np.asarray(table)))


@pytest.mark.parametrize(
    "height, width", [(48, 48), (48, 200), (200, 48), (51, 102), (52, 101), (77, 51), (1, 1), (2, 5)]
)
def test_wavefronts_are_undone(height, width):
    plane = jnp.arange(height * width).reshape(height, width)
    fronts = palette._skewed(plane)
    steps, slots = np.nonzero(np.asarray(fronts) >= 0)
    order = np.asarray(fronts)[steps, slots]
    np.testing.assert_array_equal(steps, order % width + 2 * (order // width))
    np.testing.assert_array_equal(slots, order // width % fronts.shape[1])
    np.testing.assert_array_equal(palette._straight(fronts, height, width), plane)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs(run, photo, name):
    """No more colours than asked for, all of them used; as close to the photograph as Pillow's."""
    image = photo(name, 96, 128)
    moments = moments_of(image.astype(np.int32))
    leads = []
    for level, count in enumerate(map(int, SIZES), 1):
        got = codes_of(run(6, level, image / 255))
        colours, used = choose(moments, count)
        assert len(colours_in(got)) == used == count
        assert lead(image, got, np.asarray(colours)[:count]) > -1.3  # 5 bits a channel in the map, Pillow has 6
        leads.append(lead(image, got, median_cut(image, count)))
    # 8 means have a narrow hull, so that errors pile up in what is outside, in Pillow as well
    assert min(leads[:-1]) > -1.5 and leads[-1] > -3
    assert np.mean(leads) > -1


def test_palettes_are_better_than_median_cuts(photo):
    """Without dithering: the squared error over the nearest colours of a palette."""
    for name in PHOTOGRAPHS:
        image = photo(name, 96, 128)
        moments = moments_of(image.astype(np.int32))
        for count in (64, 8):
            errors = [
                ((image.reshape(-1, 1, 3).astype(int) - colours) ** 2).sum(-1).min(1).mean()
                for colours in (np.asarray(choose(moments, count)[0])[:count], median_cut(image, count))
            ]
            assert errors[0] < errors[1]


def test_each_cut_is_the_best_one(photo):
    """The splitting against a search of all cuts of all boxes by NumPy."""
    image = photo("chelsea", 48, 64).reshape(-1, 3).astype(float)
    boxes = [image]
    for _ in range(11):
        best = (0.0, 0, image, image)
        for number, box in enumerate(boxes):
            for axis in range(3):
                cell = box[:, axis] // 8
                for place in np.unique(cell)[1:]:
                    left, right = box[cell < place], box[cell >= place]
                    gain = len(box) * box.var(0).sum() - sum(len(half) * half.var(0).sum() for half in (left, right))
                    best = max(best, (gain, number, left, right), key=lambda cut: cut[0])
        boxes[best[1]] = best[2]
        boxes.append(best[3])
    colours, used = choose(moments_of(photo("chelsea", 48, 64).astype(np.int32)), 12)
    assert used == 12
    np.testing.assert_array_equal(colours[:12], np.floor([box.mean(0) + 0.5 for box in boxes]))


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_few_colours_are_kept(run, count):
    """An image of no more colours than the palette is its own quantisation, whatever their arrangement."""
    draw = np.random.default_rng(count)
    cells = draw.choice(32**3, count, replace=False)
    colours = 8 * np.stack(np.unravel_index(cells, (32, 32, 32)), -1) + draw.integers(0, 8, (count, 3))
    image = colours[draw.integers(0, count, (75, 93))].astype(np.uint8)
    np.testing.assert_array_equal(codes_of(run(6, 5, image / 255)), image)


def test_neighbouring_cells_are_told_apart(run):
    """Colours nearer to each other's cell centres than to their own."""
    image = np.zeros((75, 93, 3), np.uint8)
    image[:, 24:] = 8, 3, 3
    np.testing.assert_array_equal(codes_of(run(6, 5, image / 255)), image)


def test_grey_stays_grey(run, photo):
    grey = photo("camera", 75, 93)[..., None].repeat(3, -1)
    for level, count in ((3, 32), (5, 8)):
        got = codes_of(run(6, level, grey / 255))
        assert (got == got[..., :1]).all()
        assert len(colours_in(got)) <= count
    assert lead(grey, got, median_cut(grey, 8)) > -1.5


def test_procedural_scene(run):
    image = scenes.pristine_scene(3, 1, 96, 128)
    for level, count in enumerate(map(int, SIZES), 1):
        got = codes_of(run(6, level, image / 255))
        assert len(colours_in(got)) <= count
        assert lead(image, got, median_cut(image, count)) > -1.5
