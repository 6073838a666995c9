"""Types 01 to 03 against SciPy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import scipy.ndimage

from contrique_jax.distort.blur import disk_kernel, motion_kernel


@pytest.mark.parametrize("level, sigma", list(enumerate((0.1, 0.5, 1, 2, 5), 1)))
def test_gaussian_is_scipys_with_two_sigmas(run, image, level, sigma):
    radius = int(np.ceil(2 * sigma))
    want = scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest", radius=(radius, radius, 0))
    np.testing.assert_allclose(run(1, level, image), want, atol=1e-5)


def supersampled_disk(radius: float, reach: int, fine: int = 64) -> np.ndarray:
    """Share of each pixel inside the disk, by counting 64 x 64 points a pixel."""
    side = 2 * reach + 1
    offset = (np.arange(side * fine) + 0.5) / fine - side / 2
    inside = offset[:, None] ** 2 + offset**2 <= radius**2
    return inside.reshape(side, fine, side, fine).mean((1, 3)) / (np.pi * radius**2)


@pytest.mark.parametrize("level, radius", list(enumerate((1, 2, 4, 6, 8), 1)))
def test_lens(run, image, level, radius):
    kernel = np.asarray(disk_kernel(np.float32(radius), 8))
    np.testing.assert_allclose(kernel, supersampled_disk(radius, 8), atol=1e-3)
    assert abs(kernel.sum() - 1) < 1e-5
    want = cv2.filter2D(image, -1, kernel.astype(np.float64), borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(run(2, level, image), want, atol=1e-5)


def test_small_disks_are_those_of_fspecial():
    one, two = (np.asarray(disk_kernel(np.float32(radius), 2)) for radius in (1, 2))
    np.testing.assert_allclose(one[1, 1:4], [0.0251, 0.1453, 0.0251], atol=5e-5)
    np.testing.assert_allclose(one[2], [0, 0.1453, 0.3183, 0.1453, 0], atol=5e-5)
    np.testing.assert_allclose(two[0], [0, 0.0170, 0.0381, 0.0170, 0], atol=5e-5)
    np.testing.assert_allclose(two[1], [0.0170, 0.0784, 0.0796, 0.0784, 0.0170], atol=5e-5)


def line(length: float, degrees: int) -> np.ndarray:
    """Taps that fall off with their distance from the segment between the line's two ends, y up."""
    end = (length - 1) / 2 * np.exp(1j * np.deg2rad(degrees))
    taps = np.zeros((11, 11))
    for row, column in np.ndindex(taps.shape):
        point = complex(column - 5, 5 - row)
        nearest = 0 if end == 0 else np.clip((point * end.conjugate()).real / abs(end) ** 2, -1, 1) * end
        taps[row, column] = max(0, 1 - abs(point - nearest))
    return taps / taps.sum()


@pytest.mark.parametrize("length", (1, 2, 4, 6, 10))
def test_motion_kernel(length):
    for degrees in (0, 30, 45, 90, 137, 180):
        kernel = np.asarray(motion_kernel(np.float32(length), degrees, 5))
        np.testing.assert_allclose(kernel, line(length, degrees), atol=1e-6)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)
    ends = (np.asarray(motion_kernel(np.float32(length), degrees, 5)) for degrees in (0, 180))
    np.testing.assert_allclose(next(ends), next(ends), atol=1e-6)


def test_motion_blurs_along_one_whole_angle_a_key(run, image):
    seen = set()
    for seed in range(6):
        got = run(3, 5, image, seed)
        errors = []
        for degrees in range(180):
            kernel = np.asarray(motion_kernel(np.float32(10), degrees, 5), np.float64)
            want = cv2.filter2D(image[:40, :40], -1, kernel, borderType=cv2.BORDER_REPLICATE)
            errors.append(np.abs(got[:30, :30] - want[:30, :30]).max())
        assert min(errors) < 1e-5
        seen.add(int(np.argmin(errors)))
    assert len(seen) >= 5
