"""Where an image is worse than elsewhere: what faults of each family take from the score of a window.

One direction in the features cannot tell: what blur takes from a window, noise adds, and a sharp subject differs more
from the sky behind it than either. So each family of distortions has a direction of its own, along which undistorted windows of
one photograph hardly differ and distorted ones lose as much as the image's probe would take off (a matched filter). A
window's loss is its worst family's, each beside the median window of its image: what is everywhere is in the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from contrique_jax.errors import UserError
from contrique_jax.io.npz import read_npz
from contrique_jax.io.outputs import write_npz

FORMAT_VERSION = 1
# types of the bank, by what a person would call the fault; exposure and contrast are no faults of a part
FAMILIES = {
    "blur": (1, 2, 3),
    "compression": (9, 10),
    "noise": (11, 12, 13, 14, 15),
    "blocks and jitter": (19, 20, 21, 23),
    "colour": (4, 5, 6, 7, 8, 22),
}
LARGEST = 1e12  # of a file's numbers, whose products are float32


@dataclass(frozen=True)
class Faults:
    """A direction a family, in units of the probe's scores."""

    directions: Float[np.ndarray, "k d"]  # float32
    model_hash: str  # of the encoder whose features it reads

    def losses(self, windows: Float[np.ndarray, "g g d"], higher_is_better: bool = True) -> Float[np.ndarray, "g g"]:
        """What each window is worse by than the image's median one, in the scores' units: most at its worst family."""
        found = np.asarray(windows, np.float32).reshape(-1, windows.shape[-1]) @ self.directions.T
        found -= np.median(found, axis=0)
        worst = found.min(axis=1) if higher_is_better else found.max(axis=1)
        return worst.reshape(windows.shape[:2])

    def save(self, path: str | Path) -> None:
        """Writes the `.npz`, whole or not at all; no pickles."""
        arrays = {name: np.asarray(value) for name, value in vars(self).items()}
        write_npz(Path(path), format_version=np.asarray(FORMAT_VERSION), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Faults:
        """Raises UserError for a file that is missing, cut off, of another kind or version, or holds NaN."""
        path = Path(path).expanduser()
        try:
            fields = read_npz(path)
            if fields.pop("format_version") != FORMAT_VERSION:
                raise UserError(f"{path}: made by another version; update the program, or fit it again.")
            directions, model_hash = fields.pop("directions"), str(fields.pop("model_hash").item())
            if fields or directions.dtype.kind != "f" or directions.ndim != 2 or not len(directions):
                raise ValueError("other arrays")
            if not (np.abs(directions) <= LARGEST).all():
                raise ValueError("NaN, infinity or a number that is too large")
            return cls(directions.astype(np.float32), model_hash)
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file of faults; take the one beside the model.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cut off, damaged, or no file of faults; copy it again.") from error


def fit_faults(
    undistorted: Float[np.ndarray, "m d"],
    changes: Float[np.ndarray, "n d"],
    types: Int[np.ndarray, " n"],
    levels: Int[np.ndarray, " n"],
    coefficients: Float[np.ndarray, " d"],
    *,
    weight: float = 10.0,
    penalty: float = 8.0,
    model_hash: str = "",
) -> Faults:
    """`undistorted`: windows less the mean window of their photograph; `changes`: distorted windows less the same
    undistorted ones, with type (1..25) and level; `coefficients`: the image's probe, by which a family's mean change is scaled.

    A direction is the ridge that gives each change its level and each undistorted window 0, these `weight` times in the sum;
    `penalty` times the mean variance is added to each. Raises UserError for a family without a row, or one whose changes the
    probe does not notice.
    """
    deviation = undistorted.std(axis=0) + 1e-6
    alike, changed = undistorted / deviation, changes / deviation
    around = weight * (alike.T @ alike) / len(alike)
    around[np.diag_indices_from(around)] += penalty * np.trace(around) / weight / len(around)
    from scipy import linalg  # fitting needs it, scoring need not wait for it

    directions = []
    for name, members in FAMILIES.items():
        own = np.isin(types, members)
        if not own.any():
            raise UserError(f"faults: no window shows {name}; draw more distortions.")
        rows = changed[own]
        system, right = around + rows.T @ rows / len(rows), rows.T @ levels[own].astype(rows.dtype) / len(rows)
        direction = linalg.solve(system, right, assume_a="pos", overwrite_a=True) / deviation
        seen, wanted = (changes[own] @ direction).mean(), (changes[own] @ coefficients).mean()
        if abs(wanted) < 1e-9:
            raise UserError(f"faults: the probe does not notice {name}; fit it on more opinions.")
        directions.append(direction * wanted / seen)
    return Faults(np.asarray(directions, np.float32), model_hash)
