"""A probe as a scikit-learn Ridge and back: as JSON, as a skops file, or as a pickle.

What a Ridge has no place for (range, direction, data set, model) travels in an attribute of its own, DESCRIPTION.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax.convert.ridge_pickle import read_ridge
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import whole_file
from contrique_jax.probe import Probe

DESCRIPTION = "contrique_jax_probe"
_RIDGE = ("coefficients", "intercept", "alpha")
HOW_TO_BUILD = [
    "import json, numpy, sklearn.linear_model; stored = json.load(open(PATH)); w = numpy.array(stored['coefficients'])",
    "ridge = sklearn.linear_model.Ridge(alpha=stored['alpha'])",
    "ridge.coef_, ridge.intercept_, ridge.n_features_in_ = w, stored['intercept'], len(w)",
]


@dataclasses.dataclass(frozen=True)
class StoredRidge:
    """A Ridge with one target, and the fields of a Probe that its file tells."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float
    description: dict[str, Any]


def description(probe: Probe) -> dict[str, Any]:
    """The fields of a probe that a Ridge has no place for; the posterior stays behind."""
    return {name: value for name, value in probe.plain().items() if name not in _RIDGE}


def write_json(probe: Probe, path: Path) -> None:
    """Numbers as text that reads back exactly, and three lines of Python that make a Ridge of them."""
    numbers = {"coefficients": probe.coefficients.tolist(), "intercept": probe.intercept, "alpha": probe.alpha}
    stored = {"how_to_build": HOW_TO_BUILD, DESCRIPTION: description(probe)} | numbers
    with whole_file(path) as beside:
        beside.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def write_skops(probe: Probe, path: Path) -> None:
    """A file of the skops library. Raises UserError where it is not installed."""
    ridge = sklearn_ridge(probe)
    skops = _skops(path)
    with whole_file(path) as beside:
        skops.dump(ridge, beside)


def write_pickle(probe: Probe, path: Path) -> None:
    """A pickled scikit-learn Ridge."""
    ridge = sklearn_ridge(probe)
    with whole_file(path) as beside:
        beside.write_bytes(pickle.dumps(ridge, protocol=4))


def sklearn_ridge(probe: Probe) -> Any:
    """A fitted scikit-learn Ridge that predicts what the probe predicts. Raises UserError without scikit-learn."""
    try:
        from sklearn.linear_model import Ridge
    except ImportError as error:
        raise UserError(
            f"scikit-learn cannot be imported ({error}); pip install 'contrique-jax[sklearn]', or write a .json."
        ) from error
    ridge = Ridge(alpha=probe.alpha)
    ridge.coef_, ridge.intercept_ = np.array(probe.coefficients), probe.intercept
    ridge.n_features_in_, ridge.n_iter_ = len(probe.coefficients), None
    setattr(ridge, DESCRIPTION, description(probe))
    return ridge


def read(path: Path) -> StoredRidge:
    """The Ridge in a .json of ours, a .skops file or else a pickle. Raises UserError where it is none."""
    reader = {".json": _read_json, ".skops": _read_skops}.get(path.suffix.lower(), read_ridge)
    held = reader(path)
    told = held.get(DESCRIPTION)
    ridge = StoredRidge(
        held["coef_"], held["intercept_"], held["alpha"], description=told if isinstance(told, dict) else {}
    )
    if not ridge.coefficients.size or not np.isfinite([*ridge.coefficients, ridge.intercept, ridge.alpha]).all():
        raise UserError(f"{path}: no coefficients, or NaN or infinity among its numbers; fit it again.")
    return ridge


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        coefficients = np.array(stored["coefficients"], np.float64).reshape(len(stored["coefficients"]))
        numbers = {"intercept_": float(stored["intercept"]), "alpha": float(stored["alpha"])}
        return {"coef_": coefficients, DESCRIPTION: stored.get(DESCRIPTION), **numbers}
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a probe as JSON; give one that `probe-to-sklearn` wrote.") from error


def _read_skops(path: Path) -> dict[str, Any]:
    skops = _skops(path)
    try:
        held = vars(skops.load(path))
        numbers = {"intercept_": float(np.squeeze(held["intercept_"])), "alpha": float(held["alpha"])}
        coefficients = np.array(held["coef_"], np.float64)
        return {"coef_": coefficients.reshape(coefficients.size), DESCRIPTION: held.get(DESCRIPTION), **numbers}
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # damaged files and types that skops does not trust
        raise UserError(f"{path}: not a fitted Ridge that skops reads ({' '.join(str(error).split())}).") from error


def _skops(path: Path) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise UserError(
            f"{path}: skops cannot be imported ({error}); pip install 'contrique-jax[sklearn]', or take a .json."
        ) from error
    return skops.io
