"""Types 24 and 25 against SciPy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.interpolate
import scipy.ndimage
import skimage.color


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")
@pytest.mark.parametrize("level, amount", list(enumerate((1, 2, 3, 6, 12), 1)))
def test_sharpen(run, image, level, amount):
    lab = skimage.color.rgb2lab(image)
    lab[..., 0] += amount * (lab[..., 0] - scipy.ndimage.gaussian_filter(lab[..., 0], 3, mode="nearest", radius=6))
    error = np.abs(run(24, level, image) - np.clip(skimage.color.lab2rgb(lab), 0, 1))
    assert error.max() < 1e-3 and error.mean() < 1e-5


@pytest.mark.parametrize("level, bend", list(enumerate((0.3, 0.15, 0, -0.4, -0.6), 1)))
def test_contrast(run, image, level, bend):
    points = [0, 0.25 - bend / 4, 0.5, 0.75 + bend / 4, 1]
    spline = scipy.interpolate.CubicSpline([0, 0.3, 0.5, 0.7, 1], points, bc_type="not-a-knot")
    np.testing.assert_allclose(run(25, level, image), np.clip(spline(image), 0, 1), atol=1e-6)
