"""Which of the bank's distortions an image shows, and how strongly: linear in its features, in closed form.

Kinds by linear discriminants: one mean a kind (or "none"), one covariance for all, which is what photographs differ by
anyhow. It is pooled over distorted photographs, and over photographs as people take them, who show more contents than
can be distorted; shrunk towards a multiple of the identity. Probabilities are calibrated: one factor on the
discriminants, chosen on photographs that were left out. Levels by one ridge a kind, on its photographs and clean ones; what
photographs differ by anyhow costs more in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from contrique_jax.errors import UserError
from contrique_jax.io.npz import read_npz
from contrique_jax.io.outputs import write_npz
from contrique_jax.probe.problem import standard

FORMAT_VERSION = 1
NONE = 0  # the kind of an undistorted image; 1 .. K are the distortions
FACTORS = np.geomspace(0.02, 2, 41)
FOLDS = 5
LEAST_DEVIATION = 1e-6
LARGEST = 1e12  # of a file's numbers, whose products are float32
FARTHEST = 8.0  # deviations of a feature: a flat image, further out, would be sure of anything


class Rows:
    """Distorted and undistorted photographs: features [n, d], kinds (0 none, 1 .. K), levels (0 none), photographs."""

    def __init__(
        self,
        features: Float[np.ndarray, "n d"],
        kinds: Int[np.ndarray, " n"],
        levels: Float[np.ndarray, " n"],
        photographs: Sequence[str],
    ):
        """Raises UserError for NaN, lengths that differ, and a kind up to the largest that has no row."""
        self.features = np.asarray(features, np.float64)
        self.kinds, self.levels = np.asarray(kinds, int), np.asarray(levels, np.float64)
        self.photographs = np.unique(np.asarray(photographs, str), return_inverse=True)[1]
        lengths = {len(self.features), len(self.kinds), len(self.levels), len(self.photographs)}
        if self.features.ndim != 2 or len(lengths) > 1:
            raise UserError("why: every row needs its features, kind, level and photograph.")
        if not (np.isfinite(self.features).all() and np.isfinite(self.levels).all()):
            raise UserError("why: a feature or a level is NaN or infinite; leave such rows out.")
        if len(np.unique(self.kinds)) != self.kinds.max() + 1 or self.kinds.min() != NONE:
            raise UserError("why: every kind from 0 (none) to the largest needs rows.")


@dataclass(frozen=True)
class Why:
    """Fitted discriminants and levels; all arrays float32."""

    centre: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]  # of features, before they are held within FARTHEST
    kinds: Float[np.ndarray, "k d"]  # row 0 is "none"
    kind_offsets: Float[np.ndarray, " k"]
    levels: Float[np.ndarray, "k d"]  # row 0 is zeros
    level_offsets: Float[np.ndarray, " k"]
    most: float  # the highest level
    model_hash: str  # of the encoder whose features it reads

    def judge(self, features: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """(probabilities of none and of each distortion, the level of each if it is that one; 0 .. `most`).

        Raises UserError for another width and for NaN.
        """
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.centre):
            raise UserError(f"why: it reads features [N, {len(self.centre)}] and was given {list(features.shape)}.")
        if not np.isfinite(features).all():
            raise UserError("why: a feature is NaN or infinite; check the model's weights.")
        z = standard(features, self.centre, self.deviation, FARTHEST)
        probabilities = special.softmax(z @ self.kinds.T + self.kind_offsets, axis=1)
        return probabilities, np.clip(z @ self.levels.T + self.level_offsets, 0, self.most)

    def save(self, path: str | Path) -> None:
        """Writes the `.npz`, whole or not at all; no pickles."""
        arrays = {name: np.asarray(value) for name, value in vars(self).items()}
        write_npz(Path(path), format_version=np.asarray(FORMAT_VERSION), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Why:
        """Raises UserError for a file that is missing, cut off, of another kind or version, or holds NaN."""
        path = Path(path).expanduser()
        try:
            fields = read_npz(path)
            if fields.pop("format_version") != FORMAT_VERSION:
                raise UserError(f"{path}: made by another version; update the program, or fit it again.")
            most, model_hash = float(fields.pop("most").item()), str(fields.pop("model_hash").item())
            if any(value.dtype.kind not in "fiu" for value in fields.values()):
                raise ValueError("text where numbers should be")
            with np.errstate(over="ignore"):  # what overflows is found to be infinite
                arrays = {name: value.astype(np.float32) for name, value in fields.items()}
            made = cls(**arrays, most=most, model_hash=model_hash)
            count, width = made.kinds.shape
            shapes = [made.levels.shape, made.centre.shape, made.deviation.shape]
            if shapes != [(count, width), (width,), (width,)]:
                raise ValueError("shapes")
            if made.kind_offsets.shape != (count,) or made.level_offsets.shape != (count,):
                raise ValueError("shapes")
            if not all((np.abs(value) <= LARGEST).all() for value in vars(made).values() if not isinstance(value, str)):
                raise ValueError("NaN, infinity or a number that is too large")
            if (made.deviation < LEAST_DEVIATION / 2).any() or made.most <= 0:
                raise ValueError("a deviation of 0")
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file of distortions; take the one beside the model.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cut off, damaged, or no file of distortions; copy it again.") from error
        return made


def fit_why(
    rows: Rows,
    contents: Float[np.ndarray, "m d"],
    *,
    shrinkage: float = 0.007,
    share: float = 0.5,
    penalty: float = 0.03,
    natural_penalty: float = 3.0,
    model_hash: str = "",
) -> Why:
    """`contents`: features of photographs as people take them, whose distortions nobody knows.

    `share` of the covariance is theirs, the rest the rows' own about their kinds. `shrinkage`: of its mean variance, added to
    each. `penalty`: of the levels' ridges on each feature alike, `natural_penalty`: along what `contents` differ by, both
    shares of the rows' mean variance. Deterministic; a minute for 3,000 features. Raises UserError for fewer than FOLDS
    photographs.
    """
    if rows.photographs.max() + 1 < FOLDS:
        raise UserError(f"why: {rows.photographs.max() + 1} photographs; at least {FOLDS} are needed.")
    contents = np.asarray(contents, np.float64)
    centre, deviation = contents.mean(axis=0), np.maximum(contents.std(axis=0), LEAST_DEVIATION)
    z, natural = (standard(part, centre, deviation, FARTHEST) for part in (rows.features, contents))
    natural = natural - natural.mean(axis=0)
    around = natural.T @ natural
    around /= max(np.trace(around) / len(around), LEAST_DEVIATION)
    directions, offsets = _discriminants(z, rows.kinds, around, shrinkage, share)
    factor = _calibrated(z, rows, around, shrinkage, share)
    levels, level_offsets = _levels(z, rows, penalty * np.eye(len(around)) + natural_penalty * around)
    arrays: list[Any] = [
        np.asarray(part, np.float32)
        for part in (centre, deviation, factor * directions, factor * offsets, levels, level_offsets)
    ]
    return Why(*[*arrays, float(rows.levels.max()), model_hash])


def _discriminants(
    z: Float[np.ndarray, "n d"],
    kinds: Int[np.ndarray, " n"],
    around: Float[np.ndarray, "d d"],
    shrinkage: float,
    share: float,
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """Discriminants of equal priors."""
    from scipy import linalg  # fitting needs it, scoring need not wait for it

    means = np.stack([z[kinds == kind].mean(axis=0) for kind in range(kinds.max() + 1)])
    off = z - means[kinds]
    inside = off.T @ off / len(z)
    scale = np.trace(inside) / len(inside)
    pooled = (1 - share) * inside + share * scale * around
    pooled[np.diag_indices_from(pooled)] += shrinkage * scale
    directions = linalg.solve(pooled, means.T, assume_a="pos", overwrite_a=True).T
    return directions, -0.5 * np.sum(directions * means, axis=1)


def _calibrated(
    z: Float[np.ndarray, "n d"], rows: Rows, around: Float[np.ndarray, "d d"], shrinkage: float, share: float
) -> float:
    """The factor on discriminants under which photographs left out are likeliest."""
    order = np.random.default_rng(0).permutation(rows.photographs.max() + 1)
    held = order[rows.photographs] % FOLDS == 0
    if len(np.unique(rows.kinds[~held])) < rows.kinds.max() + 1:
        raise UserError("why: a kind is shown by too few photographs; each needs several.")
    directions, offsets = _discriminants(z[~held], rows.kinds[~held], around, shrinkage, share)
    found = z[held] @ directions.T + offsets
    of_row = np.arange(held.sum()), rows.kinds[held]
    likelihood = [special.log_softmax(factor * found, axis=1)[of_row].mean() for factor in FACTORS]
    return float(FACTORS[int(np.argmax(likelihood))])


def _levels(
    z: Float[np.ndarray, "n d"], rows: Rows, penalty: Float[np.ndarray, "d d"]
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """`penalty`: in the rows' mean variance."""
    from scipy import linalg  # fitting needs it, scoring need not wait for it

    directions, offsets = np.zeros((rows.kinds.max() + 1, z.shape[1])), np.zeros(rows.kinds.max() + 1)
    for kind in range(1, len(offsets)):
        own = (rows.kinds == kind) | (rows.kinds == NONE)
        x, y = z[own] - z[own].mean(axis=0), rows.levels[own]
        gram = x.T @ x
        gram += np.trace(gram) / len(gram) * penalty
        directions[kind] = linalg.solve(gram, x.T @ (y - y.mean()), assume_a="pos", overwrite_a=True)
        offsets[kind] = y.mean() - directions[kind] @ z[own].mean(axis=0)
    return directions, offsets
