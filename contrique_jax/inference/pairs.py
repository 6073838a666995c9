"""Images beside their references through a network that takes both: stacked to six channels, so that all else stays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float, UInt8

from contrique_jax.data.rated import check_sizes
from contrique_jax.data.sizes import read_image
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.file_features import FileFeatures
from contrique_jax.inference.runner import Runner

RGB = UInt8[np.ndarray, "h w 3"]
References = RGB | Mapping[Path, Path]  # of images: one for all, or the file of each
CHANNELS = 6  # image, then reference
BESIDE = (
    "model: it judges an image beside its reference; give that, with `contrique-jax score --reference PATH` or "
    "`contrique-jax evaluate --full-reference` (in Python, score(..., reference=))."
)
ALONE = "reference: this model judges an image alone; leave --reference out."


class BesideReference(Extractor):
    """An extractor whose model may take, or need, the reference of each image."""

    _runner_of: Callable[..., Runner]  # by the number of channels, the same one each time

    def with_references(self, references: References) -> Self:
        """The same model judging each image beside its reference. Raises UserError if it judges images alone."""
        if self.takes_reference == "never":
            raise UserError(ALONE)
        other = copy.copy(self)
        other.references, other._runner = references, self._runner_of(channels=CHANNELS)
        return other

    def reference_of(self, path: Path) -> Path | None:
        """The file that an image is judged beside, if there is one."""
        return self.references.get(path) if isinstance(self.references, Mapping) else None

    def _seen(self, path: Path, image: RGB) -> RGB:
        if self.references is None:
            return image
        if isinstance(self.references, Mapping):
            try:
                reference, _ = read_image(self.references[path], self.max_megapixels, self.shorter_side)
            except BrokenImage as error:
                raise BrokenImage(str(path), f"its reference {error}") from error
        else:
            reference = self.references
        check_sizes(str(path), image, reference)
        return np.concatenate([image, reference], axis=2)

    def _through(self, loaded: Iterable[tuple[FileFeatures, tuple[RGB, ...] | None]]) -> Iterator[FileFeatures]:
        if self.takes_reference == "needed" and self.references is None:
            raise UserError(BESIDE)
        yield from super()._through(loaded)

    def of_frames(self, images: list[RGB]) -> Float[np.ndarray, "n d"]:
        if self._runner.channels == CHANNELS:
            raise BrokenImage("", "this model judges images beside a reference, and no videos")
        return super().of_frames(images)
