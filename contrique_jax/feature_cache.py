"""Features kept between runs, by the hash of the model and the size and time of change of each file."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.features import Extractor, name_reduced, progress_bar
from contrique_jax.outputs import write_npz

FEATURES_VERSION = 1  # raise it when the same image and weights give other features


def cached_features(
    extractor: Extractor, paths: Sequence[Path], folder: Path | None, data_folder: Path
) -> tuple[dict[Path, Float[np.ndarray, " d"]], list[BrokenImage]]:
    """Features of every file that can be read, and what was wrong with the others.

    Those of files that have not changed since they were last computed with this model come from `folder`; `None`
    computes all. One file a model and `data_folder`.
    """
    place = f"{data_folder.resolve()}|{extractor.max_megapixels:g}|{FEATURES_VERSION}"
    store = folder / f"{extractor.model_hash}-{hashlib.sha256(place.encode()).hexdigest()[:16]}.npz" if folder else None
    known = _read(store, extractor.width) if store else {}
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    missing = [path for path, stamp in stamps.items() if stamp not in known]
    broken: list[BrokenImage] = []
    reduced: list[Path] = []
    before = len(known)
    try:
        for item in progress_bar(extractor.stream(missing), len(missing)):
            if item.broken:
                broken.append(item.broken)
            elif item.features is not None:
                known[stamps[item.path]] = item.features
            if item.reduced:
                reduced.append(item.path)
    finally:  # also what an interrupted run has done so far
        if store and len(known) > before:
            try:
                write_npz(store, stamp=np.array(list(known)), features=np.array(list(known.values()), np.float32))
            except (UserError, OSError) as error:  # what it holds can be computed again
                print(f"warning: features are not kept for the next time: {error}", file=sys.stderr)
    name_reduced(reduced, extractor.max_megapixels)
    return {path: known[stamp] for path, stamp in stamps.items() if stamp in known}, broken


def _stamp(path: Path) -> str:
    status = path.stat()
    return hashlib.sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:32]


def _read(store: Path, width: int) -> dict[str, Float[np.ndarray, " d"]]:
    """What an earlier run kept; nothing where there is no file, or one that cannot be used."""
    try:
        with np.load(store, allow_pickle=False) as stored:
            stamps, features = stored["stamp"], stored["features"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return {}
    if features.shape != (len(stamps), width) or not np.isfinite(features).all():
        return {}
    return dict(zip(stamps.tolist(), features, strict=True))
