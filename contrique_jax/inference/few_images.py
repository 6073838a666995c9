"""The embedded model on a few images in NumPy: done before jax, which takes a second to import and seconds to compile a
program, would have begun. Features equal those of `Extractor` up to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contrique_jax.config import ModelConfig
from contrique_jax.data.clips import is_clip
from contrique_jax.data.sizes import RGB, half_size, promised_size, read_image
from contrique_jax.errors import BrokenImage
from contrique_jax.inference.file_features import FileFeatures, no_room
from contrique_jax.io.machine import available_cores
from contrique_jax.io.progress import ahead
from contrique_jax.networks.description import DESCRIPTION, read_description, stored_architecture
from contrique_jax.networks.host_pooling import global_statistics, window_statistics
from contrique_jax.networks.lite0 import STAGE_WIDTHS, Lite0OnHost
from contrique_jax.networks.weights_file import WEIGHTS, flat_hash, meant_embedded, read_flat, read_header

MOST_MEGAPIXELS = 2.0  # of all images together: about where a program kept from an earlier start would have caught up
UNKNOWN_MEGAPIXELS = 1.0  # of a file whose header says nothing: most such are broken
MOST_IMAGES = 64  # of which each header is read


class FewImages:
    """What `Extractor` is to the few images that `few_images` lets through."""

    scales, width = 2, 2 * 2 * sum(STAGE_WIDTHS)
    gives_scores, references = False, None
    takes_reference = "never"

    def __init__(self, folder: Path, max_megapixels: float, shorter_side: int | None, windows: bool):
        """`folder`: the embedded model's; `windows`: `stream` gives the features of every window too. Raises
        UserError if its files cannot be read, KeyError if it is another network."""
        model = stored_architecture(read_description(folder).get("architecture"), ModelConfig, folder / DESCRIPTION)
        if (model.encoder, model.features, model.input_scaling) != ("efficientnet_lite0", "stages", "centred"):
            raise KeyError(model.encoder)
        header = read_header(folder / WEIGHTS)
        flat = read_flat(folder / WEIGHTS, header, {name: shape for name, (_, shape) in header.items()})
        self._network = Lite0OnHost(flat)
        self.model_hash = flat_hash(model, flat)
        self.max_megapixels, self.shorter_side, self._windows = max_megapixels, shorter_side, windows

    def stream(self, paths: Iterable[Path]) -> Iterator[FileFeatures]:
        """Features file by file, in order; the next files are read while the network is at work."""
        pool = ThreadPoolExecutor(available_cores())
        try:
            for item, image in ahead(pool, self._read, paths, available_cores()):
                yield item if image is None else self._judged(item, image)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a read may never end

    def _read(self, path: Path) -> tuple[FileFeatures, RGB | None]:
        try:
            image, reduced = read_image(path, self.max_megapixels, self.shorter_side)
        except BrokenImage as error:
            return FileFeatures(path, None, broken=error), None
        return FileFeatures(path, None, reduced=reduced), image

    def _judged(self, item: FileFeatures, image: RGB) -> FileFeatures:
        try:
            both = [self._network.stages(scaled) for scaled in (image, half_size(image))]
            windows = np.concatenate([window_statistics(maps) for maps in both], axis=2) if self._windows else None
        except MemoryError:
            return dataclasses.replace(item, broken=BrokenImage(str(item.path), no_room(image)))
        features = np.concatenate([global_statistics(maps) for maps in both])
        return dataclasses.replace(item, features=features, windows=windows)


def few_images(
    model: str, paths: Sequence[Path], max_megapixels: float, shorter_side: int | None, windows: bool = False
) -> FewImages | None:
    """What judges these files if they are few and small, none is a clip and `model` is the embedded one; None otherwise."""
    folder = meant_embedded(model)
    if folder is None or not 0 < max_megapixels < np.inf:
        return None
    if len(paths) > MOST_IMAGES or any(map(is_clip, paths)):
        return None
    megapixels = 0.0
    for path in paths:
        promised = promised_size(path, max_megapixels, shorter_side)
        megapixels += UNKNOWN_MEGAPIXELS if promised is None else promised[0] * promised[1] / 1e6
        if megapixels > MOST_MEGAPIXELS:
            return None
    try:
        return FewImages(folder, max_megapixels, shorter_side, windows)
    except KeyError:
        return None
