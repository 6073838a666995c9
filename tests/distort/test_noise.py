"""Types 11 to 14: the statistics of the noise, on flat images."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.stats
import skimage.color

from contrique_jax.distort import random_numbers

GREY = np.full((256, 320, 3), 0.5)


def assert_white(noise: np.ndarray, variance: float, family: str = "norm") -> None:
    """Mean 0, the variance, the shape of the distribution, and nothing shared by neighbours or channels."""
    count = noise.size
    assert abs(noise.mean()) < 4 * np.sqrt(variance / count)
    assert abs(noise.var() / variance - 1) < 0.02
    scale = np.sqrt(variance)
    # in units of the distribution: SciPy 1.18 fails for a normal one with other parameters
    low, width = (0, scale) if family == "norm" else (-np.sqrt(3) * scale, 2 * np.sqrt(3) * scale)
    assert scipy.stats.kstest((noise.ravel() - low) / width, family).pvalue > 1e-3
    for a, b in (
        (noise[1:], noise[:-1]),
        (noise[:, 1:], noise[:, :-1]),
        (noise[..., 0], noise[..., 1]),
        (noise[..., 1], noise[..., 2]),
        (noise[:128], noise[128:]),  # the generator gives words two by two, half an image apart
    ):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4.5 / np.sqrt(a.size)


@pytest.mark.parametrize("level, variance", list(enumerate((0.001, 0.002, 0.003, 0.005, 0.01), 1)))
def test_white_noise(run, level, variance):
    assert_white(run(11, level, GREY, level) - 0.5, variance)


def test_white_noise_is_clipped(run):
    noisy = run(11, 5, np.linspace(0, 1, 256)[:, None, None] * np.ones((256, 320, 3)))
    assert noisy.min() == 0 and noisy.max() == 1


@pytest.mark.parametrize("level, variance", list(enumerate((0.0001, 0.0005, 0.001, 0.002, 0.003), 1)))
def test_colour_noise_is_white_in_ycbcr(run, level, variance):
    noisy = run(12, level, GREY, level).astype(np.float64)
    noise = (skimage.color.rgb2ycbcr(noisy) - skimage.color.rgb2ycbcr(GREY)) / 255
    clipped = (noisy <= 0) | (noisy >= 1)
    assert clipped.mean() < 1e-3
    assert_white(noise, variance)


@pytest.mark.parametrize("level, density", list(enumerate((0.001, 0.005, 0.01, 0.02, 0.03), 1)))
def test_impulse_noise(run, level, density):
    noisy = run(13, level, GREY, level)
    black, white = noisy == 0, noisy == 1
    assert ((noisy == 0.5) | black | white).all()
    for hit in (black, white):
        assert abs(hit.mean() - density / 2) < 4 * np.sqrt(density / 2 / hit.size)
    both = ((black | white)[..., 0] & (black | white)[..., 1]).mean()
    assert abs(both - density**2) < 4 * density / np.sqrt(noisy[..., 0].size) + 1e-5


@pytest.mark.parametrize("level, variance", list(enumerate((0.001, 0.005, 0.01, 0.02, 0.05), 1)))
def test_multiplicative_noise_is_flat(run, level, variance):
    factor = run(14, level, GREY, level) / 0.5 - 1
    assert np.abs(factor).max() <= np.sqrt(3 * variance) + 1e-6
    assert_white(factor, variance, "uniform")


def test_multiplicative_noise_leaves_black(run):
    assert (run(14, 5, np.zeros_like(GREY)) == 0).all()


def test_draws_do_not_repeat_across_bands():
    words = np.asarray(random_numbers.words(jax.random.key(0), (3 * random_numbers.BAND + 5,)))
    assert words.dtype == np.uint32 and words.shape == (3 * random_numbers.BAND + 5,)
    assert len(np.unique(words)) > 0.9999 * len(words)
    counts = np.unpackbits(words.view(np.uint8)).reshape(-1, 8).mean(0)
    np.testing.assert_allclose(counts, 0.5, atol=0.005)


def test_draws_stay_in_range():
    uniform = np.asarray(random_numbers.uniform(jax.random.key(1), (200_000,)))
    assert -1 < uniform.min() < -0.999 and 0.999 < uniform.max() < 1
    assert np.isfinite(random_numbers.normal(jax.random.key(1), (200_000,))).all()


def test_the_rarest_draws_are_finite_when_compiled(monkeypatch):
    monkeypatch.setattr(random_numbers, "words", lambda key, shape: key)  # one in 8 million each
    ends = jax.numpy.array([0, 0xFFFFFFFF], jax.numpy.uint32)
    uniform, normal = (
        np.asarray(jax.jit(lambda w, f=f: f(w, w.shape))(ends)) for f in (random_numbers.uniform, random_numbers.normal)
    )
    np.testing.assert_array_equal(uniform, np.float32([2**-23 - 1, 1 - 2**-23]))
    assert np.isfinite(normal).all() and normal[0] == -normal[1]
