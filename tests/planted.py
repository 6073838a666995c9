"""Photographs-to-be with a planted quality, and a network small enough to judge them in a second."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from contrique_jax.config import ModelConfig
from contrique_jax.inference.extractor import Extractor
from contrique_jax.networks.encoder import init_model
from contrique_jax.networks.model_folder import save_model
from contrique_jax.probe import NO_REFERENCE, Probe
from contrique_jax.training.load import random_weights

TINY = ModelConfig(encoder="resnet10", base_width=16, projection_dim=8, compute_dtype="float32")


def tiny_model(folder: Path, seed: int | None = None) -> Path:
    """A model folder with random weights, which nevertheless see blur; without a seed those of the control."""
    weights = random_weights(TINY) if seed is None else init_model(TINY, seed)
    save_model(folder, TINY, weights, provenance={"trained on": "nothing"})
    return folder


def probe_of(extractor: Extractor, rng: np.random.Generator) -> Probe:
    """A probe on that network's features, of scores from 1 to 5."""
    coefficients = rng.normal(size=extractor.width)
    return Probe(coefficients, 2.5, 0.1, NO_REFERENCE, extractor.model_hash, "MINE", 1.0, 5.0, True, 0.25)


def write_images(folder: Path, count: int = 48, size: int = 64) -> Path:
    """`count` noise images blurred by degrees, two a group, and scores.csv: path, mos (sharp is high), subset, group,
    reference (the sharp image of the group)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for group in range(count // 2):
        sharp = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        sharp.save(folder / f"sharp{group}.png")
        for twin in range(2):
            radius = float(rng.uniform(0.2, 3))
            name = f"image{group}_{twin}.png"
            sharp.filter(ImageFilter.GaussianBlur(radius)).save(folder / name)
            mos = 5 - radius + rng.normal() * 0.05
            rows.append([name, f"{mos:.4f}", "ab"[group % 2], f"g{group}", f"sharp{group}.png"])
    return write_csv(folder / "scores.csv", [["path", "mos", "subset", "group", "reference"], *rows])


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def read_csv(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))
