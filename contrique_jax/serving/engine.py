"""A model with its probe, ready for images from memory, and what is told of it and of a score."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from contrique_jax import __version__
from contrique_jax.errors import UserError
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.inference.pretrained import choose_meter, why_of
from contrique_jax.inference.scores import Score, check_fit, header, interval, judged, range_of
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.probe import FULL_REFERENCE

WORDS = ("bad", "poor", "fair", "good", "excellent")  # of the five-grade scale of ITU-R BT.500, for fifths of the range
BINS = 20  # of the histogram
# Heights and widths of the canvases in which images of any size lie, as many as there may be, for photographs in 4:3 and 3:2:
# each holds about twice as many pixels as the one before. The last one is for whatever goes in tiles.
LANDSCAPE = ((256, 352), (384, 512), (512, 704), (768, 1024), (1024, 1440), (1088, 1920))
USUAL = (*LANDSCAPE, *((width, height) for height, width in LANDSCAPE), (3000, 4000))


class Engine:
    """Scores images a list at a time; to be used by one thread at a time."""

    def __init__(
        self, model: str | None, probe: str | None, *, max_megapixels: float, memory: float | None, maps: bool = True
    ):
        """As `contrique-jax score`; without `maps` a little faster. Raises UserError for a probe that needs a reference and
        whatever else `score` would not take."""
        use_compilation_cache()
        meter = choose_meter(model, probe)
        if meter.probe.feature_name == FULL_REFERENCE:
            raise UserError(
                "probe: it compares an image with its reference, and a server is sent images alone; score such pairs with "
                "`contrique-jax score --reference`, or serve a probe without references."
            )
        limits: dict[str, Any] = {"max_megapixels": max_megapixels, "memory": memory}
        self.extractor = open_extractor(meter.model, shorter_side=meter.probe.shorter_side, **limits)
        check_fit(self.extractor, meter.probe, False)
        self.meter, self.name = meter, Path(meter.model).name
        self.why = why_of(meter.model)
        self.has_maps = maps
        if maps:
            try:
                self.extractor = self.extractor.with_maps()
            except UserError:  # a recipe without maps
                self.has_maps = False

    def compile_usual(self, pool: ThreadPoolExecutor) -> None:
        """Begins to compile what the usual sizes of photographs need; else the first image of each waits for it. Images that
        come meanwhile wait for their own shape alone."""
        limit = self.extractor.max_megapixels * 1e6
        self.extractor.fix_shapes([size for size in USUAL if size[0] * size[1] <= limit], pool)

    def judge(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Score]:
        """One score an image, or why there is none."""
        meter, named = self.meter, ((Path(f"image {i}"), image) for i, image in enumerate(images))
        items = self.extractor.stream_arrays(named)
        return list(judged(items, meter.probe, None, meter.scale, meter.faults, self.why))

    def told(self, score: Score, with_map: bool) -> dict[str, Any]:
        """A score's part of an answer."""
        assert score.score is not None
        ends = interval(score, self.meter.probe, self.meter.scale)
        answer: dict[str, Any] = {
            "score": round(score.score, 4), "deviation": None, "interval": None, "word": self._word(score.score)
        }  # fmt: skip
        if ends is not None and score.deviation is not None:
            answer["deviation"] = round(score.deviation, 4)
            answer["interval"] = [round(end, 4) for end in ends]
        standing = self.meter.probe.standing
        if standing is not None:
            raw = score.score if score.raw is None else score.raw
            below = float(standing.below(raw))
            answer["better_than"] = round(below if self.meter.probe.higher_is_better else 1 - below, 4)
        if score.reasons is not None:
            answer["why"] = [
                {name: value if isinstance(value, str) else round(value, 4) for name, value in asdict(reason).items()}
                for reason in score.reasons
            ]
        if with_map and score.map is not None:
            answer["map"] = [[round(float(value), 3) for value in row] for row in score.map]
        return answer

    def about(self) -> dict[str, Any]:
        """What a client should know of the model."""
        probe, scale = self.meter.probe, self.meter.scale
        low, high = range_of(self.meter.probe, self.meter.scale)
        answer = header(probe, scale) | {
            "model": self.extractor.model_hash, "name": self.name, "version": __version__, "words": WORDS,
            "interval": 0.9, "maps": self.has_maps, "why": self.why is not None,
            "higher_is_better": self._upwards, "max_megapixels": self.extractor.max_megapixels, "histogram": None,
        }  # fmt: skip
        if probe.standing is not None:
            edges = np.linspace(low, high, BINS + 1)
            raw = edges if scale is None else scale.low + edges / 100 * (scale.high - scale.low)
            shares = probe.standing.histogram(np.sort(raw))
            shares = shares if raw[0] < raw[-1] else shares[::-1]
            answer["histogram"] = {
                "edges": [round(float(edge), 4) for edge in edges], "shares": [round(float(share), 5) for share in shares],
                "photographs": probe.standing.photographs,
            }  # fmt: skip
        return answer

    @property
    def _upwards(self) -> bool:
        return self.meter.scale is not None or self.meter.probe.higher_is_better

    def _word(self, score: float) -> str:
        low, high = range_of(self.meter.probe, self.meter.scale)
        place = (score - low) / (high - low)
        fifth = int(np.clip((place if self._upwards else 1 - place) * len(WORDS), 0, len(WORDS) - 1))
        return WORDS[fifth]
