"""Quality from features: closed-form ridge regression for a whole path of penalties, and the probe file.

alpha means what scikit-learn's Ridge means by it: |y - X w - b|^2 + alpha |w|^2, the intercept b not penalised.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from contrique_jax.errors import UserError
from contrique_jax.outputs import write_npz

FORMAT_VERSION = 1
# What a probe reads: the features of one image, or the absolute difference of two images' features.
NO_REFERENCE, FULL_REFERENCE = "two-scale", "two-scale difference"


@contextmanager
def float64() -> Iterator[None]:
    """Context: JAX computes in float64 on the host's processor, whatever accelerator there is."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names an accelerator alone
        host = jax.local_devices()[0]
    with jax.enable_x64(True), jax.default_device(host):
        yield


def ridge_path(
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    alphas: Float[Array, " a"],
    weights: Float[Array, " n"] | None = None,
) -> tuple[Float[Array, "a d"], Float[Array, " a"]]:
    """Ridge coefficients and intercepts for every alpha (> 0), from one eigendecomposition.

    `weights` weigh the rows' squared errors; a row of weight 0 does not count, so sets of different sizes can be padded
    and mapped over. Pure, in the dtype of `x`: solve in `float64()`, because the Gram matrix squares the condition.
    """
    weights = jnp.ones_like(y) if weights is None else weights
    total = jnp.sum(weights)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    root = jnp.sqrt(weights)
    centred, target = (x - mean_x) * root[:, None], (y - mean_y) * root
    if x.shape[0] <= x.shape[1]:
        gram, right = centred @ centred.T, target
    else:
        gram, right = centred.T @ centred, centred.T @ target
    values, vectors = jnp.linalg.eigh(gram)
    shrunk = (vectors.T @ right)[:, None] / (jnp.maximum(values, 0)[:, None] + alphas)
    solution = vectors @ shrunk
    if x.shape[0] <= x.shape[1]:
        solution = centred.T @ solution
    return solution.T, mean_y - mean_x @ solution


def fit_ridge(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], alphas: Float[np.ndarray, " a"]
) -> tuple[Float[np.ndarray, "a d"], Float[np.ndarray, " a"]]:
    """`ridge_path` on host arrays in float64. Raises UserError for NaN, lengths that differ and alphas not above 0."""
    x, y, alphas = (np.asarray(values, np.float64) for values in (x, y, alphas))
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(y):
        raise UserError(f"ridge: features {list(x.shape)} and scores {list(y.shape)} do not fit; give [N, D] and [N].")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("ridge: a feature or score is NaN or infinite; leave such images out.")
    if not (np.isfinite(alphas).all() and (alphas > 0).all()):
        raise UserError("ridge: every alpha must be a number above 0.")
    with float64():
        coefficients, intercepts = jax.jit(ridge_path)(x, y, alphas)
        return np.asarray(coefficients), np.asarray(intercepts)


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

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    def predict(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Scores of features [N, D], float64. Raises UserError for another width and for NaN."""
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != len(self.coefficients):
            raise UserError(
                f"probe: it reads features [N, {len(self.coefficients)}] and was given {list(features.shape)}; "
                "use the model that it was fitted with."
            )
        scores = features.astype(np.float64) @ self.coefficients + self.intercept
        if not np.isfinite(scores).all():
            raise UserError("probe: a feature is NaN or infinite; check the model's weights.")
        return scores

    def check_model(self, model_hash: str, width: int) -> None:
        """Raises UserError where this probe was fitted on the features of another model."""
        if width != len(self.coefficients):
            raise UserError(
                f"--probe: it reads {len(self.coefficients)} features and this model gives {width}; "
                "use the model it was fitted with, or fit a probe with `contrique-jax evaluate --probe`."
            )
        if self.model_hash and model_hash != self.model_hash:
            raise UserError(
                f"--probe: it was fitted on the features of model {self.model_hash} and --model is {model_hash}; "
                "use that model, or fit a probe with `contrique-jax evaluate --probe`."
            )

    def save(self, path: str | Path) -> None:
        """Writes the `.npz`, whole or not at all; no pickles."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        arrays = {name: np.asarray(value) for name, value in known.items()}
        write_npz(Path(path), format_version=np.asarray(FORMAT_VERSION), **arrays)


def load_probe(path: str | Path) -> Probe:
    """Reads a probe. Raises UserError for a file that is missing, cut off, of another kind or holds NaN."""
    path = Path(path).expanduser()
    try:
        with np.load(path, allow_pickle=False) as stored:
            fields = {name: stored[name] for name in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such probe; fit one with `contrique-jax evaluate --probe {path}`.") from error
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cut off or not a probe; copy it again or fit it again.") from error
    version = fields.pop("format_version", None)
    wanted = {field.name: field.type for field in dataclasses.fields(Probe)}
    if version is None or set(wanted) - set(fields) - {"deviation"}:
        raise UserError(f"{path}: an .npz, but not a probe; give a file that `contrique-jax evaluate --probe` wrote.")
    if version.shape or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: probe format {version} is unknown, this program reads {FORMAT_VERSION}; update the program."
        )
    try:
        kinds = {"float": float, "str": str, "bool": bool, "float | None": float}
        plain = {
            name: kinds[str(kind)](fields[name].item())
            for name, kind in wanted.items()
            if kind in kinds and name in fields
        }
        coefficients = fields["coefficients"].astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a field has the wrong type ({error}); fit the probe again.") from error
    numbers = [value for value in plain.values() if isinstance(value, float)]
    if coefficients.ndim != 1 or not np.isfinite(coefficients).all() or not np.isfinite(numbers).all():
        raise UserError(f"{path}: NaN or infinity where numbers should be; fit the probe again.")
    return Probe(coefficients=coefficients, **plain)
