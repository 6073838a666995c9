"""Learning curves: SROCC by the number of labelled images that a probe is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import UserError
from contrique_jax.evaluation.correlation import srocc
from contrique_jax.evaluation.protocol import ALPHAS, best_alpha, check_scores
from contrique_jax.evaluation.splits import Rows, Split, check_splits
from contrique_jax.probe.ridge import held_out_paths

SMALLEST = 10
# Predictions of one call for every alpha and image: fits are made in portions of about this many numbers.
PORTION = 50_000_000


@dataclass(frozen=True)
class LearningCurve:
    """SROCC on the test sides by number of labelled images, an array [splits x repeats] a size; NaN: not defined."""

    sizes: list[int]  # the last: all images that are not tested, rounded mean over the splits
    sroccs: list[Float[np.ndarray, " fits"]]  # a split's repeats beside each other; the last has one a split

    @property
    def medians(self) -> Float[np.ndarray, " sizes"]:
        return np.array([np.nanmedian(v) if not np.isnan(v).all() else np.nan for v in self.sroccs])


def learning_curve(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    splits: Sequence[Split],
    groups: Sequence[str] | None = None,
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 3,
    seed: int = 0,
    alphas: Float[np.ndarray, " a"] = ALPHAS,
) -> LearningCurve:
    """SROCC on each split's test side for ridges on 10, 20, 50, 100, ... of its other images, and on all of them.

    A repeat draws one order of the images and takes its first ones, so that smaller sets are inside larger ones. Each
    fit chooses its own alpha among its own images, by the squared error of images left out with their group. Raises
    UserError for sizes under 10 or beyond what a split has, and as `evaluate_features` does.
    """
    check_scores(features, scores, groups)
    check_splits(splits, len(scores))
    names = np.arange(len(scores)) if groups is None else np.asarray(groups, str)
    pools = [np.concatenate([split.train, split.validation]) for split in splits]
    most = min(map(len, pools))
    if sizes is None:
        sizes = [step * 10**power for power in range(1, 8) for step in (1, 2, 5) if step * 10**power < most]
    sizes = sorted(set(sizes))
    if repeats < 1 or any(not SMALLEST <= size <= most for size in sizes):
        raise UserError(
            f"learning curve: sizes go from {SMALLEST} to {most}, with at least 1 repeat; got {list(sizes)}."
        )
    orders = [
        _mixed(np.random.default_rng([seed, i, k]).permutation(pool), names)
        for i, pool in enumerate(pools)
        for k in range(repeats)
    ]
    tests = [split.test for split in splits for _ in range(repeats)]
    sroccs = [_test_sroccs(features, scores, [o[:size] for o in orders], tests, groups, alphas) for size in sizes]
    sroccs.append(_test_sroccs(features, scores, pools, [split.test for split in splits], groups, alphas))
    return LearningCurve([*sizes, round(float(np.mean([len(pool) for pool in pools])))], sroccs)


def _mixed(order: Rows, names: np.ndarray) -> Rows:
    """The order with its first image of a second group in second place, so that a group can always be left out."""
    other = int(np.argmax(names[order] != names[order[0]]))
    return np.concatenate([order[:1], order[other : other + 1], np.delete(order, [0, other])])


def _test_sroccs(
    features: Float[np.ndarray, "n d"],
    scores: Float[np.ndarray, " n"],
    fits: Sequence[Rows],
    tests: Sequence[Rows],
    groups: Sequence[str] | None,
    alphas: Float[np.ndarray, " a"],
) -> Float[np.ndarray, " fits"]:
    found = []
    portion = max(PORTION // (len(alphas) * len(scores)), 1)
    for start in range(0, len(fits), portion):
        part = slice(start, start + portion)
        by_alpha, _ = held_out_paths(features, scores, fits[part], alphas, groups)
        for i, (rows, test) in enumerate(zip(fits[part], tests[part], strict=True)):
            best = best_alpha(by_alpha[i : i + 1], scores, [rows])
            found.append(srocc(by_alpha[i, best, test], scores[test]))
    return np.array(found)
