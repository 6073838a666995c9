"""The command `contrique-jax demo`, as far as seconds go; `make demo-short` runs every stage."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from contrique_jax import demo, demo_unseen
from contrique_jax.errors import run_verb


def test_it_misses_matplotlib_before_it_trains(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert run_verb(demo.main, ["--out", str(tmp_path / "out")]) == 2
    assert "pip install 'contrique-jax[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_its_config_stands_in_the_package():
    path = Path(__file__).parents[1] / "configs" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo_config", path)
    config = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config)
    assert config.get_config() == demo_unseen.get_config()


def test_a_careful_person_s_features_see_blur_and_noise():
    rng = np.random.default_rng(0)
    plain = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noisy = np.clip(plain + rng.normal(0, 30, plain.shape), 0, 255).astype(np.uint8)
    blurred = np.full_like(plain, plain.mean())
    features = demo_unseen.sharpness_and_noise(np.stack([blurred, plain, noisy]))
    assert features.shape == (3, 8) and (np.diff(features[:, :4], axis=0) > 0)[:, [0, 3]].all()


def test_severity_and_kind_are_measured_on_scenes_left_out():
    """Features that say both are seen as such; noise is told apart from them."""
    rng = np.random.default_rng(0)
    kinds, levels = rng.integers(1, 6, 400), rng.integers(1, 6, 400)
    told = demo_unseen.Unseen(None, levels.astype(float), kinds, levels, [str(i // 10) for i in range(400)])
    clear = np.column_stack([levels, np.eye(6)[kinds]]) + 0.05 * rng.normal(size=(400, 7))
    found = demo_unseen.measured(clear, told, 3)
    assert found["severity"] > 0.9 and found["kind"] > 0.95
    nothing = demo_unseen.measured(rng.normal(size=(400, 7)), told, 3)
    assert abs(nothing["severity"]) < 0.3 and nothing["kind"] < 0.5
