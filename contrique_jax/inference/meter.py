"""The same in Python: `contrique_jax.load()`, `contrique_jax.load(M, probe=None)`."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from contrique_jax.data.given_images import ONE, as_list, as_rgb
from contrique_jax.data.sizes import fitted, read_image
from contrique_jax.errors import UserError
from contrique_jax.inference.any_recipe import open_extractor, own_scores
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.pairs import BesideReference
from contrique_jax.inference.pretrained import Scale, choose_meter, why_of
from contrique_jax.inference.quality_map import quality_map
from contrique_jax.inference.scores import Reason, check_fit, reasons
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.networks.weights_file import embedded_folder
from contrique_jax.probe import Probe
from contrique_jax.probe.faults import Faults
from contrique_jax.probe.why import Why

NO_PROBE = "score: there is no probe; give one, contrique_jax.load(model, probe='P.npz')."

Image = ONE | UInt8[np.ndarray, "h w *c"]


def load(model: str | os.PathLike[str] | None = None, probe: str | os.PathLike[str] | None = None) -> Model:
    """The embedded model; or the network in a model folder, a run's workdir or a checkpoint (what --model takes), with the
    probe of that file.

    Raises UserError if there is none, and if the two do not belong together.
    """
    use_compilation_cache()
    name = None if model is None else os.fspath(model)
    if probe is None and name is not None and embedded_folder(name) is None and own_scores(name) is None:
        return Model(open_extractor(name))
    meter = choose_meter(name, probe)
    extractor = open_extractor(meter.model, shorter_side=meter.probe.shorter_side)
    why = why_of(meter.model)
    return Model(extractor, meter.probe, meter.scale, meter.faults, why)


class Model:
    """A frozen network and, for scores, a probe."""

    def __init__(
        self,
        extractor: Extractor,
        probe: Probe | None = None,
        scale: Scale | None = None,
        faults: Faults | None = None,
        why: Why | None = None,
    ):
        self._extractor, self._side = extractor, extractor.shorter_side
        if probe is not None:
            probe.check_model(extractor.model_hash, self.width)
        self.probe, self.scale, self._faults, self._why = probe, scale, faults, why
        self._apply: Callable[..., jax.Array] = jax.jit(extractor.apply)

    def __repr__(self) -> str:
        probe = f", probe of {self.probe.data_set}" if self.probe else ""
        return f"<{self._extractor.model.encoder}, {self.width} features, model {self._extractor.model_hash}{probe}>"

    @property
    def width(self) -> int:
        """Numbers in an image's features: twice the width of the network's last map."""
        return self._extractor.width

    def features(self, images: Image | Sequence[Image]) -> Float[np.ndarray, "n d"]:
        """Features of image files, Pillow images or arrays [H, W, 3] or [H, W] (`as_rgb`) of any sizes, or of one of these,
        float32 [N, 2 x width], full scale first: the numbers of `contrique-jax features`.

        Files above 16 megapixels are scaled down to that; with a probe on images of one shorter side (SPAQ: 512), all are
        brought to it. Raises UserError naming the first image that is none.
        """
        return self._features(self._extractor, images)

    def _features(self, extractor: Extractor, images: Image | Sequence[Image]) -> Float[np.ndarray, "n d"]:
        images = as_list(images)
        paths = [Path(image) for image in images if isinstance(image, str | os.PathLike)]
        if len(paths) < len(images):
            return extractor.features(self._arrays(images))
        out = np.empty((len(images), self.width), np.float32)
        for i, item in enumerate(extractor.stream(paths)):
            if item.broken:
                raise item.broken
            out[i] = item.features
        return out

    def _arrays(self, images: Sequence[Image]) -> list[UInt8[np.ndarray, "h w 3"]]:
        limits = self._extractor.max_megapixels, self._extractor.shorter_side
        return [
            read_image(Path(x), *limits)[0] if isinstance(x, str | os.PathLike) else as_rgb(x, f"image {i}")
            for i, x in enumerate(images)
        ]

    def score(self, images: Image | Sequence[Image], reference: Image | None = None) -> Float[np.ndarray, " n"]:
        """Quality of images as for `features`, float64 [N]: of the embedded model from 0 to 100, higher is better; with a
        probe of your own in the units of the data set that it was fitted on, and `self.probe` tells range and direction.
        `reference`: the pristine image, for a full-reference probe or model.

        Raises UserError if there is no probe, or one of the other kind.
        """
        if self.probe is None:
            raise UserError(NO_PROBE)
        check_fit(self._extractor, self.probe, reference is not None)
        if reference is not None and isinstance(self._extractor, BesideReference) and self._extractor.gives_scores:
            (pristine,) = self._arrays([reference])
            if not isinstance(reference, str | os.PathLike):  # to what images of its size are brought
                files = isinstance(as_list(images)[0], str | os.PathLike)
                limit = self._extractor.max_megapixels if files else math.inf
                pristine, _ = fitted(pristine, limit, self._extractor.shorter_side)
            features = self._features(self._extractor.with_references(pristine), images)
        else:
            features = self.features(images)
            if reference is not None:
                features = np.abs(self.features([reference]) - features)
        raw = self.probe.predict(features)
        return raw if self.scale is None else self.scale.scores(raw)

    def why(self, images: Image | Sequence[Image]) -> list[list[Reason]]:
        """The distortions that each image may show, the likeliest first, "none" among them. Raises UserError if this is not
        an embedded model."""
        if self._why is None:
            raise UserError("why: only embedded models name distortions; contrique_jax.load() has one.")
        return [reasons(self._why, row) for row in self.features(images)]

    def map(self, image: Image) -> Float[np.ndarray, "g g"]:
        """The score of each of 13 x 13 overlapping windows of an image as for `features`, float32, row by row from the top
        left, in the units of `score` but not cut off at 0 and 100; the mean is the image's score.

        Window (i, j) begins at i / 16 of the height and j / 16 of the width, and spans a quarter of both. Raises UserError
        if there is no probe, or one that needs a reference, and for a model of a recipe without maps.
        """
        if self.probe is None:
            raise UserError(NO_PROBE)
        check_fit(self._extractor, self.probe, False)
        if isinstance(image, str | os.PathLike):
            image, _ = read_image(Path(image), self._extractor.max_megapixels, self._side)
        features, windows = self._windowed.with_windows(as_rgb(image))
        return quality_map(self.probe, features, windows, self.scale, self._faults)

    @functools.cached_property
    def _windowed(self) -> Extractor:
        return self._extractor.with_maps()

    def apply(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        """Features of a batch of images of one size, float in [0, 1] -> float32 [N, 2 x width]: pure; jits, batches and
        differentiates with respect to the images.

        The half size is made here by Pillow's bicubic kernel, without its rounding to bytes. For images that came from
        bytes the first half of the features is that of `features` to float rounding (2e-7 of its length); the other
        differed by 1e-4 to 8e-4 of its length on photographs and on noise, with a ResNet-50 of random weights.

        Raises UserError for another shape or type and, outside `jit` and `grad`, for values outside [0, 1] and NaN.
        """
        kind, shape = getattr(images, "dtype", None), getattr(images, "shape", None)
        if kind is None or shape is None or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise UserError(f"images: {type(images).__name__} {list(shape or ())}; give float [N, H, W, 3], RGB.")
        if not jnp.issubdtype(kind, jnp.floating):
            raise UserError(f"images: {kind}; give floats in [0, 1], such as image / 255 (`features` takes bytes).")
        # bounds are found so that NaN fails them too
        if not isinstance(images, jax.core.Tracer) and not bool(jnp.all((images >= 0) & (images <= 1))):
            raise UserError("images: NaN or values outside [0, 1]; divide bytes by 255.")
        return self._apply(self._extractor.variables, jnp.asarray(images, jnp.float32))
