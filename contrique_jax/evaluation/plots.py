"""Plots as inline SVG: no library, no network, colours from the page's style, so that they follow light and dark.

Every plot is 420 units wide, about its width on a telephone, so that its letters stay as large as the text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from contrique_jax.evaluation.learning_curve import LearningCurve

WIDTH, HEIGHT = 420.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 10.0, 44.0
COLOURS = 8  # classes c0..c7 for kinds and s0..s7 for degrees, low to high
MOST_POINTS = 4000  # drawn; more would only hide each other
LONGEST = 18  # letters of a name beside a plot

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Frame:
    """Where numbers lie on the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    height: float = HEIGHT
    left: float = LEFT
    log_x: bool = False

    def x(self, values: Values) -> Values:
        scale = np.log if self.log_x else np.asarray
        low, high = scale(self.x_range[0]), scale(self.x_range[1])
        return self.left + (scale(values) - low) / (high - low) * (WIDTH - self.left - RIGHT)

    def y(self, values: Values) -> Values:
        low, high = self.y_range
        return self.height - BOTTOM - (np.asarray(values) - low) / (high - low) * (self.height - BOTTOM - TOP)

    def points(self, x: Values, y: Values, kind: str) -> str:
        """One path of round dots: a few bytes a point."""
        places = zip(self.x(x), self.y(y), strict=True)
        return f'<path class="dots {kind}" d="{"".join(f"M{a:.1f} {b:.1f}h0" for a, b in places)}"/>'

    def line(self, x: Values, y: Values, kind: str) -> str:
        known = np.isfinite(y)
        places = zip(self.x(x[known]), self.y(y[known]), strict=True)
        return (
            f'<path class="line {kind}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in places)}"/>' if known.any() else ""
        )

    def axes(self, x_name: str, y_name: str, x_ticks: Sequence[float] | None = None) -> str:
        parts = []
        bottom = self.height - BOTTOM
        for tick in ticks(*self.x_range) if x_ticks is None else x_ticks:
            at = float(self.x(np.array(tick)))
            parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{bottom}"/>')
            parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
        for tick in ticks(*self.y_range) if y_name else []:
            at = float(self.y(np.array(tick)))
            parts.append(f'<path class="grid" d="M{self.left} {at:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{self.left - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
        middle = (self.left + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">{html.escape(x_name)}</text>')
        if y_name:
            turned = f"translate(13 {(TOP + bottom) / 2}) rotate(-90)"
            parts.append(f'<text text-anchor="middle" transform="{turned}">{html.escape(y_name)}</text>')
        return "".join(parts)

    def svg(self, title: str, *parts: str) -> str:
        name = html.escape(title, quote=True)
        size = f"0 0 {WIDTH:g} {self.height:g}"
        return f'<svg viewBox="{size}" role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers inside a range, at most `most` and at least two."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    for factor in (1, 2, 5, 10):
        first = math.ceil(low / (step * factor) - 1e-9)
        last = math.floor(high / (step * factor) + 1e-9)
        if last - first + 1 <= most:
            break
    return [float(f"{i * step * factor:.12g}") for i in range(first, last + 1)]


def widened(*values: Values) -> tuple[float, float]:
    """A range that holds all values, with a little air."""
    everything = np.concatenate([np.ravel(v) for v in values])
    everything = everything[np.isfinite(everything)]
    low, high = (float(everything.min()), float(everything.max())) if len(everything) else (0.0, 1.0)
    air = 0.04 * (high - low) or 0.5 * max(abs(low), 1.0)
    return low - air, high + air


def drawn(count: int) -> np.ndarray:
    """Rows that are drawn: all, or a fixed random choice of MOST_POINTS."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))


def scatter(
    predictions: Values, scores: Values, kinds: Sequence[str] | None, curve: Callable[[Values], Values], name: str
) -> str:
    """Scores over predictions with the fitted curve, coloured by kind if there are few."""
    rows = drawn(len(scores))
    # one far prediction must not squeeze all others: the curve and the dots are cut at the edges instead
    low, high = np.quantile(predictions, [0.002, 0.998])
    reach = 0.15 * (high - low)
    shown = np.clip(predictions, low - reach, high + reach)
    frame = Frame(widened(shown), widened(scores))
    names = sorted(set(kinds)) if kinds is not None else []
    of = np.array([names.index(kind) for kind in kinds]) if kinds is not None and 1 < len(names) <= COLOURS else None
    parts = []
    for i in range(len(names) if of is not None else 1):
        chosen = rows if of is None else rows[of[rows] == i]
        parts.append(frame.points(shown[chosen], scores[chosen], f"c{i}"))
    x = np.linspace(*frame.x_range, 80)
    y = curve(x)
    inside = (y >= frame.y_range[0]) & (y <= frame.y_range[1])
    parts.append(frame.line(x[inside], y[inside], "ink"))
    plot = frame.svg(f"{name} over predictions", frame.axes("prediction", name), *parts)
    return plot + (legend(names) if of is not None else "")


def residual_boxes(residuals: Values, kinds: Sequence[str] | None, name: str) -> str:
    """A box for each kind: quartiles and median, whiskers from the 5th to the 95th percentile."""
    kind_of = np.asarray(["all"] * len(residuals) if kinds is None else kinds, str)
    groups = {str(kind): residuals[kind_of == kind] for kind in np.unique(kind_of)}
    if kinds is not None and len(groups) > 1:
        groups = {"all": residuals, **groups}
    height = TOP + BOTTOM + 26.0 * len(groups)
    reach = max(abs(q) for values in groups.values() for q in np.quantile(values, [0.05, 0.95])) or 1.0
    frame = Frame((-1.05 * reach, 1.05 * reach), (0, 1), height=height, left=150)
    parts = [frame.axes(f"{name} less the curve", "")]
    parts.append(frame.line(np.zeros(2), np.array([0.0, 1.0]), "zero"))
    for i, (kind, values) in enumerate(groups.items()):
        middle = TOP + 26.0 * i + 13
        low, first, median, third, high = frame.x(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))
        label = html.escape(kind if len(kind) <= LONGEST else kind[: LONGEST - 1] + "…")
        parts.append(f'<text x="142" y="{middle + 4}" text-anchor="end">{label} ({len(values)})</text>')
        parts.append(
            f'<path class="line ink thin" d="M{low:.1f} {middle}H{first:.1f}M{third:.1f} {middle}H{high:.1f}"/>'
        )
        box = f'x="{first:.1f}" y="{middle - 8}" width="{third - first:.1f}" height="16"'
        parts.append(f'<rect class="box" {box}/><path class="line ink" d="M{median:.1f} {middle - 8}v16"/>')
    return frame.svg("residuals of each subset", *parts)


def learning_curves(curves: Mapping[str, LearningCurve]) -> str:
    """Median SROCC over the number of labelled images; the middle half of the fits is shaded."""
    bands = {name: [_quartiles(values) for values in curve.sroccs] for name, curve in curves.items()}
    sizes = np.array([size for curve in curves.values() for size in curve.sizes], float)
    frame = Frame(
        (sizes.min() / 1.1, sizes.max() * 1.1), widened(np.array([list(b) for b in bands.values()])), log_x=True
    )
    parts = []
    for i, (name, curve) in enumerate(curves.items()):
        x, band = np.array(curve.sizes, float), np.array(bands[name])
        known = np.isfinite(band).all(axis=1)
        x, band = x[known], band[known]
        around = zip(frame.x(np.r_[x, x[::-1]]), frame.y(np.r_[band[:, 0], band[::-1, 2]]), strict=True)
        if len(x):
            parts.append(f'<path class="band c{i % COLOURS}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in around)}Z"/>')
            parts.append(frame.line(x, band[:, 1], f"c{i % COLOURS}"))
    marks = [
        tick for tick in (10, 30, 100, 300, 1000, 3000, 10000, 30000) if frame.x_range[0] <= tick <= frame.x_range[1]
    ]
    axes = frame.axes("labelled images", "SROCC on test", x_ticks=marks)
    return frame.svg("learning curves", axes, *parts) + legend(list(curves))


def _quartiles(values: Values) -> tuple[float, float, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        return (np.nan,) * 3
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def feature_map(places: Float[np.ndarray, "n 2"], scores: Values, name: str) -> str:
    """Points in the plane, coloured by score in eight steps of equally many images."""
    edges = np.quantile(scores, np.linspace(0, 1, COLOURS + 1))
    step = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, COLOURS - 1)
    # the far ends are cut, as in the scatter
    low, high = np.quantile(places, [0.002, 0.998], axis=0)
    shown = np.clip(places, low - 0.05 * (high - low), high + 0.05 * (high - low))
    frame = Frame(widened(shown[:, 0]), widened(shown[:, 1]))
    order = np.random.default_rng(0).permutation(len(scores))  # no step lies on top of all others
    parts = []
    for part in np.array_split(order, max(len(order) // 400, 1)):
        for i in range(COLOURS):
            rows = part[step[part] == i]
            parts.append(frame.points(shown[rows, 0], shown[rows, 1], f"s{i}") if len(rows) else "")
    axes = frame.axes("first principal component", "second")
    swatches = "".join(f'<span class="swatch s{i}"></span>' for i in range(COLOURS))
    scale = f'<p class="legend">{html.escape(name)} {edges[0]:.3g} {swatches} {edges[-1]:.3g}</p>'
    return frame.svg("features in two dimensions", axes, *parts) + scale


def legend(names: Sequence[str]) -> str:
    swatches = (
        f'<span><span class="swatch c{i % COLOURS}"></span> {html.escape(name)}</span>' for i, name in enumerate(names)
    )
    return f'<p class="legend">{" ".join(swatches)}</p>'
