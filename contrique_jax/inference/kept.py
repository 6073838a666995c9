"""Scores and features of many files that are kept as they come, so that what ends the work costs little of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.inference.scores import Reason, Score
from contrique_jax.io.parts import Parts, file_key, packed, unpacked


def kept_scores(
    parts: Parts | None, paths: Sequence[Path], make: Callable[[Sequence[Path]], Iterator[Score]]
) -> Iterator[Score]:
    """Scores of all files in order: what `parts` holds, and what `make` makes of the others, which is added. Without parts,
    as they come."""

    def record(score: Score) -> dict[str, Any] | None:
        if score.broken:
            return None
        named = None if score.reasons is None else [dataclasses.astuple(reason) for reason in score.reasons]
        return {"score": score.score, "deviation": score.deviation, "raw": score.raw, "why": named} | _reduced(score)

    def score(path: Path, kept: dict[str, Any]) -> Score:
        named = None if kept["why"] is None else [Reason(*reason) for reason in kept["why"]]
        return Score(path, kept["score"], kept["deviation"], None, "reduced" in kept, kept["raw"], named)

    yield from _kept(parts, paths, make, record, score)


def kept_features(
    parts: Parts | None, paths: Sequence[Path], make: Callable[[Sequence[Path]], Iterator[FileFeatures]]
) -> Iterator[FileFeatures]:
    """The same of features."""

    def record(item: FileFeatures) -> dict[str, Any] | None:
        return None if item.features is None else {"features": packed(item.features)} | _reduced(item)

    def features(path: Path, kept: dict[str, Any]) -> FileFeatures:
        return FileFeatures(path, unpacked(kept["features"]), reduced="reduced" in kept)

    yield from _kept(parts, paths, make, record, features)


def _reduced(item: Score | FileFeatures) -> dict[str, bool]:
    return {"reduced": True} if item.reduced else {}


def _kept(
    parts: Parts | None,
    paths: Sequence[Path],
    make: Callable[[Sequence[Path]], Iterator[Any]],
    record: Callable[[Any], dict[str, Any] | None],
    restored: Callable[[Path, dict[str, Any]], Any],
) -> Iterator[Any]:
    if parts is None:
        yield from make(paths)
        return
    keys = {path: file_key(path) for path in paths}
    made = make([path for path in paths if keys[path] not in parts])
    for path in paths:
        if keys[path] in parts:
            yield restored(path, parts.get(keys[path]))
            continue
        item = next(made)
        kept = record(item)
        if kept is not None:  # a broken file is tried again
            parts.add(keys[path], kept)
        yield item
