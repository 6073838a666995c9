"""Procedural scenes: pure, diverse, sharp, of natural statistics, at any size; the simulated camera."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from contrique_jax.data.scenes import authentic_scene, pristine_scene

COUNT = 40


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [pristine_scene(3, i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [authentic_scene(3, i) for i in range(COUNT)]


def grey(image: np.ndarray) -> np.ndarray:
    return image.astype(float) @ [0.299, 0.587, 0.114]


def test_shapes_and_types(scenes, photographs):
    assert all(s.shape == (384, 512, 3) and s.dtype == np.uint8 for s in scenes)
    assert all(p.ndim == 3 and p.shape[2] == 3 and p.dtype == np.uint8 for p in photographs)
    assert all(300 <= side <= 720 for p in photographs for side in p.shape[:2])


@pytest.mark.parametrize("scene", [pristine_scene, authentic_scene])
def test_a_scene_is_a_function_of_seed_and_index_alone(scene):
    first = scene(5, 11)
    scene(5, 12)
    np.testing.assert_array_equal(scene(5, 11), first)
    assert not np.array_equal(scene(5, 12), first)
    assert not np.array_equal(scene(6, 11), first)


def test_negative_and_large_seeds():
    assert pristine_scene(-1, 0).shape == pristine_scene(2**63, 2**40).shape


@pytest.mark.parametrize("height,width", [(384, 512), (512, 384), (64, 64), (32, 97), (700, 1300)])
def test_any_size(height, width):
    for index in range(12 if height < 600 else 2):
        assert pristine_scene(1, index, height, width).shape == (height, width, 3)


def test_scenes_differ_in_light_contrast_and_colour(scenes):
    means, spreads = [grey(s).mean() for s in scenes], [grey(s).std() for s in scenes]
    chroma = [(s.max(2).astype(float) - s.min(2)).mean() for s in scenes]
    assert 90 < np.mean(means) < 140 and np.std(means) > 10
    assert 35 < np.median(spreads) < 75 and min(spreads) > 10
    assert min(chroma) < 15 and max(chroma) > 60


def test_no_two_scenes_look_alike(scenes):
    small = np.stack([s[::32, ::32].astype(float).ravel() for s in scenes])
    distance = np.abs(small[:, None] - small[None]).mean(-1)
    assert distance[np.triu_indices(COUNT, 1)].min() > 15


def test_little_is_clipped(scenes):
    assert np.median([(s == 0).mean() + (s == 255).mean() for s in scenes]) < 0.08


def power_slope(image: np.ndarray) -> float:
    """Exponent of the power spectrum over spatial frequency, 4 to 150 cycles a picture."""
    centre = grey(image)[:, 64:448]
    window = np.hanning(384)
    power = np.abs(np.fft.fft2((centre - centre.mean()) * window[:, None] * window)) ** 2
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(384) * 384] * 2))
    edges = np.geomspace(4, 150, 14)
    rings = [power[(radius >= a) & (radius < b)].mean() for a, b in itertools.pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(rings), 1)[0]


def test_the_spectrum_is_that_of_natural_images(scenes):
    # photographs: power falls with an exponent of about -2, with a spread (Tolhurst et al. 1992; Torralba & Oliva 2003)
    slopes = [power_slope(s) for s in scenes]
    assert -2.7 < np.median(slopes) < -1.8
    assert np.mean([-3.4 < slope < -1.0 for slope in slopes]) > 0.9


def test_gradients_are_sparse_and_edges_sharp(scenes):
    differences = [np.diff(grey(s), axis=1) for s in scenes]
    kurtosis = [np.mean((d - d.mean()) ** 4) / d.var() ** 2 for d in differences]
    assert np.median(kurtosis) > 6  # 3 would be Gaussian noise
    assert np.median([np.percentile(np.abs(d), 99.5) for d in differences]) > 30  # steps within one pixel


def test_authentic_scenes_go_from_clean_to_strongly_distorted(photographs):
    detail = np.array([np.abs(np.diff(grey(p), 2, axis=1)).mean() for p in photographs])
    light = np.array([grey(p).mean() for p in photographs])
    assert detail.max() / detail.min() > 6  # blurred to noisy
    assert light.min() < 80 and light.max() > 140
    assert len({p.shape for p in photographs}) > COUNT // 2
    portrait = np.mean([p.shape[0] > p.shape[1] for p in photographs])
    assert 0.1 < portrait < 0.6


def test_the_roles_share_no_scene():
    photograph = authentic_scene(0, 0)
    scene = pristine_scene(0, 0, *photograph.shape[:2])
    assert np.corrcoef(grey(photograph).ravel(), grey(scene).ravel())[0, 1] < 0.7


def test_scenes_are_fast_enough_to_be_a_source(scenes):
    start = time.process_time()
    for index in range(20):
        pristine_scene(9, index)
    assert (time.process_time() - start) / 20 < 0.15  # about 0.02 s on an idle core
