"""CONTRIQUE (arXiv 2110.13266) in JAX: self-supervised training of an image-quality encoder, features, probes, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from contrique_jax.inference.meter import Model

__version__ = "0.1.0"


def load(model: str | os.PathLike[str] | None = None, probe: str | os.PathLike[str] | None = None) -> Model:
    """A trained network, and a probe where scores are wanted: `.score(images)`, `.map(image)`, `.features(images)`,
    `.apply(batch)`; an image is a path, a Pillow image or an array [H, W, 3] or [H, W] of bytes.
    Without arguments the embedded model, whose scores go from 0 to 100.

    `model`: a model folder, a run's workdir, a checkpoint in it, or a name of `contrique-jax models`; `probe`: a file of
    `contrique-jax evaluate --probe`.
    """
    from contrique_jax.inference.meter import load as load_now  # jax takes a second to import

    return load_now(model, probe)
