"""Features to a score: the ridge, its posterior, and the file that holds both."""

from contrique_jax.probe.probe import FULL_REFERENCE, NO_REFERENCE, Probe, fit_ridge, float64, load_probe, ridge_path

__all__ = ["FULL_REFERENCE", "NO_REFERENCE", "Probe", "fit_ridge", "float64", "load_probe", "ridge_path"]
