"""Procedural scenes: the embedded default source."""

from contrique_jax.data.scenes.scenes import authentic_scene, pristine_scene

__all__ = ["authentic_scene", "pristine_scene"]
