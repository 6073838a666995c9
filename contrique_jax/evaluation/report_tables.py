"""What a report says in sentences and tables, as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from contrique_jax.evaluation.comparison import ModelComparison, ModelResult
from contrique_jax.evaluation.contenders import RANDOM, STATISTICS
from contrique_jax.evaluation.crossing import CrossModelResult
from contrique_jax.evaluation.intervals import Interval
from contrique_jax.evaluation.tables import METRICS, interval_text, notes, subset_coverages, subset_names, summary


def text(value: object) -> str:
    """Anything as text of a page."""
    return html.escape(str(value))


def how_judged(model: ModelResult, mode: str) -> str:
    """How its opinions were had of a model, as a sentence."""
    if model.gives_scores:
        beside = " of each image beside its reference" if mode == "full-reference" else ""
        return (
            f"its own scores{beside} against opinion scores; no ridge is fitted, but a line brings them to their units."
        )
    features = "the differences of its features to the reference's" if mode == "full-reference" else "its features"
    return f"a ridge on {features} against opinion scores, alpha by {model.evaluation.chosen_by}."


def which_controls(models: Sequence[ModelResult], mode: str) -> str:
    """What stands beside the networks, if it was not left out."""
    statistics = "differences of the 36" if mode == "full-reference" else "the 36"
    said = {RANDOM: "the same network untrained", STATISTICS: f"{statistics} statistics of BRISQUE under a ridge"}
    there = [said[model.name] for model in models if model.name in said]
    return f" Controls: {', and '.join(there)}." if there else ""


def _rows(head: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]]) -> str:
    """A table that scrolls by itself if it is too wide; the first two cells of a row name it."""
    top = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    lines = []
    for first, cells in rows:
        named = "".join(f"<th scope='row'>{cell}</th>" for cell in cells[:1])
        lines.append(
            f"<tr{' class=first' if first else ''}>{named}{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"
        )
    body = "".join(lines)
    return f"<div class='wide' tabindex='0'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def correlations(models: Sequence[ModelResult]) -> str:
    metrics = (*METRICS, "krocc")
    rows = []
    for model in models:
        for subset in [None, *subset_names(model.evaluation)]:
            found = summary(model.evaluation, subset)
            name = f"{text(model.name)}" if subset is None else f"<span class='soft'>{text(subset)}</span>"
            rows.append((subset is None, [name, *(_spread(found[metric]) for metric in metrics)]))
    return _rows(["", *(metric.upper() for metric in metrics)], rows)


def _spread(value: Mapping[str, float | None]) -> str:
    if value["median"] is None:
        return "<span class='soft'>not defined</span>"
    shown = "{median:.3f} ± {std:.3f}<span class='soft'>{min:.3f} to {max:.3f}</span>"
    return ("{median:.3f}" if value["min"] == value["max"] else shown).format(**value)


def notes_of(models: Sequence[ModelResult]) -> str:
    found = [
        f"{text(model.name)}: {text(note.removeprefix('note: '))}"
        for model in models
        for note in notes(model.evaluation)
    ]
    if not found:
        return ""
    listed = "".join(f"<li>{note}</li>" for note in found)
    title = f"{len(found)} note{'s' * (len(found) > 1)} on what was not defined or fell back"
    return f"<details class='soft'><summary>{title}</summary><ul>{listed}</ul></details>"


def certainty(models: Sequence[ModelResult], intervals: Mapping[str, Mapping[str, Interval]]) -> str:
    rows = []
    for model in models:
        found, evaluation = intervals.get(model.name), model.evaluation
        if found is None:
            continue
        covered = subset_coverages(evaluation)
        least = min(covered, key=lambda name: covered[name]) if len(covered) > 1 else None
        cells = [text(model.name), *(text(interval_text(interval)) for interval in found.values())]
        cells += [
            f"{100 * np.median(evaluation.coverages):.1f} %",
            "" if least is None else f"{text(least)} {100 * covered[least]:.1f} %",
            f"{evaluation.deviation:.3g}",
            "" if model.gives_scores else f"{evaluation.alpha:.3g}",
        ]
        rows.append((True, cells))
    return _rows(["", "SROCC", "PLCC", "RMSE", "inside 90 %", "fewest in", "deviation", "alpha"], rows)


def comparisons(compared: Sequence[ModelComparison]) -> str:
    if not compared:
        return ""
    rows = []
    for found in compared:
        test = "bootstrap over one test side" if found.p is None else f"p = {found.p:.2g}"
        wins = "" if found.wins is None else f"{found.wins} of {found.splits}"
        note = text(found.note or "")
        cells = [
            f"less {text(found.second)}",
            f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
            test,
            wins,
            note,
        ]
        rows.append((True, cells))
    how = "Paired over the same splits by the corrected resampled t-test (Nadeau and Bengio 2003)."
    return (
        f"<h2>{text(compared[0].first)} less the others</h2><p class='soft'>Difference in SROCC with its 95 % interval. "
        f"{how if compared[0].p is not None else ''}</p>" + _rows(["", "difference", "test", "splits won", ""], rows)
    )


def crossed_sets(crossed: Sequence[CrossModelResult], own: str) -> str:
    rows = []
    for found in crossed:
        name = f"{text(found.data_set)} ({found.images})"
        parts = {"": found.result.correlations, **found.subsets}
        for kind, numbers in parts.items():
            named = (
                f"<span class='soft'>{text(kind)}</span>"
                if kind
                else f"{name}<div class='name'>{text(found.name)}</div>"
            )
            srocc = f"{numbers.srocc:.3f}" if kind else text(interval_text(found.interval))
            rows.append((not kind, [named, srocc, f"{numbers.plcc:.3f}", f"{numbers.rmse:.3g}"]))
    if not rows:
        return ""
    return f"<h2>Fitted on all of {text(own)}</h2>" + _rows(["tested on", "SROCC", "PLCC", "RMSE"], rows)
