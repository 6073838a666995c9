"""Order -> load -> decode -> [distort -> views] -> this process's rows of each global batch.

Two ways with the same images: tf.data, where the JAX functions run through jax2tf, and plain threads, which need no
TensorFlow. Both give batches in order, from any first step.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, UInt8

from contrique_jax.config import DataConfig
from contrique_jax.data.order import Draws, Order
from contrique_jax.data.rows import BrokenLog, authentic_views, load_canvas, load_crops, synthetic_views
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.runtime import host_device
from contrique_jax.views import ViewDraw


class Batch(NamedTuple):
    """This process's rows of one global batch, synthetic and authentic in turn."""

    views: UInt8[np.ndarray, "2 rows size size 3"]
    classes: Int[np.ndarray, " rows"]


class Pipeline:
    """Batches of a run as this process sees them: `pipeline.batches(first, last)`."""

    def __init__(
        self, data: DataConfig, *, pristine: Source, authentic: Source, seed: int, rows: range, broken: BrokenLog
    ):
        """`rows`: this process's share of the global batch, an even number, starting at an even row."""
        self.data, self.pristine, self.authentic, self.broken = data, pristine, authentic, broken
        self.order = Order(
            seed=seed,
            pristine=len(pristine),
            authentic=len(authentic),
            batch_size=data.batch_size,
            rows=rows,
            pristine_share=data.pristine_share,
            type_weights=data.type_weights,
        )
        self.workers = data.workers or os.cpu_count() or 1
        has_tensorflow = importlib.util.find_spec("tensorflow") is not None
        if data.loader == "tfdata" and not has_tensorflow:
            raise UserError("config.data.loader = 'tfdata': TensorFlow is not installed; install it or say 'threads'.")
        self.loader = ("tfdata" if has_tensorflow else "threads") if data.loader == "auto" else data.loader
        self.synthetic_views = functools.partial(
            synthetic_views, size=data.view_size, types=self.order.types, minmax=data.minmax
        )

    def canvas(self, record: int) -> UInt8[np.ndarray, "height width 3"]:
        return load_canvas(self.pristine, int(record), self.data.height, self.data.width, self.broken)

    def crops(self, record: int, views: ViewDraw) -> UInt8[np.ndarray, "2 size size 3"]:
        return load_crops(self.authentic, int(record), views, self.data.view_size, self.broken)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps first..last-1. Raises UserError where a source as a whole cannot be read."""
        return tfdata_batches(self, first, last) if self.loader == "tfdata" else thread_batches(self, first, last)


def interleave(synthetic: np.ndarray, authentic: np.ndarray) -> np.ndarray:
    """[n, ...] and [n, ...] -> [2n, ...], in turn."""
    return np.stack([synthetic, authentic], axis=1).reshape(-1, *synthetic.shape[1:])


def assemble(views: tuple[np.ndarray, np.ndarray], classes: tuple[np.ndarray, np.ndarray]) -> Batch:
    """(synthetic, authentic) views [n, 2, size, size, 3] and classes [n] -> the batch, views first."""
    return Batch(np.ascontiguousarray(interleave(*views).swapaxes(0, 1)), interleave(*classes))


def one_row(views: ViewDraw, row: int) -> ViewDraw:
    return ViewDraw(*(part[row] for part in views))


def thread_batches(pipeline: Pipeline, first: int, last: int) -> Iterator[Batch]:
    """The plain way: a pool of threads, each row decoded by Pillow and finished by a compiled function on the CPU."""
    host = host_device()
    finish_synthetic, finish_authentic = jax.jit(pipeline.synthetic_views), jax.jit(authentic_views)

    def synthetic_row(draws: Draws, row: int) -> np.ndarray:
        canvas = pipeline.canvas(draws.record[row])
        with jax.default_device(host):
            done = finish_synthetic(draws.key[row], canvas, draws.class_id[row], one_row(draws.views, row))
        return np.asarray(done)

    def authentic_row(draws: Draws, row: int) -> np.ndarray:
        views = one_row(draws.views, row)
        crops = pipeline.crops(draws.record[row], views)
        with jax.default_device(host):
            return np.asarray(finish_authentic(crops, views))

    pool = ThreadPoolExecutor(pipeline.workers, thread_name_prefix="rows")
    waiting: collections.deque[tuple[tuple[Draws, Draws], list[list[Future[np.ndarray]]]]] = collections.deque()
    step = first
    try:
        while step < last or waiting:
            while step < last and len(waiting) <= pipeline.data.prefetch:
                draws = pipeline.order(step)
                work: list[tuple[Callable[..., np.ndarray], Draws]] = [
                    (synthetic_row, draws[0]),
                    (authentic_row, draws[1]),
                ]
                waiting.append((draws, [[pool.submit(f, d, row) for row in range(len(d.record))] for f, d in work]))
                step += 1
            draws, (synthetic, authentic) = waiting.popleft()
            views = np.stack([f.result() for f in synthetic]), np.stack([f.result() for f in authentic])
            yield assemble(views, (draws[0].class_id, draws[1].class_id))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def tfdata_half(pipeline: Pipeline, role: int, first: int, last: int, failures: list[Exception]) -> Any:
    """A tf.data set of one half's (views uint8 [2, size, size, 3], class int32), row by row: 0 synthetic, 1 authentic.

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
        chosen = pipeline.order(int(step))[role]
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

    finish = in_graph(pipeline.synthetic_views if role == 0 else authentic_views)

    def synthetic(record: Any, class_id: Any, key: Any, *views: Any) -> Any:
        canvas = tf.numpy_function(told(pipeline.canvas), [record], tf.uint8)
        canvas = tf.ensure_shape(canvas, (data.height, data.width, 3))
        return finish(key, canvas, class_id, ViewDraw(*views)), class_id

    def authentic(record: Any, class_id: Any, key: Any, *views: Any) -> Any:
        crops = tf.numpy_function(
            told(lambda record, *views: pipeline.crops(record, ViewDraw(*views))), [record, *views], tf.uint8
        )
        crops = tf.ensure_shape(crops, (2, data.view_size, data.view_size, 3))
        return finish(crops, ViewDraw(*views)), class_id

    rows = tf.data.Dataset.range(first, last).map(planned).unbatch().map(shaped)
    row = synthetic if role == 0 else authentic
    return rows.map(row, num_parallel_calls=pipeline.workers, deterministic=True)


def tfdata_batches(pipeline: Pipeline, first: int, last: int) -> Iterator[Batch]:
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
    while True:
        try:
            synthetic_rows, authentic_rows = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError:
            if failures:
                raise failures[0] from None
            raise
        views, classes = zip(synthetic_rows, authentic_rows, strict=True)
        yield assemble(views, classes)


def options(workers: int) -> Any:
    """tf.data options: a row is one thread's work, rows run side by side."""
    import tensorflow as tf

    chosen = tf.data.Options()
    chosen.autotune.enabled = False
    chosen.threading.max_intra_op_parallelism = 1
    chosen.threading.private_threadpool_size = workers + 2
    return chosen
