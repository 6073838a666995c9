"""Two-scale features of images of any size.

An image at its own size and at half size, each through the frozen encoder; its last map globally averaged and L2-normalised,
or the statistics of all its stages (`model.features`); concatenated, full scale first (docs/protocol.md).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from contrique_jax.augment.half import half_scale
from contrique_jax.config import ModelConfig
from contrique_jax.data.decode import read
from contrique_jax.data.sizes import MAX_MEGAPIXELS, half_size, promised_size, read_fitted, to_shorter_side
from contrique_jax.errors import BrokenImage, UserError
from contrique_jax.inference.clip_features import SECONDS_BETWEEN, clip_features, images_and_clips
from contrique_jax.inference.file_features import FileFeatures, gather
from contrique_jax.inference.runner import Runner, limits
from contrique_jax.io.machine import available_cores
from contrique_jax.io.progress import ahead, chunks
from contrique_jax.networks.encoder import Variables, encode, encode_windows, feature_width
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.recipes.recipe import Reference

# Images whose features are computed together and then handed on: this many, or as few as have this many pixels.
CHUNK_IMAGES, CHUNK_PIXELS = 256, {"cpu": 1 << 23, "other": 1 << 26}

LOOKED_AT = 1024  # files whose headers are read to choose shapes

WINDOW_CHUNK_IMAGES = 16  # of which each window has features

RGB = UInt8[np.ndarray, "h w 3"]


def two_scale_features(
    model: ModelConfig, variables: Variables, images: Float[Array, "n h w 3"]
) -> Float[Array, "n d"]:
    """Features of a batch of images of one size, float in [0, 1]: pure, jits and differentiates.

    The half size is computed here, with Pillow's bicubic kernel but without its rounding to bytes; all else equals
    `Extractor.features`.
    """
    return jnp.concatenate([encode(model, variables, images), encode(model, variables, half_scale(images))], axis=1)


class Extractor:
    """A frozen network, ready for images of any size.

    It computes in float32 whatever the network was trained in, so that a probe fits on every machine. Images of many
    sizes share few compiled shapes: see `batching`.
    """

    scales, views = 2, 1  # sizes of an image that are looked at, and at how many parts of each
    gives_scores = False
    takes_reference: Reference = "never"
    references: Any = None  # which images are judged beside (`pairs.References`)
    seconds_between, block_frames = SECONDS_BETWEEN, 8  # of clips

    def __init__(
        self,
        model: ModelConfig,
        variables: Variables,
        *,
        max_megapixels: float = MAX_MEGAPIXELS,
        shorter_side: int | None = None,
        workers: int = 0,
        windows: bool = False,
        memory: float | None = None,
    ):
        """Images are first brought to `shorter_side` (`to_shorter_side`; default: left alone), files scaled down where they
        still have more than `max_megapixels` (10^6 pixels). `workers`: decoding threads, 0 is one a core.
        `windows`: `stream` gives the features of every window too. `memory`: gigabytes for the maps of one image, by
        default half of what is free; larger images are computed in tiles, or if even that is too much scaled down."""
        self.model = dataclasses.replace(model, compute_dtype="float32")
        self.variables = jax.device_put(variables)
        self.model_hash = content_hash(model, variables)
        self.width = self.scales * feature_width(model)
        self.shorter_side = shorter_side
        self._workers, self._windows, self.memory = workers or available_cores(), windows, memory
        self.max_megapixels, size = limits(max_megapixels, memory, self.model, variables)
        about = repr((dataclasses.astuple(self.model), self.model_hash))
        self._runner = Runner(
            functools.partial(encode_windows if windows else _encode, self.model), self.variables, feature_width(model),
            about, self.model, windows=windows, memory=size,
        )  # fmt: skip

    def features(self, images: Sequence[RGB]) -> Float[np.ndarray, "n d"]:
        """Features of uint8 RGB arrays [H, W, 3] of any sizes, none scaled down but to `shorter_side`. Raises UserError
        for others."""
        out = np.empty((len(images), self.width), np.float32)
        for i, item in enumerate(self.stream_arrays((Path(f"image {i}"), image) for i, image in enumerate(images))):
            if item.broken:
                raise UserError(f"{item.broken}; scale it down first.")
            out[i] = item.features
        return out

    def stream_arrays(self, images: Iterable[tuple[Path, RGB]]) -> Iterator[FileFeatures]:
        """As `stream`, of named arrays as for `features`, several together. Raises UserError for others."""

        def loaded() -> Iterator[tuple[FileFeatures, tuple[RGB, ...] | None]]:
            for i, (path, image) in enumerate(images):
                image = _checked(image, i)
                if self.shorter_side is not None:
                    image = to_shorter_side(image, self.shorter_side)
                try:
                    yield FileFeatures(path, None), self._scaled(self._seen(path, image))
                except BrokenImage as error:
                    yield FileFeatures(path, None, broken=error), None

        yield from self._through(loaded())

    def with_windows(self, image: RGB) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "g g d"]]:
        """Features of one uint8 RGB array and of each of its windows, of an extractor that gives these. Raises UserError
        for others."""
        (item,) = self.stream_arrays([(Path("image"), image)])
        if item.features is None:
            raise UserError(f"{item.broken}; scale it down first.")
        assert item.windows is not None, "made without windows=True"
        return item.features, item.windows

    def from_files(
        self, paths: Sequence[Path], *, progress: bool = True
    ) -> tuple[list[Path], Float[np.ndarray, "n d"], list[BrokenImage]]:
        """(paths that could be read, their features, what was wrong with the others); on a terminal with a bar.

        The files that were scaled down are named on stderr.
        """
        return gather(self, self.stream(paths), len(paths), progress)

    def stream(self, paths: Iterable[Path]) -> Iterator[FileFeatures]:
        """The same file by file, in order, holding a bounded number of images however many there are; clips among them have
        features too (`clip_features`), by default the mean of two frames a second."""
        return images_and_clips(paths, self._images, functools.partial(clip_features, self))

    def of_block(self, images: list[RGB]) -> Float[np.ndarray, " d"]:
        """The mean of the features of a clip's frames. Raises BrokenImage, without the clip's name, if memory does not
        suffice."""
        return self.of_frames(images).mean(axis=0)

    def of_frames(self, images: list[RGB]) -> Float[np.ndarray, "n d"]:
        """Features of each frame by itself."""
        rows, _, failed = self._finish(self._start([self._scaled(image) for image in images]))
        if failed:
            raise BrokenImage("", next(iter(failed.values())))
        return rows

    def _images(self, paths: Iterable[Path]) -> Iterator[FileFeatures]:
        looked_at = paths if isinstance(paths, Sequence) else ()
        yield from self.stream_read(((path, functools.partial(read, path)) for path in paths), looked_at)

    def stream_read(
        self, images: Iterable[tuple[Path, Callable[[], RGB]]], looked_at: Sequence[Path] = ()
    ) -> Iterator[FileFeatures]:
        """As `stream`, of images that functions read, in threads while the network is at work on earlier ones; a function
        raises BrokenImage if there is none. `looked_at`: files whose headers tell the sizes beforehand, if there are any."""
        pool = ThreadPoolExecutor(self._workers)
        try:
            if looked_at:
                self._prepare(looked_at, pool)
            yield from self._through(ahead(pool, self._load, images, 2 * self._workers))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # a read may never end

    def _through(self, loaded: Iterable[tuple[FileFeatures, tuple[RGB, ...] | None]]) -> Iterator[FileFeatures]:
        """Images through the network, one chunk ahead of what is taken."""
        most = WINDOW_CHUNK_IMAGES if self._windows else CHUNK_IMAGES
        full = CHUNK_PIXELS["cpu" if jax.default_backend() == "cpu" else "other"]
        waiting: tuple[list[FileFeatures], Any] | None = None
        for chunk in chunks(loaded, most, full, lambda entry: entry[1][0].size // 3 if entry[1] else 0):
            started = self._start([pair for _, pair in chunk if pair is not None])
            if waiting:
                yield from self._filled(*waiting)
            waiting = ([item for item, _ in chunk], started)
        if waiting:
            yield from self._filled(*waiting)

    def apply(self, variables: Variables, images: Float[Array, "n h w 3"]) -> Float[Array, "n d"]:
        """Features of a batch of images of one size, float in [0, 1]: pure."""
        return two_scale_features(self.model, variables, images)

    def with_maps(self) -> Extractor:
        """The same network with the features of windows."""
        return Extractor(
            self.model, self.variables, max_megapixels=self.max_megapixels, shorter_side=self.shorter_side,
            workers=self._workers, windows=True, memory=self.memory,
        )  # fmt: skip

    def _prepare(self, paths: Sequence[Path], pool: ThreadPoolExecutor) -> None:
        """Chooses and compiles shapes by what the headers of some of the files promise."""
        looked_at = paths[:: -(-len(paths) // LOOKED_AT)] if paths else []
        promised = pool.map(lambda path: promised_size(path, self.max_megapixels, self.shorter_side), looked_at)
        self._compile([size for size in promised if size is not None], pool)

    def _compile(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        """The same for images of such sizes."""
        halves = [(max(height // 2, 1), max(width // 2, 1)) for height, width in sizes] if self.scales > 1 else []
        self._runner.prepare([*sizes, *halves], pool)

    def fix_shapes(self, sizes: Sequence[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        """For images whose sizes are not known beforehand: programs for images up to each of these heights and widths, begun
        on the threads of `pool`. With as many as there may be, others are compiled for no image later."""
        self._runner.prepare(sizes, pool, fixed=True)

    def _seen(self, path: Path, image: RGB) -> RGB:
        """What the network sees of an image. Raises BrokenImage, naming it, if that cannot be had."""
        return image

    def _scaled(self, image: RGB) -> tuple[RGB, ...]:
        """What goes through the network: the image at each size of which there are features, or the parts of it at each."""
        return image, half_size(image)

    def _load(self, given: tuple[Path, Callable[[], RGB]]) -> tuple[FileFeatures, tuple[RGB, ...] | None]:
        path, read_it = given
        try:
            image, reduced = read_fitted(str(path), read_it, self.max_megapixels, self.shorter_side)
            return FileFeatures(path, None, reduced=reduced), self._scaled(self._seen(path, image))
        except BrokenImage as error:
            return FileFeatures(path, None, broken=error), None

    def _start(self, pairs: list[tuple[RGB, ...]]) -> Any:
        """Queues every batch on the device; `_finish` takes what it gives."""
        return self._runner.start([image for pair in pairs for image in pair])

    def _finish(
        self, started: Any
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n g g d"] | None, dict[int, str]]:
        """Features of images, of their windows if these are wanted, and why some have none."""
        out, windows, failed = self._runner.finish(started)
        if not np.isfinite(out).all():
            raise UserError(f"model {self.model_hash}: it gives NaN or infinity as features; check its weights.")
        if windows is not None:
            windows = np.concatenate([windows[::2], windows[1::2]], axis=3)
        each = self.scales * self.views
        return (
            out.reshape(-1, self.scales, self.views, self.width // self.scales).mean(2).reshape(-1, self.width),
            windows,
            {place // each: failed[place] for place in sorted(failed, reverse=True)},
        )

    def _filled(self, items: list[FileFeatures], started: Any) -> Iterator[FileFeatures]:
        features, windows, failed = self._finish(started)
        place = 0
        for item in items:
            if item.broken is None:
                if place in failed:
                    item = dataclasses.replace(item, broken=BrokenImage(str(item.path), failed[place]))
                else:
                    parts = None if windows is None else windows[place]
                    item = dataclasses.replace(item, features=features[place], windows=parts)
                place += 1
            yield item


def _encode(
    model: ModelConfig, variables: Variables, images: Array, valid: Array | None
) -> tuple[Float[Array, "n d"], None]:
    return encode(model, variables, images, valid), None


def _checked(image: Any, i: int) -> RGB:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"image {i} is {found}; give uint8 RGB arrays [H, W, 3].")
    if image.size == 0:
        raise UserError(f"image {i} has no pixels.")
    return np.ascontiguousarray(image)
