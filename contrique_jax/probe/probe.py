"""A fitted ridge that turns features into quality, and its file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError, printable
from contrique_jax.io.npz import read_npz
from contrique_jax.io.outputs import write_npz
from contrique_jax.probe.hidden import Hidden, together
from contrique_jax.probe.posterior import Posterior
from contrique_jax.probe.spread import Spread, layer_summaries
from contrique_jax.probe.standing import Standing

FORMAT_VERSION = 1
OPTIONAL = {"deviation", "posterior", "spread", "standing", "hidden", "shorter_side"}  # not in every file
# NAME_ARRAY in the file
PARTS: dict[str, type[Posterior] | type[Spread] | type[Standing] | type[Hidden]] = {
    "posterior": Posterior, "spread": Spread, "standing": Standing, "hidden": Hidden
}  # fmt: skip
LARGEST = 1e30  # of its numbers: with features of any size beyond it scores would overflow
LONGEST_SIDE = 65_535  # pixels
# a field's annotation -> the kinds of its array in the file, and what it becomes
_KINDS: dict[str, tuple[str, type]] = {
    "float": ("fiu", float), "float | None": ("fiu", float), "int | None": ("iu", int), "str": ("U", str), "bool": ("b", bool)
}  # fmt: skip
# What a probe reads: the features of one image, or the absolute difference of two images' features.
NO_REFERENCE, FULL_REFERENCE = "two-scale", "two-scale difference"


@dataclass(frozen=True)
class Probe:
    """A fitted regressor and what a reader of its scores must know."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float
    feature_name: str  # NO_REFERENCE or FULL_REFERENCE
    model_hash: str  # of the encoder whose features it was fitted on; "" where a converted probe does not know it
    data_set: str  # the opinion scores it was fitted on
    score_low: float  # lowest and highest score of that data set
    score_high: float
    higher_is_better: bool
    # standard deviation of held-out scores about the prediction, in units of the scores; None: not known, not in the file
    deviation: float | None = None
    posterior: Posterior | None = None  # what a deviation for each image needs; older files have none
    shorter_side: int | None = None  # images are brought to it before their features are computed; None: left alone
    spread: Spread | None = None  # the same, learnt from residuals; where it is there, it has the word
    standing: Standing | None = None  # the scores that photographs like those it was fitted on get
    hidden: Hidden | None = None  # where it is there, scores are the mean of its and of the coefficients'

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    def predict(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Scores of features [N, D], float64. Raises UserError for another width and for NaN."""
        if self.hidden is None:
            return self.linear(features)
        return self._both(features)[0]

    def linear(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The same by the coefficients alone: for windows, which are further from photographs than a hidden layer has seen."""
        return _finite(self._checked(features).astype(np.float64) @ self.coefficients + self.intercept)

    def deviations(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"] | None:
        """Standard deviation of each image's true score about `predict`: from `spread`, or else the posterior's, wider for
        images unlike those it was fitted on.

        Without either it is the one `deviation` for all; None where not even that is known. A score is within
        1.645 of them in 90 % of images like those of `data_set`. Raises UserError for another width.
        """
        features = self._checked(features)
        if self.spread is not None:
            return self.spread.deviations(features, self.beside(features))
        if self.posterior is not None:
            return self.posterior.deviations(features)
        return None if self.deviation is None else np.full(len(features), self.deviation)

    def beside(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"] | None:
        """What a hidden layer tells `spread` of each image: its score, and how much it looks like each kind but the last."""
        if self.hidden is None:
            return None
        return layer_summaries(*self._both(features))

    def _both(self, features: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n k"]]:
        """Scores, and the likeness to each kind, from one pass of the hidden layer."""
        assert self.hidden is not None
        line = self.linear(features)
        bent, likeness = self.hidden.judge(features)
        return together(line, _finite(bent)), likeness

    def _checked(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != len(self.coefficients):
            raise UserError(
                f"probe: it reads features [N, {len(self.coefficients)}] and was given {list(features.shape)}; "
                "use the model that it was fitted with."
            )
        return features

    def check_model(self, model_hash: str, width: int) -> None:
        """Raises UserError if this probe was fitted on the features of another model."""
        if width != len(self.coefficients):
            raise UserError(
                f"probe: it reads {len(self.coefficients)} features and this model gives {width}; "
                "use the model it was fitted with, or fit a probe with `contrique-jax evaluate --probe`."
            )
        if self.model_hash and model_hash != self.model_hash:
            raise UserError(
                f"probe: it was fitted on the features of model {self.model_hash} and the model given is {model_hash}; "
                "use that model, or fit a probe with `contrique-jax evaluate --probe`."
            )

    def plain(self) -> dict[str, Any]:
        """Its fields by name but for its parts, which no Ridge of another library could hold."""
        return {name: value for name, value in vars(self).items() if name not in PARTS}

    def fault(self) -> str:
        """What cannot be right about its fields, in words; "" if nothing is known to be wrong."""
        numbers = {name: value for name, value in self.plain().items() if isinstance(value, float)}
        wrong = [name for name, value in numbers.items() if not abs(value) <= LARGEST]  # NaN too
        texts = (self.feature_name, self.model_hash, self.data_set)
        if self.coefficients.ndim != 1 or not self.coefficients.size:
            return f"its coefficients are an array {list(self.coefficients.shape)} and not a row of numbers"
        if wrong or not (np.abs(self.coefficients) <= LARGEST).all():
            return f"NaN, infinity or a number beyond {LARGEST:g} in {wrong[0] if wrong else 'coefficients'}"
        if self.alpha < 0 or (self.deviation is not None and self.deviation < 0):
            return "alpha or deviation is below 0"
        if not self.score_low < self.score_high:
            return f"score_low is {self.score_low:g} and score_high {self.score_high:g}, which is not above it"
        if self.shorter_side is not None and not 1 <= self.shorter_side <= LONGEST_SIDE:
            return f"shorter_side is {self.shorter_side}, and must be 1 to {LONGEST_SIDE} pixels"
        if self.feature_name not in (NO_REFERENCE, FULL_REFERENCE):
            return f"feature_name is {self.feature_name!r}, and must be {NO_REFERENCE!r} or {FULL_REFERENCE!r}"
        if any(printable(text) != text for text in texts):
            return "a name in it holds control characters or is very long"
        return ""

    def save(self, path: str | Path) -> None:
        """Writes the `.npz`, whole or not at all; no pickles."""
        plain = self.plain() | {"data_set": printable(self.data_set)}  # which may be a folder's name
        arrays = {name: np.asarray(value) for name, value in plain.items() if value is not None}
        for part in PARTS:
            if getattr(self, part) is not None:
                held = getattr(self, part)
                stored = [field.name for field in dataclasses.fields(held)]
                arrays |= {f"{part}_{name}": np.asarray(getattr(held, name)) for name in stored}
        write_npz(Path(path), format_version=np.asarray(FORMAT_VERSION), **arrays)


def _finite(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    if not np.isfinite(scores).all():
        raise UserError("probe: a feature is NaN or infinite; check the model's weights.")
    return scores


def load_probe(path: str | Path) -> Probe:
    """Reads a probe. Raises UserError for a file that is missing, cut off, of another kind, or whose fields cannot be right."""
    path = Path(path).expanduser()
    try:
        fields = read_npz(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such probe; fit one with `contrique-jax evaluate --probe {path}`.") from error
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); name the file of a probe.") from error
    except ValueError as error:
        raise UserError(f"{path}: cut off or not a probe ({error}); copy it again or fit it again.") from error
    version = fields.pop("format_version", None)
    wanted = {field.name: str(field.type) for field in dataclasses.fields(Probe)}
    if version is None or set(wanted) - set(fields) - OPTIONAL:
        raise UserError(f"{path}: an .npz, but not a probe; give a file that `contrique-jax evaluate --probe` wrote.")
    if version.shape or version.dtype.kind not in "iu" or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: probe format {version} is unknown, this program reads {FORMAT_VERSION}; update the program."
        )
    plain: dict[str, Any] = {}
    for name, kind in wanted.items():
        if kind in _KINDS and name in fields:
            codes, make = _KINDS[kind]
            if fields[name].shape or fields[name].dtype.kind not in codes:
                found = f"{fields[name].dtype} {list(fields[name].shape)}"
                raise UserError(f"{path}: {name} is {found}, and must be one {make.__name__}; fit the probe again.")
            try:
                plain[name] = make(fields[name].item())
            except ValueError as error:  # text of no letters
                raise UserError(f"{path}: {name} is no text; fit the probe again.") from error
    coefficients = fields["coefficients"]
    parts: dict[str, Any] = {}
    for part, kind_of_part in PARTS.items():
        stored = {name.removeprefix(f"{part}_"): found for name, found in fields.items() if name.startswith(f"{part}_")}
        try:
            if any(found.dtype.kind not in "fiu" for found in stored.values()):
                raise ValueError("text where numbers should be")
            if not all((np.abs(found.astype(np.float64)) <= LARGEST).all() for found in stored.values()):
                raise ValueError(f"NaN, infinity or a number beyond {LARGEST:g}")
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found to be infinite
                parts[part] = kind_of_part.checked(coefficients.size, **stored) if stored else None
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: its {part} is damaged ({error}); fit the probe again.") from error
    if coefficients.dtype.kind not in "fiu":
        raise UserError(f"{path}: its coefficients are {coefficients.dtype}, not numbers; fit the probe again.")
    probe = Probe(coefficients=coefficients.astype(np.float64), **parts, **plain)
    fault = probe.fault()
    if fault:
        raise UserError(f"{path}: {fault}; fit the probe again.")
    return probe
