"""Types 16 to 18 against splines of SciPy and Lab of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.interpolate
import skimage.color

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")


def curve(x: np.ndarray, bend: float) -> np.ndarray:
    """MATLAB's spline through three points is their parabola; so is SciPy's."""
    return np.clip(scipy.interpolate.CubicSpline([0, 0.5, 1], [0, 0.5 + bend / 2, 1])(x), 0, 1)


@pytest.mark.parametrize("level, bend", list(enumerate((0.1, 0.2, 0.4, 0.7, 1.1), 1)))
def test_brighten(run, image, level, bend):
    lab = skimage.color.rgb2lab(image)
    lab[..., 0] = 100 * curve(lab[..., 0] / 100, bend)
    error = np.abs(run(16, level, image) - (2 * curve(image, bend) + skimage.color.lab2rgb(lab)) / 3)
    assert error.max() < 1e-3 and error.mean() < 1e-5


@pytest.mark.parametrize("level, bend", list(enumerate((0.05, 0.1, 0.2, 0.4, 0.8), 1)))
def test_darken(run, image, level, bend):
    np.testing.assert_allclose(run(17, level, image), curve(image, -bend), atol=1e-6)


@pytest.mark.parametrize("level, offset", list(enumerate((0.15, 0.08, 0, -0.08, -0.15), 1)))
def test_mean_shift(run, image, level, offset):
    np.testing.assert_allclose(run(18, level, image), np.clip(image + offset, 0, 1), atol=1.2e-7)


def test_mean_shift_in_the_bank_stretches_one_end_away(run, photo):
    source = photo("astronaut", 96, 128)
    full = (source.astype(float) - source.min()) / (source.max() - source.min())
    for level, want in ((1, full / 0.85), (5, (full - 0.15) / 0.85)):
        got = run.distort(source, 5 * 17 + level - 1)
        assert np.abs(got - 255 * np.clip(want, 0, 1)).max() < 0.5001
