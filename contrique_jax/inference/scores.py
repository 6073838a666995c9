"""Scores of images one by one, how they are written, and what is said of them all."""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Float

from contrique_jax.data.image_files import list_images
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.inference.extractor import Extractor, FileFeatures
from contrique_jax.probe import FULL_REFERENCE, Probe

SHOWN = 3  # images at each end of the summary


@dataclass(frozen=True)
class Score:
    """One image: its score, or what is wrong with it."""

    path: Path
    score: float | None
    deviation: float | None = None  # standard deviation of the true score about it, where the probe knows one
    broken: BrokenImage | None = None
    reduced: bool = False


def score_files(
    extractor: Extractor, probe: Probe, paths: Iterable[Path], reference: Float[np.ndarray, " d"] | None = None
) -> Iterator[Score]:
    """Scores file by file, in order, whatever their number; `reference`: features of the pristine image, for a
    full-reference probe. Raises UserError if probe and model do not belong together."""
    check_fit(extractor, probe, reference is not None)
    for item in extractor.stream(paths):
        yield Score(item.path, *_judged(probe, item, reference), item.broken, item.reduced)


def _judged(
    probe: Probe, item: FileFeatures, reference: Float[np.ndarray, " d"] | None
) -> tuple[float | None, float | None]:
    """Score and deviation of one file."""
    if item.features is None:
        return None, None
    features = (item.features if reference is None else np.abs(reference - item.features))[None]
    deviations = probe.deviations(features)
    return float(probe.predict(features)[0]), None if deviations is None else float(deviations[0])


def check_fit(extractor: Extractor, probe: Probe, with_reference: bool) -> None:
    """Raises UserError if the probe is for another model, needs a reference or has no use for one."""
    probe.check_model(extractor.model_hash, extractor.width)
    if probe.shorter_side != extractor.shorter_side:
        raise UserError(
            f"probe: it was fitted on images with a shorter side of {probe.shorter_side or 'any length'}, and these are "
            f"read with one of {extractor.shorter_side or 'any length'}; score them with `contrique-jax score`."
        )
    if probe.feature_name == FULL_REFERENCE and not with_reference:
        raise UserError(
            "probe: it compares an image with its reference; give --reference PATH (in Python, reference=)."
        )
    if probe.feature_name != FULL_REFERENCE and with_reference:
        raise UserError(
            "reference: this probe judges an image alone; leave --reference out, or fit a probe with "
            "`contrique-jax evaluate --reference-column`."
        )


@dataclass
class Tally:
    """Counts and extremes of a stream of scores."""

    scored: int = 0
    broken: int = 0
    first_broken: BrokenImage | None = None
    reduced: list[Path] = field(default_factory=list)
    lowest: list[tuple[float, str]] = field(default_factory=list)
    highest: list[tuple[float, str]] = field(default_factory=list)

    def add(self, score: Score) -> None:
        if score.reduced:
            self.reduced.append(score.path)
        if score.score is None:
            self.broken += 1
            self.first_broken = self.first_broken or score.broken
            return
        self.scored += 1
        entry = (score.score, str(score.path))
        self.lowest = heapq.nsmallest(SHOWN, [*self.lowest, entry])
        self.highest = heapq.nlargest(SHOWN, [*self.highest, entry])

    def summary(self, probe: Probe) -> str:
        """The best and the worst images, a line each."""
        best, worst = (self.highest, self.lowest) if probe.higher_is_better else (self.lowest, self.highest)
        count = max(min(SHOWN, self.scored // 2), 1)
        lines = [f"{self.scored} images scored, {self.broken} broken; {probe.direction}"]
        for name, entries in (("best", best[:count]), ("worst", worst[:count])):
            lines += [f"  {name:<6}{score:10.4g}  {path}" for score, path in entries]
        return "\n".join(lines)


def header(probe: Probe) -> dict[str, Any]:
    """What a reader of the scores must know."""
    return {
        "direction": probe.direction,
        "range": [probe.score_low, probe.score_high],
        "data_set": probe.data_set,
        "deviation": probe.deviation,
        "model": probe.model_hash or None,
    }


class Writer:
    """Lines of scores, csv or JSON; the header first."""

    def __init__(self, stream: TextIO, probe: Probe, kind: str):
        self.stream, self.kind = stream, kind
        self._csv = csv.writer(stream, lineterminator="\n")
        if kind == ".jsonl":
            stream.write(json.dumps({"header": header(probe)}) + "\n")
        else:
            known = f"scores of {probe.data_set} range from {probe.score_low:g} to {probe.score_high:g}"
            unknown = probe.deviation is None and probe.posterior is None
            deviation = "not known" if unknown else f"{_whose(probe)}, in the same units"
            model = probe.model_hash or "not known"
            stream.write(f"# {probe.direction}; {known}; deviation: {deviation}; model {model}\n")
            self._csv.writerow(["path", "score", "deviation"])

    def write(self, score: Score) -> None:
        if self.kind == ".jsonl":
            line: dict[str, Any] = {"path": str(score.path), "score": score.score}
            line["deviation"] = score.deviation
            self.stream.write(json.dumps({**line, "error": score.broken.why} if score.broken else line) + "\n")
        else:
            deviation = "" if score.deviation is None else f"{score.deviation:.4g}"
            self._csv.writerow([str(score.path), "" if score.score is None else f"{score.score:.6g}", deviation])


def _whose(probe: Probe) -> str:
    return "one standard deviation" if probe.posterior is None else "one standard deviation of each image's own score"


def reference_features(extractor: Extractor, path: str) -> Float[np.ndarray, " d"]:
    """Features of the pristine image. Raises UserError if there is not exactly one that can be read."""
    found = list_images([path])
    if len(found) != 1:
        raise UserError(f"--reference: {path} holds {len(found)} images; name one, to which all are compared.")
    item = next(extractor.stream(found))
    if item.features is None:
        raise UserError(f"--reference: {item.broken}.")
    return item.features
