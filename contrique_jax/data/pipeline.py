"""Order -> load -> decode -> distort -> views -> this process's rows of each global batch.

Authentic photographs, and distorted ones that come ready with their classes, go without the distortion: crops are cut
from them at their own size.

With `data.augment_on = "device"` the rows leave as decoded: distortion and views are taken in the training step.

Two ways with the same images: tf.data, where the JAX functions run through jax2tf, and plain threads, which need no
TensorFlow. Both give batches in order, from any first step.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int32, UInt8

from contrique_jax.augment.batches import Canvases, Crops, Rows, cropped_views, in_turn, synthetic_views
from contrique_jax.augment.views import ViewDraw, draw_at
from contrique_jax.config import DataConfig
from contrique_jax.data.order import Draws, Order
from contrique_jax.data.rows import BrokenLog, load_canvas, load_crops
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.io.machine import ONE_THREAD, available_cores, host_device

Row = tuple[UInt8[np.ndarray, "..."], Int32[np.ndarray, ""]]  # pixels and the class


class Batch(NamedTuple):
    """This process's rows of one global batch, synthetic and authentic in turn."""

    views: UInt8[np.ndarray, "rows 2 size size 3"]
    classes: Int[np.ndarray, " rows"]


class Pipeline:
    """Batches of a run as this process sees them: `pipeline.batches(first, last)`."""

    def __init__(
        self, data: DataConfig, *, pristine: Source, authentic: Source, seed: int, rows: range, broken: BrokenLog
    ):
        """`rows`: this process's share of the global batch, an even number, starting at an even row."""
        self.data, self.pristine, self.authentic, self.broken = data, pristine, authentic, broken
        self.ready = pristine.classes is not None
        self.on_device = data.augment_on == "device"
        self.order = Order(
            seed=seed,
            pristine=len(pristine),
            authentic=len(authentic),
            batch_size=data.batch_size,
            rows=rows,
            pristine_share=data.pristine_share,
            type_weights=data.type_weights,
            merge_identities=data.merge_identity_classes,
        )
        self._choose, self._choosing = functools.lru_cache(maxsize=4)(self.order), threading.Lock()
        self.workers = data.workers or available_cores()
        has_tensorflow = importlib.util.find_spec("tensorflow") is not None
        if data.loader == "tfdata" and not has_tensorflow:
            raise UserError("config.data.loader = 'tfdata': TensorFlow is not installed; install it or say 'threads'.")
        self.loader = ("tfdata" if has_tensorflow else "threads") if data.loader == "auto" else data.loader
        self.synthetic_views = functools.partial(
            synthetic_views, size=data.view_size, types=self.order.types, minmax=data.minmax
        )

    def draws(self, step: int) -> tuple[Draws, Draws]:
        """The choices of a step, made once although both halves of a tf.data step ask for them."""
        with self._choosing:
            return self._choose(step)

    def canvas(self, record: int) -> UInt8[np.ndarray, "height width 3"]:
        return load_canvas(self.pristine, int(record), self.data.height, self.data.width, self.broken)

    def crops(
        self, role: int, record: int, class_id: int, views: ViewDraw
    ) -> tuple[UInt8[np.ndarray, "2 size size 3"], Int32[np.ndarray, ""]]:
        """Crops and class of a row that is not distorted here: of a ready image, the class of the record that was read."""
        source = (self.pristine, self.authentic)[role]
        crops, read = load_crops(source, int(record), views, self.data.view_size, self.broken)
        return crops, np.asarray(class_id if source.classes is None else source.classes[read], np.int32)

    def collate(self, step: int, pixels: Sequence[Any], classes: Sequence[Any]) -> Batch | Rows:
        """(synthetic, authentic) pixels uint8 [n, ...] and classes [n] of a step -> its batch."""
        if not self.on_device:
            return Batch(in_turn(pixels, np.stack), in_turn(classes, np.stack))
        draws: tuple[Any, Any] = self.draws(step)
        authentic = Crops(pixels[1], classes[1], draws[1].views)
        if self.ready:
            return Rows(Crops(pixels[0], classes[0], draws[0].views), authentic)
        return Rows(Canvases(pixels[0], classes[0], draws[0].key, draws[0].views), authentic)

    def batches(self, first: int, last: int) -> Iterator[Batch | Rows]:
        """The batches of steps first..last-1. Raises UserError where a source as a whole cannot be read."""
        return tfdata_batches(self, first, last) if self.loader == "tfdata" else thread_batches(self, first, last)


def thread_batches(pipeline: Pipeline, first: int, last: int) -> Iterator[Batch | Rows]:
    """The plain way: a pool of threads, each row decoded by Pillow and finished by a compiled function on the CPU."""
    host = host_device()
    finish_distorted, finish_cropped = (
        jax.jit(finish, compiler_options=ONE_THREAD) for finish in (pipeline.synthetic_views, cropped_views)
    )

    def distorted_row(draws: Draws, row: int) -> Row:
        canvas = pipeline.canvas(draws.record[row])
        if pipeline.on_device:
            return canvas, draws.class_id[row]
        with jax.default_device(host):
            done = finish_distorted(draws.key[row], canvas, draws.class_id[row], draw_at(draws.views, row))
        return np.asarray(done), draws.class_id[row]

    def cropped_row(role: int, draws: Draws, row: int) -> Row:
        views = draw_at(draws.views, row)
        crops, class_id = pipeline.crops(role, draws.record[row], draws.class_id[row], views)
        if pipeline.on_device:
            return crops, class_id
        with jax.default_device(host):
            return np.asarray(finish_cropped(crops, views)), class_id

    synthetic_row = functools.partial(cropped_row, 0) if pipeline.ready else distorted_row
    makers: list[Callable[[Draws, int], Row]] = [synthetic_row, functools.partial(cropped_row, 1)]
    pool = ThreadPoolExecutor(pipeline.workers, thread_name_prefix="rows")
    waiting: collections.deque[list[list[Future[Row]]]] = collections.deque()
    step = done = first
    try:
        while step < last or waiting:
            while step < last and len(waiting) <= pipeline.data.prefetch:
                work = zip(makers, pipeline.draws(step), strict=True)
                waiting.append([[pool.submit(make, d, row) for row in range(len(d.record))] for make, d in work])
                step += 1
            halves = [[row.result() for row in half] for half in waiting.popleft()]
            pixels, classes = ([np.stack([row[part] for row in half]) for half in halves] for part in (0, 1))
            yield pipeline.collate(done, pixels, classes)
            done += 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def tfdata_half(pipeline: Pipeline, role: int, first: int, last: int, failures: list[Exception]) -> Any:
    """A tf.data set of one half's (pixels uint8, class int32), row by row: 0 synthetic, 1 authentic.

    Rows are decoded by Pillow in parallel, then finished by the JAX functions through jax2tf: one branch a row. An
    exception inside is left in `failures`, because tf.data hides it behind an error of its own.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    data = pipeline.data
    types = (tf.int64, tf.int32, tf.uint32, tf.int32, tf.float32, tf.float32, tf.int32, tf.bool)
    shapes = ((), (), (2,), *[(2,)] * len(ViewDraw._fields))

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except Exception as error:
                failures.append(error)
                raise

        return call

    def draws(step: Any) -> tuple[Any, ...]:
        chosen = pipeline.draws(int(step))[role]
        return (chosen.record.astype(np.int64), chosen.class_id, chosen.key, *chosen.views)

    def planned(step: Any) -> Any:
        return tf.numpy_function(told(draws), [step], types)

    def shaped(*parts: Any) -> tuple[Any, ...]:
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes, strict=True))

    def in_graph(function: Callable[..., Any]) -> Callable[..., Any]:
        return tf.function(
            jax2tf.convert(function, with_gradient=False, native_serialization_platforms=("cpu",)),
            autograph=False,
            jit_compile=False,
        )

    distorts = role == 0 and not pipeline.ready
    finish = in_graph(pipeline.synthetic_views if distorts else cropped_views)

    def distorted(record: Any, class_id: Any, key: Any, *views: Any) -> Any:
        canvas = tf.numpy_function(told(pipeline.canvas), [record], tf.uint8)
        canvas = tf.ensure_shape(canvas, (data.height, data.width, 3))
        return canvas if pipeline.on_device else finish(key, canvas, class_id, ViewDraw(*views)), class_id

    def crops_of(record: Any, class_id: Any, *views: Any) -> Any:
        return pipeline.crops(role, record, class_id, ViewDraw(*views))

    def cropped(record: Any, class_id: Any, key: Any, *views: Any) -> Any:
        crops, class_id = tf.numpy_function(told(crops_of), [record, class_id, *views], (tf.uint8, tf.int32))
        crops = tf.ensure_shape(crops, (2, data.view_size, data.view_size, 3))
        crops = crops if pipeline.on_device else finish(crops, ViewDraw(*views))
        return crops, tf.ensure_shape(class_id, ())

    rows = tf.data.Dataset.range(first, last).map(planned).unbatch().map(shaped)
    return rows.map(distorted if distorts else cropped, num_parallel_calls=pipeline.workers, deterministic=True)


def tfdata_batches(pipeline: Pipeline, first: int, last: int) -> Iterator[Batch | Rows]:
    """The same batches through tf.data."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no TensorFlow kernel is used, and it is announced on stderr
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to the training step
    failures: list[Exception] = []
    half = len(pipeline.order.rows) // 2
    halves = [tfdata_half(pipeline, role, first, last, failures).batch(half, drop_remainder=True) for role in (0, 1)]
    dataset = (
        tf.data.Dataset.zip(tuple(halves)).prefetch(pipeline.data.prefetch).with_options(options(pipeline.workers))
    )
    iterator = iter(dataset.as_numpy_iterator())
    for step in range(first, last):
        try:
            synthetic_rows, authentic_rows = next(iterator)
        except tf.errors.OpError:
            if failures:
                raise failures[0] from None
            raise
        pixels, classes = zip(synthetic_rows, authentic_rows, strict=True)
        yield pipeline.collate(step, pixels, classes)


def options(workers: int) -> Any:
    """tf.data options: a row is one thread's work, rows run side by side."""
    import tensorflow as tf

    chosen = tf.data.Options()
    chosen.autotune.enabled = False
    chosen.threading.max_intra_op_parallelism = 1
    chosen.threading.private_threadpool_size = workers + 2
    return chosen
