"""An evaluation as one page that needs nothing else: no network, no scripts, pictures inside."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float
from PIL import Image

from contrique_jax.data.decode import read
from contrique_jax.data.iqa_sets import ScoredImages
from contrique_jax.errors import BrokenImage
from contrique_jax.evaluation.comparison import ModelComparison, ModelResult, typical_split
from contrique_jax.evaluation.crossing import CrossModelResult
from contrique_jax.evaluation.intervals import Interval
from contrique_jax.evaluation.learning_curve import LearningCurve
from contrique_jax.evaluation.logistic import fit_curve
from contrique_jax.evaluation.plots import drawn, feature_map, learning_curves, residual_boxes, scatter
from contrique_jax.evaluation.report_style import stylesheet
from contrique_jax.evaluation.report_tables import (
    certainty,
    comparisons,
    correlations,
    crossed_sets,
    how_judged,
    notes_of,
    text,
    which_controls,
)
from contrique_jax.evaluation.tables import ENOUGH, labels_enough, summary
from contrique_jax.io.outputs import atomic_write

SHOWN = 6  # pictures at each end
PICTURE_SIDE, PICTURE_QUALITY = 220, 75


@dataclass(frozen=True)
class Findings:
    """Everything the page tells; the first model is the network that was asked about."""

    images: ScoredImages
    models: Sequence[ModelResult]
    intervals: Mapping[str, Mapping[str, Interval]]  # of each model's medians
    compared: Sequence[ModelComparison]
    crossed: Sequence[CrossModelResult]
    about: Mapping[str, Any]
    config: Mapping[str, Any]


def write_report(path: Path, findings: Findings) -> None:
    """The page, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(page(findings), encoding="utf-8")


def page(findings: Findings) -> str:
    """The page as HTML. The same findings give the same bytes."""
    images, model, about = findings.images, findings.models[0], findings.about
    shown = typical_split(model)
    tested, predictions = images.subset(list(shown.split.test)), shown.predictions
    curve = fit_curve(predictions, tested.scores, model.evaluation.logistic)
    judged = curve(predictions)
    residuals = tested.scores - judged
    srocc = summary(model.evaluation)["srocc"]["median"]
    found = "not defined" if srocc is None else f"{srocc:.3f}"
    direction = "higher is better" if images.higher_is_better else "lower is better"
    name = images.score_column
    curves = {one.name: one.curve for one in findings.models if one.curve is not None}
    sections = [
        f"<h1>{text(images.name)}: SROCC {found}</h1>",
        f"<p>{text(model.name)} (model {model.model_hash}), {about['mode']}: {how_judged(model, about['mode'])} "
        f"{about['images']}{_of_whole(about)} images ({about['images_left_out']} left out as unreadable) in "
        f"{about['groups']} groups, {text(about['split_source'])}; {text(name)} "
        f"{about['score_range'][0]:g} to {about['score_range'][1]:g}, {direction}.</p>",
        "<h2>Correlations on test</h2>",
        "<p class='soft'>Medians over the splits, with standard deviation and range. PLCC and RMSE after a logistic fit with "
        f"{model.evaluation.logistic} parameters, but for the mean, which is taken as it is."
        f"{which_controls(findings.models, about['mode'])}</p>",
        correlations(findings.models),
        notes_of(findings.models),
        "<h2>How sure that is</h2>",
        "<p class='soft'>The medians with 95 % bootstrap intervals, images (their groups) resampled; how many test scores lie "
        "inside their 90 % intervals (median over the splits), and in the subset in which the fewest do; the deviation of a "
        "held-out score from its prediction, before any logistic.</p>",
        certainty(findings.models, findings.intervals),
        comparisons(findings.compared),
        crossed_sets(findings.crossed, images.name),
        "<div class='pair'>",
        _figure(
            "Predictions",
            scatter(predictions, tested.scores, tested.subsets, curve, name),
            f"Of {len(model.evaluation.results)} split(s) the one whose SROCC, {shown.pooled.srocc:.3f}, is nearest the "
            f"median: {len(predictions)} test images, {len(drawn(len(predictions)))} drawn; the line is the logistic curve"
            + (f" ({text(curve.note)})" if curve.note else "")
            + ". Far predictions lie on the edge.",
        ),
        _figure(
            "Residuals by subset",
            residual_boxes(residuals, tested.subsets, name),
            "Box: middle half and median; whiskers: 5th to 95th percentile. A box off the dashed line is a subset that is "
            "judged too low (right) or too high (left).",
        ),
        _learning(curves),
        _map(model, images),
        "</div>",
        _pictures(tested, judged),
        "<h2>To do it again</h2>",
        f"<p>Splits <code>{about['splits_hash']}</code>, configuration <code>{about['config_hash']}</code>, model "
        f"<code>{model.model_hash}</code>.</p>",
        f"<pre>{text(json.dumps(dict(findings.config), indent=1, default=str))}</pre>",
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{text(images.name)}: SROCC {found}</title><style>{stylesheet()}</style></head><body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _of_whole(about: Mapping[str, Any]) -> str:
    whole = about.get("full_size")
    return f" of the data set's {whole:,}" if whole and about["images"] < whole else ""


def _figure(title: str, plot: str, caption: str) -> str:
    return f"<figure><h2>{title}</h2>{plot}<figcaption>{caption}</figcaption></figure>"


def _learning(curves: Mapping[str, LearningCurve]) -> str:
    if not curves:
        return ""
    caption = "Median over splits and draws, the middle half shaded; each fit chooses its alpha among its own images."
    enough = {name: labels_enough(curve) for name, curve in curves.items()}
    listed = ", ".join(f"{text(name)} {count:,}" for name, count in enough.items() if count is not None)
    if listed:
        caption += f" Labels that reach {ENOUGH:.0%} of the end: {listed}."
    return _figure("Learning curve", learning_curves(curves), caption)


def _map(model: ModelResult, images: ScoredImages) -> str:
    assert model.features is not None
    if model.gives_scores:  # one number has no plane
        return ""
    rows = drawn(len(images))
    places, shares = principal_plane(model.features[rows])
    caption = f"The features' first two principal components, which hold {100 * sum(shares):.0f} % of their variance."
    return _figure("Features", feature_map(places, images.scores[rows], images.score_column), caption)


def principal_plane(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, "n 2"], tuple[float, float]]:
    """Coordinates along the two directions of most variance, and the share of the variance that each holds."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=[max(len(gram) - 2, 0), len(gram) - 1])
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    places = vectors * np.sqrt(values) if len(x) <= x.shape[1] else x @ vectors
    places = places * np.where(np.abs(places).max(axis=0) == places.max(axis=0), 1, -1)  # one sign on every machine
    total = max(float(np.trace(gram)), 1e-300)
    if places.shape[1] < 2:
        return np.pad(places, ((0, 0), (0, 1))), (float(values[0]) / total, 0.0)
    return places, (float(values[0]) / total, float(values[1]) / total)


def _pictures(tested: ScoredImages, judged: Float[np.ndarray, " n"]) -> str:
    """`judged`: predictions after the curve, in the scores' units."""
    order = np.argsort(np.abs(tested.scores - judged), kind="stable")
    count = min(SHOWN, len(order) // 2)
    out = []
    for title, rows in (("Worst predictions", order[::-1][:count]), ("Best predictions", order[:count])):
        shown = "".join(
            f"<figure>{_picture(tested.paths[i])}<figcaption>{text(tested.score_column)} {tested.scores[i]:.3g}, predicted "
            f"{judged[i]:.3g}<br>{text(tested.paths[i].name)}</figcaption></figure>"
            for i in rows
        )
        out.append(f"<h2>{title}</h2><div class='pictures'>{shown}</div>")
    return "".join(out) + "<p class='soft'>Predictions here are those of the logistic curve.</p>"


def _picture(path: Path) -> str:
    try:
        image = Image.fromarray(read(path))
    except BrokenImage as error:  # it was readable when its features were computed
        return f"<p class='soft'>{text(error.why)}</p>"
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=PICTURE_QUALITY)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(path.name, quote=True)}" src="data:image/jpeg;base64,{data}">'
