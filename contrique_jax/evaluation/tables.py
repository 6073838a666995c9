"""An evaluation as a table to read and as numbers to keep."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from contrique_jax.errors import printable
from contrique_jax.evaluation.comparison import ModelComparison, ModelResult
from contrique_jax.evaluation.correlation import Correlations
from contrique_jax.evaluation.crossing import CrossModelResult
from contrique_jax.evaluation.intervals import Interval
from contrique_jax.evaluation.learning_curve import LearningCurve
from contrique_jax.evaluation.protocol import Evaluation

METRICS = ("srocc", "plcc", "rmse")
KEPT = ("srocc", "plcc", "krocc", "rmse", "outlier_ratio")
SPREAD: dict[str, Callable[..., Any]] = {"median": np.median, "std": np.std, "min": np.min, "max": np.max}
NAMED = 5  # subsets in a note
ENOUGH = 0.95  # of the SROCC that all labels give


def summary(evaluation: Evaluation, subset: str | None = None) -> dict[str, dict[str, float | None]]:
    """Median and spread over the splits of every number; a split in which it is not defined does not count."""
    out = {}
    for metric in KEPT:
        values = evaluation.values(metric, subset)
        values = values[~np.isnan(values)]
        parts: dict[str, float | None] = dict.fromkeys(SPREAD)
        if len(values):
            parts = {name: float(part(values)) for name, part in SPREAD.items()}
        out[metric] = parts
    return out


def subset_names(evaluation: Evaluation) -> list[str]:
    return list(evaluation.results[0].subsets)


def as_json(model: ModelResult, intervals: Mapping[str, Interval] | None = None) -> dict[str, Any]:
    """A model as what goes into R.json; `intervals` of its medians."""
    evaluation, pooled = model.evaluation, summary(model.evaluation)
    return {
        **{metric: pooled[metric]["median"] for metric in METRICS},
        "model_hash": model.model_hash,
        "alpha": _plain(evaluation.alpha),
        "alpha_chosen_by": evaluation.chosen_by,
        "validation_srocc": _plain(evaluation.validation_srocc),
        "deviation": evaluation.deviation,
        "coverage_90": float(np.median(evaluation.coverages)),
        "alpha_note": evaluation.note,
        "outlier_rule": evaluation.results[0].pooled.outlier_rule,
        "coverage_90_of_subsets": subset_coverages(evaluation),
        "intervals": {metric: _interval(found) for metric, found in (intervals or {}).items()},
        "spread": pooled,
        "subsets": {name: summary(evaluation, name) for name in subset_names(evaluation)},
        "learning_curve": None if model.curve is None else _curve(model.curve),
        "splits": [
            {
                **_numbers(result.pooled),
                "train": len(result.split.train),
                "validation": len(result.split.validation),
                "test": len(result.split.test),
                "coverage_90": result.coverage,
                "predictions": [float(value) for value in result.predictions],  # in the order of the split's test side
                "subsets": {name: _numbers(values) for name, values in result.subsets.items()},
            }
            for result in evaluation.results
        ],
    }


def subset_coverages(evaluation: Evaluation) -> dict[str, float]:
    """Median over the splits of the share of each subset's test scores inside their 90 % interval."""
    of_splits = [result.subset_coverages for result in evaluation.results]
    names = sorted({name for one in of_splits for name in one})
    return {name: float(np.median([one[name] for one in of_splits if name in one])) for name in names}


def interval_text(found: Interval) -> str:
    """A number and its interval, or why it has none."""
    value = "not defined" if math.isnan(found.value) else f"{found.value:.3f}"
    if math.isnan(found.low):
        return f"{value} ({found.note})" if found.note else value
    return f"{value} [{found.low:.3f}, {found.high:.3f}]"


def comparison_json(found: ModelComparison) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(found).items()}


def cross_json(found: CrossModelResult) -> dict[str, Any]:
    numbers = {"images": found.images, "alpha": found.result.alpha, "srocc_interval": _interval(found.interval)}
    numbers["subsets"] = {name: _numbers(values) for name, values in found.subsets.items()}
    return {"model": found.name, "data_set": found.data_set, **_numbers(found.result.correlations), **numbers}


def _curve(curve: LearningCurve) -> list[dict[str, Any]]:
    fits = zip(curve.sizes, curve.medians, curve.sroccs, strict=True)
    return [
        {"images": size, "srocc": _plain(median), "fits": [_plain(value) for value in values]}
        for size, median, values in fits
    ]


def _interval(found: Interval) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(found).items()}


def _numbers(values: Correlations) -> dict[str, Any]:
    out: dict[str, Any] = {name: _plain(getattr(values, name)) for name in KEPT}
    return {**out, "notes": list(values.notes)} if values.notes else out


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def table(models: Sequence[ModelResult]) -> str:
    """Medians, standard deviations and ranges over the splits, a line a model and subset."""
    lines = [["", "", *(f"{metric.upper()} median ± std (min..max)" for metric in METRICS)]]
    for model in models:
        for subset in [None, *subset_names(model.evaluation)]:
            numbers = summary(model.evaluation, subset)
            cells = [cell(numbers[metric]) for metric in METRICS]
            lines.append(["" if subset else model.name, subset or "all", *cells])
    return _aligned(lines)


def cell(value: Mapping[str, float | None]) -> str:
    """Median, standard deviation and range of one number; the number alone if there is one split."""
    if value["median"] is None:
        return "not defined"
    shown = "{median:.4f}" if value["min"] == value["max"] else "{median:.4f} ± {std:.4f} ({min:.4f}..{max:.4f})"
    return shown.format(**value)


def comparison_line(found: ModelComparison) -> str:
    """One comparison in a line."""
    line = f"{found.first} less {found.second}: SROCC {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    if found.p is not None:
        line += f", p = {found.p:.2g}, higher in {found.wins} of {found.splits} splits"
    return line + (f" ({found.note})" if found.note else "")


def curve_line(model: ModelResult) -> str:
    """A learning curve in one line, and the fewest labels from which on it is within 5 % of its end."""
    if model.curve is None:
        return ""
    points = ", ".join(f"{n}: {value:.3f}" for n, value in zip(model.curve.sizes, model.curve.medians, strict=True))
    enough = labels_enough(model.curve)
    reached = "" if enough is None else f"; {enough} reach {ENOUGH:.0%} of the last"
    return f"{model.name}, SROCC by labelled images: {points}{reached}"


def labels_enough(curve: LearningCurve) -> int | None:
    """The fewest labels from which on the median SROCC is within 5 % of the curve's end; None if it ends at 0 or less."""
    sizes, medians = curve.sizes, curve.medians
    if not medians[-1] > 0:
        return None
    return next(n for i, n in enumerate(sizes) if (medians[i:] >= ENOUGH * medians[-1]).all())


def cross_table(found: Sequence[CrossModelResult]) -> str:
    """Cross-data-set results, a line a model, data set and subset."""
    lines = [["tested on", "", "", "SROCC [95 % interval]", "PLCC", "RMSE"]]
    for one in found:
        whole, where = one.result.correlations, f"{one.data_set} ({one.images} images)"
        lines.append([where, one.name, "all", interval_text(one.interval), f"{whole.plcc:.4f}", f"{whole.rmse:.4f}"])
        for name, part in one.subsets.items():
            lines.append(["", "", name, f"{part.srocc:.3f}", f"{part.plcc:.4f}", f"{part.rmse:.4f}"])
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    lines = [[printable(cell) for cell in line] for line in lines]  # names come from a user's table
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def notes(evaluation: Evaluation) -> list[str]:
    """What was not defined or fell back, each with where and how often."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for result in evaluation.results:
        for subset, values in [("all", result.pooled), *result.subsets.items()]:
            for note in values.notes:
                counted[note][subset] += 1
    said = [f"note: {evaluation.note}"] if evaluation.note else []
    for note, places in counted.items():
        names = ", ".join(list(places)[:NAMED]) + (f" and {len(places) - NAMED} more" if len(places) > NAMED else "")
        often = f"in up to {max(places.values())} of {len(evaluation.results)} splits"
        said.append(printable(f"note: {names}: {note} ({often})"))
    return said
