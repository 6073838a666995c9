"""A shard's images through the model, once and whole: what every worker does, whatever runs it."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.data.decode import RGB, decode
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.inference.pretrained import choose_meter, why_of
from contrique_jax.inference.scores import check_fit, explanation, interval, judged
from contrique_jax.io import buckets
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.parts import fingerprint
from contrique_jax.probe import FULL_REFERENCE
from contrique_jax.recipes.recipe import Reference
from contrique_jax.shards import plan
from contrique_jax.shards.contents import Given, contents
from contrique_jax.shards.place import Place
from contrique_jax.shards.results import FORMATS, Results, Row, read_features, write

MOST_FEATURES = 1 << 33  # bytes of a shard's


@dataclass(frozen=True)
class Job:
    """What all workers are told."""

    out: str
    model: str | None
    probe: str | None
    max_megapixels: float
    memory: float | None = None  # gigabytes for the maps of one image, of each worker
    kind: str = FORMATS[0]
    features: bool = False  # are kept
    known: str | None = None  # results with features, in place of images


@dataclass
class _Seen:
    """An image on its way: what is known of it besides its features."""

    name: str
    content: str = ""
    size: int = 0
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class _Known:
    """A model of which only features are left, as far as a probe asks."""

    model_hash: str
    width: int
    shorter_side: int | None
    limit: float  # --max-megapixels of the run that made them
    gives_scores: bool = False
    takes_reference: Reference = "never"
    references: None = None


def _known(place: Place) -> _Known:
    """Raises UserError if those are no results."""
    about = plan.about_of(place)
    found = [about.get(name) for name in ("model", "width", "shorter side", "--max-megapixels")]
    kinds = (str, int, int | None, int | float)
    if not all(isinstance(value, kind) for value, kind in zip(found, kinds, strict=True)):  # type: ignore[arg-type]
        raise UserError(f"{place.name(plan.ABOUT)}: it is damaged; name other results, or score the images again.")
    return _Known(*found)  # type: ignore[arg-type]


class Scorer:
    """The model, loaded once; to be used by one thread at a time."""

    def __init__(self, job: Job, threads: int = 0):
        """`threads`: that decode, 0 is one a core. Raises UserError for whatever `contrique-jax score` would not take, and for
        a probe that needs a reference."""
        use_compilation_cache()
        meter = choose_meter(job.model, job.probe)
        if meter.probe.feature_name == FULL_REFERENCE:
            raise UserError(
                "probe: it compares an image with its reference, and here are images alone; score such pairs with "
                "`contrique-jax score --reference`."
            )
        self.job, self.meter, self.place = job, meter, Place(job.out)
        self.extractor: Extractor | _Known
        if job.known is None:
            limits: dict[str, Any] = {"max_megapixels": job.max_megapixels, "memory": job.memory, "workers": threads}
            self.extractor = open_extractor(meter.model, shorter_side=meter.probe.shorter_side, **limits)
        else:
            self.extractor = _known(Place(job.known))
        check_fit(self.extractor, meter.probe, False)
        self.why = why_of(meter.model)
        self._looked = False

    def about(self) -> dict[str, Any]:
        """What results depend on."""
        found = self.extractor
        limit = found.limit if isinstance(found, _Known) else self.job.max_megapixels
        return {
            "model": found.model_hash, "width": found.width, "shorter side": found.shorter_side, "--max-megapixels": limit,
            "probe": fingerprint([self.meter.probe, self.meter.scale]),
            "--format": self.job.kind, "--features": self.job.features,
        }  # fmt: skip

    def score(
        self, number: int, skip: Mapping[str, str] | None = None, said: Callable[[str], None] | None = None
    ) -> plan.Counts:
        """Scores a shard and writes its files, `done` last -> counts. `skip`: images not to be touched, and why; `said`: is
        told of each image before it is touched, and they then go through one by one.

        Raises UserError if the shard cannot be done; nothing of it counts then.
        """
        results = Results()
        items = self._known(number) if self.job.known else self._new(number, skip or {}, said)
        for seen, item in items:
            if item.features is None:
                assert item.broken is not None
                results.broken.append((seen.name, item.broken.why))
                continue
            results.rows.append(self._row(seen, item))
            if self.job.features:
                results.features.append(np.asarray(item.features, np.float32))
        if self.job.known:
            results.broken += self._known_broken(number)
        about = {
            "model": self.extractor.model_hash, "contrique_jax": json.dumps(self.about()),
            "scores": explanation(self.meter.probe, self.meter.scale),
        }  # fmt: skip
        write(self.place, number, results, self.job.kind, about)
        plan.mark_done(self.place, number, results.counts)
        return results.counts

    def _row(self, seen: _Seen, item: FileFeatures) -> Row:
        probe, scale = self.meter.probe, self.meter.scale
        score = next(judged([item], probe, None, scale, self.meter.faults, self.why))
        assert score.score is not None
        low, high = interval(score, probe, scale) or (None, None)
        reason = score.reasons[0] if score.reasons else None
        return Row(
            path=seen.name, score=score.score, deviation=score.deviation, low=low, high=high, raw=score.raw,
            distortion=reason.distortion if reason else None, level=reason.level if reason else None,
            probability=reason.probability if reason else None, width=seen.width, height=seen.height,
            reduced=item.reduced, bytes=seen.size, content=seen.content, model=self.extractor.model_hash,
        )  # fmt: skip

    def _new(
        self, number: int, skip: Mapping[str, str], said: Callable[[str], None] | None
    ) -> Iterator[tuple[_Seen, FileFeatures]]:
        """The images of a shard through the network."""
        assert isinstance(self.extractor, Extractor)
        part = plan.read_part(self.place, number)
        waiting: deque[_Seen] = deque()

        def images() -> Iterator[tuple[Path, Callable[[], RGB]]]:
            for given in contents(part):
                if said is not None:
                    said(given.name)
                waiting.append(_Seen(given.name))
                yield Path(given.name), functools.partial(_image, given, waiting[-1], skip.get(given.name))

        if said is not None:
            for image in images():
                for item in self.extractor.stream_read([image]):
                    yield waiting.popleft(), item
            return
        local = [Path(name) for name in part.get("files", ()) if not buckets.is_address(name)]
        looked_at = [] if self._looked else local  # shapes are chosen once a worker
        self._looked = True
        for item in self.extractor.stream_read(images(), looked_at):
            yield waiting.popleft(), item

    def _known(self, number: int) -> Iterator[tuple[_Seen, FileFeatures]]:
        """The images of a shard whose features are stored."""
        assert self.job.known is not None
        place, name = Place(self.job.known), f"features-{plan.shard_name(number)}.npz"
        data = place.read(name)
        if data is None:
            return  # all of its images are broken
        try:
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                stored = read_features(Path(file.name), MOST_FEATURES)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{place.name(name)}: it cannot be read ({error}); do its shard again.") from error
        if str(stored["model_hash"]) != self.extractor.model_hash:
            raise UserError(
                f"{place.name(name)}: it holds features of model {stored['model_hash']}; do its shard again."
            )
        for i, path in enumerate(stored["path"].tolist()):
            sizes = (int(stored[side][i]) for side in ("bytes", "height", "width"))
            item = FileFeatures(Path(path), stored["features"][i], reduced=bool(stored["reduced"][i]))
            yield _Seen(path, str(stored["content"][i]), *sizes), item

    def _known_broken(self, number: int) -> Iterable[tuple[str, str]]:
        assert self.job.known is not None
        data = Place(self.job.known).read(f"broken-{plan.shard_name(number)}.csv") or b""
        rows = csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline=""))
        next(rows, None)
        return [(row[0], row[-1]) for row in rows if row]


def _image(given: Given, seen: _Seen, why_not: str | None) -> RGB:
    if why_not is not None:
        raise BrokenImage(given.name, why_not)
    data = given.read()
    image = decode(data, name=given.name)
    seen.content, seen.size = hashlib.sha256(data).hexdigest()[:32], len(data)
    seen.height, seen.width = image.shape[:2]
    return image
