"""Scores of images one by one, how they are written, and what is said of them all."""

from __future__ import annotations

import csv
import dataclasses
import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import numpy as np
from jaxtyping import Float

from contrique_jax.data.image_files import list_images
from contrique_jax.data.sizes import read_image
from contrique_jax.errors import BrokenImage, UserError, counted, printable
from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.inference.pretrained import Scale
from contrique_jax.inference.quality_map import quality_map
from contrique_jax.io.outputs import atomic_write
from contrique_jax.probe import FULL_REFERENCE, Probe
from contrique_jax.probe.faults import Faults
from contrique_jax.probe.spread import INSIDE
from contrique_jax.probe.why import NONE, Why

if TYPE_CHECKING:  # jax takes a second to import: what brings it is imported by the functions that need it
    from contrique_jax.inference.extractor import Extractor
    from contrique_jax.recipes.recipe import Reference

SHOWN = 3  # images at each end of the summary
LIKELY, MOST_REASONS = 0.1, 3  # a distortion is named if it is at least so probable; so many at most


@dataclass(frozen=True)
class Reason:
    """A distortion that an image may show: its name, or "none", its level 1..5 (0 for none), and how probable it is."""

    distortion: str
    level: float
    probability: float

    def __str__(self) -> str:
        level = f" {self.level:.1f}" if self.level else ""
        return f"{self.distortion}{level} ({100 * self.probability:.0f} %)"


def reasons(why: Why, features: Float[np.ndarray, " d"]) -> list[Reason]:
    """The likeliest distortions of an image, most probable first; "none" stands among them."""
    from contrique_jax.distort.bank import BANK

    probabilities, levels = (part[0] for part in why.judge(features[None]))
    found: list[Reason] = []
    for kind in np.argsort(-probabilities)[:MOST_REASONS]:
        if not found or probabilities[kind] >= LIKELY:
            none = kind == NONE
            name, level = ("none", 0.0) if none else (BANK[kind - 1].name, float(max(levels[kind], 1)))
            found.append(Reason(name, level, float(probabilities[kind])))
    return found


@dataclass(frozen=True)
class Score:
    """One image: its score, or what is wrong with it."""

    path: Path
    score: float | None
    deviation: float | None = None  # standard deviation of the true score about it, where the probe knows one
    broken: BrokenImage | None = None
    reduced: bool = False
    raw: float | None = None  # the probe's own score, if the score is on a scale of 0..100
    reasons: list[Reason] | None = None  # the distortions that it may show, if they are asked for
    map: Float[np.ndarray, "g g"] | None = None  # scores of the image's windows, if the extractor gives their features


class Fitting(Protocol):
    """What a probe must belong to."""

    @property
    def model_hash(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def shorter_side(self) -> int | None: ...
    @property
    def gives_scores(self) -> bool: ...
    @property
    def takes_reference(self) -> Reference: ...
    @property
    def references(self) -> Any: ...


class Streaming(Fitting, Protocol):
    """What gives the features of files one by one."""

    def stream(self, paths: Iterable[Path]) -> Iterator[FileFeatures]: ...


def score_files(
    extractor: Streaming,
    probe: Probe,
    paths: Iterable[Path],
    reference: Float[np.ndarray, " d"] | None = None,
    scale: Scale | None = None,
    faults: Faults | None = None,
    why: Why | None = None,
) -> Iterator[Score]:
    """Scores file by file, in order, whatever their number; `reference`: features of the pristine image, for a
    full-reference probe; `scale`: on which scores and deviations are given; `faults`: for maps, if not `probe`;
    `why`: what names distortions, if they are asked for. Raises UserError if probe and model do not belong together."""
    check_fit(extractor, probe, reference is not None)
    yield from judged(extractor.stream(paths), probe, reference, scale, faults, why)


def judged(
    items: Iterable[FileFeatures],
    probe: Probe,
    reference: Float[np.ndarray, " d"] | None = None,
    scale: Scale | None = None,
    faults: Faults | None = None,
    why: Why | None = None,
) -> Iterator[Score]:
    """The same of features that an extractor gives one by one."""
    for item in items:
        scores = named = None
        if item.features is not None and why is not None:
            named = reasons(why, item.features)
        if item.features is not None and item.windows is not None:
            scores = quality_map(probe, item.features, item.windows, scale, faults)
        yield dataclasses.replace(_judged(probe, item, reference, scale), map=scores, reasons=named)


def _judged(probe: Probe, item: FileFeatures, reference: Float[np.ndarray, " d"] | None, scale: Scale | None) -> Score:
    if item.features is None:
        return Score(item.path, None, None, item.broken, item.reduced)
    features = item.features
    if reference is not None:
        features = np.abs(reference - features)
    deviations = probe.deviations(features[None])
    raw, deviation = float(probe.predict(features[None])[0]), None if deviations is None else float(deviations[0])
    if scale is None:
        return Score(item.path, raw, deviation, None, item.reduced)
    shown = None if deviation is None else float(scale.deviations(deviation))
    return Score(item.path, float(scale.scores(raw)), shown, None, item.reduced, raw)


def range_of(probe: Probe, scale: Scale | None) -> tuple[float, float]:
    """The least and the largest of the scores that are shown."""
    return (0.0, 100.0) if scale else (probe.score_low, probe.score_high)


def interval(score: Score, probe: Probe, scale: Scale | None) -> tuple[float, float] | None:
    """The ends of a score's 90 % interval, within its range; None if the probe knows no deviation."""
    if score.score is None or score.deviation is None:
        return None
    low, high = range_of(probe, scale)
    ends = (score.score - INSIDE * score.deviation, score.score + INSIDE * score.deviation)
    return min(max(ends[0], low), high), min(max(ends[1], low), high)


def check_fit(extractor: Fitting, probe: Probe, with_reference: bool) -> None:
    """Raises UserError if the probe is for another model, needs a reference or has no use for one."""
    probe.check_model(extractor.model_hash, extractor.width)
    if probe.shorter_side != extractor.shorter_side:
        raise UserError(
            f"probe: it was fitted on images with a shorter side of {probe.shorter_side or 'any length'}, and these are "
            f"read with one of {extractor.shorter_side or 'any length'}; score them with `contrique-jax score`."
        )
    if extractor.gives_scores:
        from contrique_jax.inference.pairs import ALONE, BESIDE

        with_reference |= extractor.references is not None
        if extractor.takes_reference == "needed" and not with_reference:
            raise UserError(BESIDE)
        if extractor.takes_reference == "never" and with_reference:
            raise UserError(ALONE)
        return
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
    first_broken: BrokenImage | None = None
    unread: set[Path] = field(default_factory=set)
    reduced: list[Path] = field(default_factory=list)
    lowest: list[tuple[float, str]] = field(default_factory=list)
    highest: list[tuple[float, str]] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return len(self.unread)

    def add(self, score: Score) -> None:
        if score.reduced:
            self.reduced.append(score.path)
        if score.score is None:
            self.unread.add(score.path)
            self.first_broken = self.first_broken or score.broken
            return
        self.scored += 1
        entry = (score.score, str(score.path))
        self.lowest = heapq.nsmallest(SHOWN, [*self.lowest, entry])
        self.highest = heapq.nlargest(SHOWN, [*self.highest, entry])

    def summary(self, probe: Probe, scale: Scale | None = None) -> str:
        """The best and the worst images, a line each."""
        upwards = scale is not None or probe.higher_is_better
        best, worst = (self.highest, self.lowest) if upwards else (self.lowest, self.highest)
        count = max(min(SHOWN, self.scored // 2), 1)
        lines = [f"{counted(self.scored, 'image')} scored, {self.broken} broken; {_direction(probe, scale)}"]
        for name, entries in (("best", best[:count]), ("worst", worst[:count])):
            lines += [f"  {name:<6}{score:10.4g}  {printable(path)}" for score, path in entries]
        return "\n".join(lines)


def header(probe: Probe, scale: Scale | None = None) -> dict[str, Any]:
    """What a reader of the scores must know."""
    own = [probe.score_low, probe.score_high]
    deviation = probe.deviation
    return {
        "direction": _direction(probe, scale),
        "range": [0, 100] if scale else own,
        **({"raw_range": own, "raw_direction": probe.direction} if scale else {}),
        "data_set": probe.data_set,
        "deviation": float(scale.deviations(deviation)) if scale and deviation is not None else deviation,
        "model": probe.model_hash or None,
    }


def _direction(probe: Probe, scale: Scale | None) -> str:
    return probe.direction if scale is None else "higher is better"


class Writer:
    """Lines of scores, csv or JSON, of which a header comes first."""

    def __init__(self, stream: TextIO, probe: Probe, kind: str, scale: Scale | None = None, with_why: bool = False):
        """`scale`: the one that the scores are on; the probe's own then have a column too, and reasons `with_why`."""
        self.stream, self.kind, self.scale, self.with_why = stream, kind, scale, with_why
        self._csv = csv.writer(stream, lineterminator="\n")
        if kind == ".jsonl":
            stream.write(json.dumps({"header": header(probe, scale)}) + "\n")
        else:
            self._csv.writerow(
                ["path", "score", "deviation", *(["raw"] if scale else []), *(["why"] if with_why else [])]
            )

    def write(self, score: Score) -> None:
        if self.kind == ".jsonl":
            line: dict[str, Any] = {"path": str(score.path), "score": score.score}
            line["deviation"] = score.deviation
            if self.scale:
                line["raw"] = score.raw
            if self.with_why:
                line["why"] = [dataclasses.asdict(reason) for reason in score.reasons or []]
            self.stream.write(json.dumps({**line, "error": score.broken.why} if score.broken else line) + "\n")
        else:
            deviation = "" if score.deviation is None else f"{score.deviation:.4g}"
            row = [str(score.path), _number(score.score), deviation]
            row += [_number(score.raw)] if self.scale else []
            row += ["; ".join(map(str, score.reasons or []))] if self.with_why else []
            self._csv.writerow(row)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def explanation(probe: Probe, scale: Scale | None = None) -> str:
    """A line that says what the numbers of a csv are."""
    known = f"scores of {probe.data_set} range from {probe.score_low:g} to {probe.score_high:g}"
    if scale:
        known = f"0 to 100 is {scale.low:g} to {scale.high:g} of {probe.data_set}, as in the column raw"
    unknown = probe.deviation is None and probe.posterior is None and probe.spread is None
    deviation = "not known" if unknown else f"{_whose(probe)}, in the same units"
    return f"{_direction(probe, scale)}; {known}; deviation: {deviation}; model {probe.model_hash or 'not known'}"


def write_about(out: Path, probe: Probe, scale: Scale | None = None) -> Path:
    """What a reader of OUT.csv must know, beside it as OUT.csv.json, so that the table opens in everything -> that file."""
    path = out.with_name(f"{out.name}.json")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**header(probe, scale), "about": explanation(probe, scale)}, indent=2) + "\n")
    return path


def _whose(probe: Probe) -> str:
    own = probe.posterior is not None or probe.spread is not None
    return "one standard deviation of each image's own score" if own else "one standard deviation"


def beside_reference(extractor: Extractor, path: str) -> tuple[Extractor, Float[np.ndarray, " d"] | None]:
    """What judges images beside the pristine one: a model that takes both; or the extractor as it is, and the features of that
    image. Raises UserError if there is not exactly one image that can be read."""
    found = list_images([path])
    if len(found) != 1:
        raise UserError(f"--reference: {path} holds {len(found)} images; name one, to which all are compared.")
    from contrique_jax.inference.pairs import BesideReference

    if isinstance(extractor, BesideReference) and extractor.gives_scores:
        try:
            image, _ = read_image(found[0], extractor.max_megapixels, extractor.shorter_side)
        except BrokenImage as error:
            raise UserError(f"--reference: {error}.") from error
        return extractor.with_references(image), None
    item = next(extractor.stream(found))
    if item.features is None:
        raise UserError(f"--reference: {item.broken}.")
    return extractor, item.features
