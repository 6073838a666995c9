"""The models inside this package, each with the probe that belongs to it; which of them is meant if none is named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from contrique_jax.errors import UserError
from contrique_jax.networks.description import read_description
from contrique_jax.networks.weights_file import DEFAULT, EMBEDDED, WEIGHTS, embedded_folder, meant_embedded
from contrique_jax.probe import Probe, load_probe
from contrique_jax.probe.faults import Faults
from contrique_jax.probe.why import Why

PROBE, FAULTS, WHY = "probe.npz", "faults.npz", "why.npz"  # in an embedded model's folder


@dataclass(frozen=True)
class Scale:
    """From a probe's own scores to 0..100, higher is better: a line through the ends of its data set's range."""

    low: float  # scores of the worst and of the best quality
    high: float

    def scores(self, raw: npt.ArrayLike) -> Float[np.ndarray, "*n"]:
        """0..100; what lies beyond the range is at its end."""
        return np.clip(self.unbounded(raw), 0, 100)

    def unbounded(self, raw: npt.ArrayLike) -> Float[np.ndarray, "*n"]:
        """The same line, not cut off at its ends."""
        return 100 * (np.asarray(raw, np.float64) - self.low) / (self.high - self.low)

    def deviations(self, raw: npt.ArrayLike) -> Float[np.ndarray, "*n"]:
        """Standard deviations of scores from those of raw ones."""
        return 100 * np.asarray(raw, np.float64) / abs(self.high - self.low)


@dataclass(frozen=True)
class Meter:
    """What scores are made with: the model that --model would name, a probe; the scale, if it is an embedded one."""

    model: str
    probe: Probe
    scale: Scale | None
    faults: Faults | None  # for maps, of embedded models


def named_models() -> dict[str, dict[str, Any]]:
    """The description (`model.json`) of every embedded model by name, the default one first."""
    folders = (path for path in sorted(EMBEDDED.iterdir()) if embedded_folder(path.name)) if EMBEDDED.is_dir() else ()
    found = {folder.name: read_description(folder) for folder in folders}
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT))


def size(name: str) -> int:
    """Bytes of an embedded model's weights and probes."""
    return sum((EMBEDDED / name / file).stat().st_size for file in (WEIGHTS, PROBE, FAULTS, WHY))


def load_why(model: str) -> Why:
    """What names the distortions of an image by an embedded model's features. Raises UserError for another model."""
    why = why_of(model)
    if why is None:
        names = ", ".join(named_models())
        raise UserError(
            f"why: {model} is no embedded model, and only those name distortions ({names}); leave --why out."
        )
    return why


def why_of(model: str) -> Why | None:
    """The same; None for another model."""
    folder = meant_embedded(model)
    return None if folder is None else Why.load(folder / WHY)


def choose_meter(model: str | os.PathLike[str] | None, probe: str | os.PathLike[str] | None) -> Meter:
    """The embedded model with its probe if neither is named; an embedded model's own probe if it alone is named.

    Raises UserError if one of the two is missing otherwise.
    """
    if probe is not None:
        if model is None:
            raise UserError(
                f"probe: {probe} is of one model; name that with --model M too (--model {DEFAULT} is the embedded one), "
                "or leave --probe out."
            )
        given = load_probe(os.fspath(probe))
        return Meter(os.fspath(model), given, None, None)
    name = DEFAULT if model is None else os.fspath(model)
    folder = embedded_folder(name) if model is None else meant_embedded(name)
    if folder is None:
        return _own_meter(name)
    fitted = load_probe(folder / PROBE)
    low, high = fitted.score_low, fitted.score_high
    scale = Scale(low, high) if fitted.higher_is_better else Scale(high, low)
    return Meter(name, fitted, scale, Faults.load(folder / FAULTS))


def _own_meter(name: str) -> Meter:
    """Of a model that gives scores itself. Raises UserError for another."""
    # these bring jax, which the embedded model's probe does without
    from contrique_jax.inference.any_recipe import own_scores
    from contrique_jax.training.load import check_place

    check_place(name)
    own = own_scores(name)
    if own is None:
        raise UserError(
            f"model: {name} gives features and no scores; add --probe P.npz, which `contrique-jax evaluate --model {name} "
            "--probe P.npz` fits, or leave --model out."
        )
    return Meter(name, own.probe(), None, None)
