"""A linear regressor of scikit-learn's, alone or behind scalers in a Pipeline, as one row of coefficients on the features
themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

REGRESSORS, SCALERS = ("Ridge", "ElasticNet", "SVR"), ("StandardScaler", "MinMaxScaler")
WHAT = "a Ridge, an ElasticNet or a linear SVR"
GIVE = f"give {WHAT}, or a Pipeline of {' or '.join(SCALERS)} and one of these, as scikit-learn wrote it"
PASSED = ("passthrough", None)  # steps that a Pipeline leaves out
MOST_STEPS = 8

Numbers = Callable[[Any], Float[np.ndarray, "*n"]]


class Step(NamedTuple):
    """An estimator by its class, and its attributes."""

    kind: str
    attributes: Mapping[str, Any]


class Line(NamedTuple):
    """score = features . coefficients + intercept."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float  # of a Ridge that sees the features themselves; else 0


def line_of(steps: Sequence[Step], numbers: Numbers) -> Line:
    """What a fitted Pipeline predicts, scalers and at last a regressor, or a regressor alone; `numbers` makes float64 of an
    attribute. Numbers may be NaN or infinite. Raises ValueError, in words, for other steps and for several scores at once."""
    kinds = [step.kind for step in steps]
    if not 1 <= len(steps) <= MOST_STEPS or kinds[-1] not in REGRESSORS or not set(kinds[:-1]) <= set(SCALERS):
        shown = " and ".join(kind[:40] for kind in kinds[:MOST_STEPS])
        raise ValueError(f"it is {shown or 'an empty Pipeline'}")
    *scalers, last = steps
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        coefficients, intercept = _svr(last, numbers) if last.kind == "SVR" else _plain(last, numbers)
        if coefficients.shape not in ((coefficients.size,), (1, coefficients.size)) or intercept.size != 1:
            raise ValueError(
                f"coefficients of shape {list(coefficients.shape)} do not predict one score; fit it on one target"
            )
        row, total = coefficients.ravel(), intercept.item()
        for scaler in reversed(scalers):
            factor, shift = _min_max(scaler, numbers) if scaler.kind == "MinMaxScaler" else _standard(scaler, numbers)
            for side in (factor, shift):
                if side.shape not in ((), row.shape):
                    raise ValueError(f"a {scaler.kind} of {side.size} features before {row.size} coefficients")
            row, total = row * factor, total + float(np.sum(row * shift))
    alpha = _fitted(last, "alpha", numbers).item() if kinds == ["Ridge"] else 0.0
    return Line(row, total, alpha)


def _plain(step: Step, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    return _fitted(step, "coef_", numbers), _fitted(step, "intercept_", numbers)


def _svr(step: Step, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    kernel = step.attributes.get("kernel")
    if kernel != "linear":
        named = f"{kernel[:20]!r}" if isinstance(kernel, str) else "a function"
        raise ValueError(f"an SVR whose kernel is {named}, not 'linear'")
    shares, vectors = (_fitted(step, name, numbers) for name in ("dual_coef_", "support_vectors_"))
    if vectors.ndim != 2 or not len(vectors) or shares.shape != (1, len(vectors)):
        raise ValueError(f"an SVR with shares {list(shares.shape)} of vectors {list(vectors.shape)}")
    return shares @ vectors, _fitted(step, "intercept_", numbers)


# x -> factor * x + shift


def _standard(step: Step, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    held = step.attributes  # both arrays may be there and not be used
    factor = 1 / _fitted(step, "scale_", numbers) if held.get("with_std", True) else np.ones(())
    shift = -_fitted(step, "mean_", numbers) * factor if held.get("with_mean", True) else np.zeros(())
    return factor, shift


def _min_max(step: Step, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
    if step.attributes.get("clip"):
        raise ValueError("a MinMaxScaler that clips, which no line does; fit it with clip=False")
    return _fitted(step, "scale_", numbers), _fitted(step, "min_", numbers)


def _fitted(step: Step, name: str, numbers: Numbers) -> np.ndarray:
    if step.attributes.get(name) is None:
        raise ValueError(f"a {step.kind} without {name}; fit it before it is saved")
    return numbers(step.attributes[name])
