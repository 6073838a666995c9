"""Lists of images of any sizes through one network: in few compiled shapes, in bounded memory, one by one if need be."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from contrique_jax.config import ModelConfig
from contrique_jax.data.sizes import LEAST_SIDE
from contrique_jax.errors import UserError
from contrique_jax.inference.batching import Batch, Canvases, Size, batch_images
from contrique_jax.inference.file_features import no_room
from contrique_jax.inference.programs import Programs
from contrique_jax.inference.tiled import map_bytes, tile_arguments, tiled_features
from contrique_jax.io.machine import available_cores, free_memory, no_memory
from contrique_jax.networks.host_pooling import WINDOWS
from contrique_jax.networks.tiles import Piece, run_tile

RGB = UInt8[np.ndarray, "h w 3"]
Encode = Callable[[Any, Array, Array | None], tuple[Array, Array | None]]
# images with more pixels go in tiles: a whole program of that size would take about a gigabyte
TILED_FROM = {"cpu": 1 << 21, "other": 1 << 24}
BATCH_PIXELS = {"cpu": 1, "other": 1 << 23}  # what keeps a GPU busy; a CPU's caches are best filled by one image
TOGETHER = {"cpu": 2, "other": 1}  # programs at work
# a pixel: of a whole program at most, of what images are read, halved and stacked in
PROGRAM_BYTES, IMAGE_BYTES = 400, 12


@dataclass
class Started:
    """Images on their way through the network."""

    images: list[RGB]
    batches: list[tuple[list[int], Array, Array | None]]  # places, features, windows' features
    apart: list[int]  # places of those that go in tiles


class Runner:
    """A network at work.

    `encode`: (variables, images, valid) -> features and, `with_windows`, those of windows; `about`: all that it depends on
    besides, "" if that is not known; `tiled`: the model, if its encoder's maps can be made in tiles.
    """

    def __init__(
        self, encode: Encode, variables: Any, width: int, about: str, tiled: ModelConfig | None, *,
        windows: bool, memory: int, channels: int = 3, unit: bool = True,
    ):  # fmt: skip
        """`channels`: 3, or 6 of images with their references behind them. `unit`: of pooled features, whether `encode`
        L2-normalises them."""
        self.channels, self._unit = channels, unit
        self.variables, self.width, self.windows, self.tiled = variables, width, windows, tiled
        self._encode, self._programs, self._canvases = encode, Programs(about), Canvases(always=tiled is None)
        self._whole_programs: dict[tuple[int, int, int, bool], Callable[..., tuple[Array, Array | None]]] = {}
        kind = "cpu" if jax.default_backend() == "cpu" else "other"
        self._batch_pixels = BATCH_PIXELS[kind]
        # programs that one thread queues run one after another, and one image does not fill two cores
        together = min(TOGETHER[kind], available_cores())
        self._threads = ThreadPoolExecutor(together)
        self._whole = min(TILED_FROM[kind], memory // together // PROGRAM_BYTES) if tiled else 1 << 62

    @property
    def shapes(self) -> int:
        """How many programs were compiled."""
        return len(self._programs)

    def prepare(self, sizes: Sequence[Size], pool: ThreadPoolExecutor, fixed: bool = False) -> None:
        """Chooses shapes for images of such sizes, and compiles on the threads of `pool` meanwhile. `fixed`: just these."""
        choose = self._canvases.fix if fixed else self._canvases.choose
        choose([size for size in sizes if not self._large(size)])
        if self._batch_pixels > 1:
            return  # how many images go together is not known yet
        for canvas in list(self._canvases.slots):
            pool.submit(self._whole_program, Batch([], 1, canvas.height, canvas.width, not canvas.exact))
        if self.tiled and any(map(self._large, sizes)):
            for piece, *arguments in tile_arguments(self.tiled, self.variables):
                pool.submit(self._tile_program, piece, tuple(arguments))

    def start(self, images: list[RGB]) -> Started:
        """Queues every batch on the device."""
        sizes = [image.shape[:2] for image in images]
        apart = [i for i, size in enumerate(sizes) if self._large(size)]
        rest = [i for i, size in enumerate(sizes) if not self._large(size)]
        batches, left = self._canvases.plan([sizes[i] for i in rest], self._batch_pixels)
        if len({(batch.height, batch.width, batch.padded) for batch in batches}) > 1:
            with ThreadPoolExecutor(available_cores()) as pool:
                list(pool.map(self._try_program, batches))
        started: list[tuple[list[int], Array, Array | None]] = []
        again = [rest[i] for i in left]
        placed = [[rest[i] for i in batch.places] for batch in batches]
        given = ([images[i] for i in places] for places in placed)
        for places, result in zip(placed, self._threads.map(self._queued, given, batches), strict=True):
            if result is None:
                again += places
            else:
                started.append((places, *result))
        return Started(images, started, sorted(apart + again))

    def _queued(self, images: list[RGB], batch: Batch) -> tuple[Array, Array | None] | None:
        """Features of a batch, on their way; None if memory does not suffice."""
        stacked, valid = batch_images(images, batch)
        try:
            return self._whole_program(batch)(self.variables, stacked, valid)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            _check(error)
            return None

    def finish(
        self, started: Started
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "n g g d"] | None, dict[int, str]]:
        """Features, those of windows if they are wanted, and of which images there are none since memory does not suffice."""
        count = len(started.images)
        out = np.zeros((count, self.width), np.float32)
        windows = np.zeros((count, WINDOWS, WINDOWS, self.width), np.float32) if self.windows else None
        apart, failed = list(started.apart), {}
        for places, rows, parts in started.batches:
            try:
                out[places] = np.asarray(rows)[: len(places)]
                if windows is not None:
                    windows[places] = np.asarray(parts)[: len(places)]
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                _check(error)
                apart += places
        for i in apart:
            try:
                out[i], grid = self._by_tiles(started.images[i])
                if windows is not None:
                    windows[i] = grid
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                _check(error)
                failed[i] = no_room(started.images[i])
        return out, windows, failed

    def _by_tiles(self, image: RGB) -> tuple[np.ndarray, np.ndarray | None]:
        if self.tiled is None:
            raise MemoryError
        return tiled_features(self.tiled, self.variables, image, self._run_tile, self.windows, self._unit)

    def _run_tile(self, piece: Piece, weights: Any, tile: np.ndarray, places: np.ndarray) -> Array:
        arguments = (weights, tile, places)
        return self._tile_program(piece, arguments)(*arguments)

    def _tile_program(self, piece: Piece, arguments: tuple[Any, ...]) -> Callable[..., Array]:
        assert self.tiled is not None
        # blocks of one shape share a program: the name tells what their shapes do not
        name = f"{'block' if piece.path else 'start'} {piece.steps} {piece.tile}"
        return self._programs.get(name, functools.partial(run_tile, self.tiled, piece), arguments)

    def _whole_program(self, batch: Batch) -> Callable[..., tuple[Array, Array | None]]:
        shape = (batch.slots, batch.height, batch.width, batch.padded)
        if shape not in self._whole_programs:  # `get` looks at every weight, which takes as long as a small image
            images = jax.ShapeDtypeStruct((batch.slots, batch.height, batch.width, self.channels), jnp.uint8)
            valid = jax.ShapeDtypeStruct((batch.slots, 2), jnp.int32) if batch.padded else None
            name, arguments = "windows" if self.windows else "whole", (self.variables, images, valid)
            self._whole_programs[shape] = self._programs.get(name, self._encode, arguments)
        return self._whole_programs[shape]

    def _try_program(self, batch: Batch) -> None:
        try:
            self._whole_program(batch)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            _check(error)

    def _large(self, size: Sequence[int]) -> bool:
        return max(size[0], LEAST_SIDE) * max(size[1], LEAST_SIDE) > self._whole


def limits(
    max_megapixels: float, memory: float | None, tiled: ModelConfig | None, variables: Any, in_crops: bool = False
) -> tuple[float, int]:
    """How many megapixels images may have, and how many bytes their maps; `in_crops`: there are only maps of crops. Raises
    UserError for values that make no sense."""
    for name, value in (("max-megapixels", max_megapixels), ("memory", memory)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value}: must be above 0 and finite.")
    size = free_memory() // 2 if memory is None else int(memory * 1e9)
    return min(max_megapixels, max(round(size / _bytes_each(tiled, variables, in_crops) / 1e6, 1), 0.1)), size


def _bytes_each(tiled: ModelConfig | None, variables: Any, in_crops: bool) -> float:
    """Bytes that a pixel of an image takes with its share of the maps."""
    if in_crops:
        return IMAGE_BYTES
    return IMAGE_BYTES + (map_bytes(tiled, variables, 1024, 1024) / (1 << 20) if tiled else PROGRAM_BYTES)


def _check(error: BaseException) -> None:
    """Raises what is no lack of memory."""
    if not no_memory(error):
        raise error
