"""Type 15 against scikit-image's wavelet denoiser, and its patches against a plain loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import skimage.restoration
from skimage.metrics import peak_signal_noise_ratio as psnr

from contrique_jax.data.scenes import pristine_scene
from contrique_jax.distort import denoise, random_numbers

VARIANCES = (0.01, 0.03, 0.05, 0.1, 0.15)


def sources(photo) -> dict[str, np.ndarray]:
    images = {name: photo(name, 192, 256) for name in ("astronaut", "coffee", "rocket")}
    images |= {f"scene {index}": pristine_scene(0, index, 192, 256) for index in range(2)}
    return {name: (image / 255.0).astype(np.float32) for name, image in images.items()}


def noisy(image: np.ndarray, variance: float, seed: int) -> np.ndarray:
    """What the operation cleans."""
    noise = np.asarray(random_numbers.normal(jax.random.key(seed), image.shape))
    return np.clip(image + np.float32(np.sqrt(variance)) * noise, 0, 1)


@pytest.mark.parametrize("level, variance", list(enumerate(VARIANCES, 1)))
def test_takes_the_noise_out(run, photo, level, variance):
    for name, source in sources(photo).items():
        before = psnr(source, noisy(source, variance, level), data_range=1)
        assert psnr(source, run(15, level, source, level), data_range=1) >= before + 5, name


@pytest.mark.slow
@pytest.mark.parametrize("level, variance", list(enumerate(VARIANCES, 1)))
def test_is_no_worse_than_wavelets(run, photo, level, variance):
    pytest.importorskip("pywt")
    for name, source in sources(photo).items():
        spoilt = noisy(source, variance, level)
        wavelets = skimage.restoration.denoise_wavelet(spoilt, channel_axis=-1, rescale_sigma=True)
        ours = run(15, level, source, level)
        assert psnr(source, ours, data_range=1) >= psnr(source, wavelets, data_range=1) - 0.5, name


def by_patches(plane: np.ndarray, threshold: float) -> np.ndarray:
    """The definition, patch by patch, in double precision."""
    height, width = plane.shape
    padded = np.pad(plane, ((8, 10), (8, 10)), mode="symmetric")
    total, weights = np.zeros_like(padded), np.zeros_like(padded)
    for row in range(0, height + 8, 2):
        for column in range(0, width + 8, 2):
            place = np.s_[row : row + 8, column : column + 8]
            coefficients = scipy.fft.dctn(padded[place], norm="ortho")
            keep = np.abs(coefficients) > threshold
            keep[0, 0] = True
            weight = 1 / (1 + keep.sum())
            total[place] += weight * scipy.fft.idctn(coefficients * keep, norm="ortho")
            weights[place] += weight
    inside = np.s_[8 : 8 + height, 8 : 8 + width]
    return total[inside] / weights[inside]


@pytest.mark.parametrize("height, width", [(64, 50), (48, 67), (71, 52)])
def test_patches(height, width):
    image = np.random.default_rng(0).random((height, width, 3))
    got = np.asarray(jax.jit(denoise.cleaned)(jnp.asarray(image, jnp.float32), jnp.float32(0.5)))
    want = np.stack([by_patches(image[..., channel], 0.5) for channel in range(3)], axis=-1)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_nothing_below_the_threshold_changes_nothing(photo):
    image = (photo("coffee", 75, 93) / 255.0).astype(np.float32)
    np.testing.assert_allclose(jax.jit(denoise.cleaned)(image, 0.0), image, atol=1e-5)
