"""Features to a score: the ridge, its posterior, and the file that holds both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contrique_jax.probe.probe import FULL_REFERENCE, NO_REFERENCE, Probe, load_probe

if TYPE_CHECKING:
    from contrique_jax.probe.ridge import fit_ridge, float64, ridge_path

__all__ = ["FULL_REFERENCE", "NO_REFERENCE", "Probe", "fit_ridge", "float64", "load_probe", "ridge_path"]


def __getattr__(name: str) -> Any:
    """What fits, and brings jax, which takes a second to import: reading a probe and scoring by it do without."""
    if name in ("fit_ridge", "float64", "ridge_path"):
        from contrique_jax.probe import ridge

        return getattr(ridge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
