"""The demo's picture: order, where, why, and what training adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from contrique_jax.inference.scores import Reason

BLUE, SAND, GREY, LIGHT = "#1f5f8b", "#e0a458", "#9aa5ad", "#c9d6e3"


class Graded(NamedTuple):
    """A scene under a fault, and what the model says of it."""

    image: UInt8[np.ndarray, "h w 3"]
    fault: str
    grade: int  # 0 none .. 5
    score: float
    reasons: list[Reason]


class Local(NamedTuple):
    """A scene with a fault in one half, and the model's map of it."""

    image: UInt8[np.ndarray, "h w 3"]
    fault: str
    map: Float[np.ndarray, "g g"]
    overlay: UInt8[np.ndarray, "h w 3"]
    found: bool  # whether the worst window is in that half


def draw(
    path: Path,
    ordered: Sequence[Graded],
    maps: Sequence[Local],
    losses: list[float],
    numbers: dict[str, dict[str, float]],
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure: Any = plt.figure(figsize=(14, 14), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.15, 0.8, 0.85])
    top.suptitle("Scored by the model inside the package: 0 to 100, higher is better", fontsize=13)
    for axes, one in zip(top.subplots(-(-len(ordered) // 6), 6).flat, ordered, strict=False):
        _image(axes, one.image)
        axes.set_title(f"{one.score:.0f}", fontsize=12, pad=3)
        axes.set_xlabel(f"{one.fault}, level {one.grade}" if one.grade else "untouched", fontsize=9, labelpad=2)

    where, why = middle.subfigures(1, 2, width_ratios=[1.1, 1])
    where.suptitle("Where: red is worse than the image's mean", fontsize=13)
    for pair, place in zip(where.subplots(len(maps), 2), maps, strict=True):
        for axes, image in zip(pair, (place.image, place.overlay), strict=True):
            _image(axes, image)
        pair[0].set_ylabel(f"{place.fault}\nin one half", fontsize=9)
    _reasons(why, [one for one in ordered if one.grade == 5])

    curve, *bars = bottom.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1.2, 1.2]})
    curve.plot(np.arange(1, len(losses) + 1), losses, color=LIGHT, linewidth=1)
    window = max(len(losses) // 20, 1)
    smooth = np.convolve(losses, np.ones(window) / window, "valid")
    curve.plot(np.arange(window, len(losses) + 1), smooth, color=BLUE, linewidth=2)
    curve.set_title("A head in training: contrastive loss")
    curve.set_xlabel("step")
    names = list(numbers)
    for axes, (key, title) in zip(
        bars, (("severity", "Severity within a kind, SROCC"), ("kind", "Kind named right, of 25")), strict=True
    ):
        values = [numbers[name][key] for name in names]
        drawn = axes.barh(names, values, color=[BLUE, SAND, GREY, GREY])
        axes.bar_label(drawn, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(f"{title}: unseen scenes")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _image(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _reasons(panel: Any, shown: Sequence[Graded]) -> None:
    """The likeliest distortions of each image, as bars."""
    panel.suptitle("Why: the likeliest distortions of images at level 5", fontsize=13)
    for axes, one in zip(panel.subplots(len(shown), 1, sharex=True), shown, strict=True):
        likely = one.reasons[:3]
        places = np.arange(len(likely))
        axes.barh(places, [reason.probability for reason in likely], color=BLUE, height=0.7)
        for place, reason in zip(places, likely, strict=True):
            axes.text(reason.probability + 0.01, place, str(reason), va="center", fontsize=8)
        axes.set_yticks([])
        axes.set_ylim(2.6, -0.6)
        axes.set_xlim(0, 1.5)
        axes.set_xticks([0, 0.5, 1])
        axes.set_ylabel(one.fault, rotation=0, ha="right", va="center")
