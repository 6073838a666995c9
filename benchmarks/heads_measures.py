"""What heads.py and encoders.py measure of features: opinions with all labels and few, severity and type of distortions.

Ridges by Cholesky at seven penalties, which cost a fraction of the hundred of `contrique-jax evaluate`; the splits are its.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from head import standard

from contrique_jax.demo_unseen import Unseen, by_split
from contrique_jax.evaluation.correlation import plcc, srocc
from contrique_jax.evaluation.protocol import Split, make_splits
from contrique_jax.evaluation.splits import Rows

LABELS = (50, 200, 1000)
COLUMNS = ("SROCC", "PLCC", *(f"{n} labels" for n in LABELS), "severity", "type")
PENALTIES = np.geomspace(1e-2, 10, 7)  # of the mean square of a centred row
SPLITS = 10


def measures(
    opinions: np.ndarray, scores: np.ndarray, groups: Sequence[str], distorted: np.ndarray, told: Unseen, seed: int
) -> list[float]:
    """In the order of COLUMNS: medians over ten grouped splits, then means over ten splits by photograph."""
    return over_splits(split_by_split(opinions, scores, groups, distorted, told, seed))


def over_splits(found: np.ndarray) -> list[float]:
    """Medians of what `split_by_split` gives of opinions, means of severity and type."""
    return [*np.median(found[:, :-2], axis=0).tolist(), *found[:, -2:].mean(axis=0).tolist()]


def split_by_split(
    opinions: np.ndarray, scores: np.ndarray, groups: Sequence[str], distorted: np.ndarray, told: Unseen, seed: int
) -> np.ndarray:
    """The same of each split: [SPLITS, COLUMNS]."""
    x, found = standard(opinions).astype(np.float64), []
    gram = x @ x.T
    for number, split in enumerate(make_splits(groups, SPLITS, seed)):
        found.append([*_with_all(gram, scores, split), *_with_few(gram, scores, split, [seed, number])])
    return np.hstack([found, by_split(standard(distorted), told, SPLITS, seed)])


def _with_all(gram: np.ndarray, scores: np.ndarray, split: Split) -> tuple[float, float]:
    """SROCC and PLCC on the test side; the penalty is that of the highest SROCC on the validation side."""
    every, _ = ridges(gram, scores, split.train)
    best = max(every, key=lambda p: srocc(p[split.validation], scores[split.validation]))
    return srocc(best[split.test], scores[split.test]), plcc(best[split.test], scores[split.test])


def _with_few(gram: np.ndarray, scores: np.ndarray, split: Split, seed: list[int]) -> list[float]:
    """SROCC on the test side; the penalty is that of the least squared error of the labelled ones, each left out."""
    order = np.random.default_rng(seed).permutation(np.concatenate([split.train, split.validation]))
    found = []
    for n in LABELS:
        every, left_out = ridges(gram, scores, order[:n], leave_one_out=True)
        best = every[np.argmin([np.mean((p - scores[order[:n]]) ** 2) for p in left_out])]
        found.append(srocc(best[split.test], scores[split.test]))
    return found


def ridges(
    gram: np.ndarray, scores: np.ndarray, fit: Rows, leave_one_out: bool = False
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each penalty the predictions of all rows, fitted on the rows `fit`, and of those rows each without itself."""
    block, y = gram[:, fit], scores[fit] - scores[fit].mean()
    means = block.mean(axis=1)
    centred = block - means[:, None] - means[fit] + means[fit].mean()
    inner, every, left_out = centred[fit], [], []
    for penalty in PENALTIES * np.trace(inner) / len(fit):
        factor = scipy.linalg.cho_factor(inner + penalty * np.eye(len(fit)), lower=True)
        dual = scipy.linalg.cho_solve(factor, y)
        every.append(scores[fit].mean() + centred @ dual)
        if leave_one_out:
            inverse, _ = scipy.linalg.lapack.dpotri(factor[0], lower=True)
            left_out.append(scores[fit] - dual / (np.diag(inverse) - 1 / (len(fit) * penalty)))
    return every, left_out
