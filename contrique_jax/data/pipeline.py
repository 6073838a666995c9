"""Draw -> load -> finish -> this process's rows of each global batch, for any recipe.

With `data.augment_on = "device"` examples leave as loaded, and the training step finishes them.

Two ways with the same batches: tf.data, where the JAX functions run through jax2tf, and plain threads, which need no
TensorFlow. Both give batches in order, from any first step.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import numpy as np

from contrique_jax.config import Config
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.order import check_sizes
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.io.machine import ONE_THREAD, available_cores, host_device

Tree = Any
Sources = Mapping[str, Source]  # by role


class RowRecipe(Protocol):
    """How rows are made, as far as a loader must know. Row r of a global batch is of role r mod len(roles)."""

    @property
    def roles(self) -> tuple[str, ...]:
        """The fields of config.data that are sources."""

    def prepared(self, config: Any, sources: Sources, broken: BrokenLog) -> Sources:
        """The sources as the functions below take them: what costs much and is the same in every epoch is done here, once
        before the first step. Most recipes hand them on."""

    # pure functions of (seed, step, row), so that a run resumes exactly on any number of hosts

    def draw(self, config: Any, sources: Sources, step: int, rows: range) -> tuple[Tree, ...]:
        """The random choices for these rows of the global batch of 0-based `step`: a tree of arrays [n, ...] for each role."""

    def load(self, config: Any, sources: Sources, role: int, draws: Tree, row: int, broken: BrokenLog) -> Tree:
        """The example of one row of a role's draws, NumPy arrays of the shapes that `example_shapes` gives."""

    def example_shapes(self, config: Any, sources: Sources | None = None) -> tuple[Tree, ...]:
        """Of each role the shapes and dtypes of one example; without sources, of photographs as config.data has them."""

    def finish_row(self, config: Any, role: int, example: Tree) -> Tree:
        """One example -> its row of the batch, in JAX."""


def in_turn(parts: Sequence[Any], stack: Callable[..., Any]) -> Any:
    """[n, ...] of each role -> [roles x n, ...], in turn, by the `stack` of NumPy or of JAX."""
    return stack(parts, axis=1).reshape(-1, *parts[0].shape[1:])


class Pipeline:
    """Batches of a run as this process sees them: `pipeline.batches(first, last)`."""

    def __init__(self, config: Config, recipe: RowRecipe, sources: Sources, *, rows: range, broken: BrokenLog):
        """`rows`: this process's share of the global batch, a multiple of the roles. Raises UserError if a
        source cannot fill its share of a batch or the loader is not installed."""
        sources = recipe.prepared(config, sources, broken)
        self.config, self.recipe, self.sources, self.rows, self.broken = config, recipe, sources, rows, broken
        self.counts = {role: len(source) for role, source in sources.items()}
        check_sizes(
            self.counts, config.data.batch_size, min(getattr(source, "views", 1) for source in sources.values())
        )
        self.roles = range(len(recipe.roles))
        self.on_device = config.data.augment_on == "device"
        self._draw = functools.lru_cache(maxsize=4)(lambda step: recipe.draw(config, sources, step, rows))
        self._drawing = threading.Lock()
        self.workers = config.data.workers or available_cores()
        loader, has_tensorflow = config.data.loader, importlib.util.find_spec("tensorflow") is not None
        if loader == "tfdata" and not has_tensorflow:
            raise UserError(
                "config.data.loader = 'tfdata': TensorFlow is not installed; install it or set it to 'threads'."
            )
        self.loader = ("tfdata" if has_tensorflow else "threads") if loader == "auto" else loader

    @property
    def share(self) -> int:
        """Rows of each role in a batch of this process."""
        return len(self.rows) // len(self.roles)

    def example(self, step: int, role: int, row: int) -> Tree:
        """One row's example, NumPy; safe to call from many threads."""
        with self._drawing:  # else each thread would draw
            draws = self._draw(step)[role]
        return self.recipe.load(self.config, self.sources, role, draws, row, self.broken)

    def finish_row(self, role: int) -> Callable[[Tree], Tree]:
        """The JAX function that finishes an example of a role."""
        return functools.partial(self.recipe.finish_row, self.config, role)

    def batches(self, first: int, last: int) -> Iterator[Tree]:
        """The batches of steps first..last-1: finished, or with `augment_on` "device" each role's examples. Raises UserError
        if a source as a whole cannot be read."""
        parts = tfdata_parts(self, first, last) if self.loader == "tfdata" else thread_parts(self, first, last)
        for roles in parts:
            yield roles if self.on_device else jax.tree.map(lambda *each: in_turn(each, np.stack), *roles)


def thread_parts(pipeline: Pipeline, first: int, last: int) -> Iterator[tuple[Tree, ...]]:
    """The plain way: a pool of threads, each row loaded there and finished by a compiled function on the CPU."""
    host = host_device()
    finish = [jax.jit(pipeline.finish_row(role), compiler_options=ONE_THREAD) for role in pipeline.roles]

    def make(step: int, role: int, row: int) -> Tree:
        example = pipeline.example(step, role, row)
        if pipeline.on_device:
            return example
        with jax.default_device(host):
            return jax.tree.map(np.asarray, finish[role](example))

    pool = ThreadPoolExecutor(pipeline.workers, thread_name_prefix="rows")
    waiting: collections.deque[list[list[Future[Tree]]]] = collections.deque()
    step = first
    try:
        while step < last or waiting:
            while step < last and len(waiting) <= pipeline.config.data.prefetch:
                rows = range(pipeline.share)
                waiting.append([[pool.submit(make, step, role, row) for row in rows] for role in pipeline.roles])
                step += 1
            made = [[row.result() for row in role] for role in waiting.popleft()]
            yield tuple(jax.tree.map(lambda *each: np.stack(each), *rows) for rows in made)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def tfdata_rows(pipeline: Pipeline, role: int, first: int, last: int, failures: dict[int, Exception]) -> Any:
    """A tf.data set of one role's rows, finished unless the device does that, as flat tuples of the tree's leaves.

    Rows are loaded by Python in parallel, then finished by the JAX functions through jax2tf: one branch a row. An
    exception inside is left in `failures` by its step, and the row is zero: tf.data would print hundreds of lines of it.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    shapes = pipeline.recipe.example_shapes(pipeline.config, pipeline.sources)[role]
    leaves, structure = jax.tree.flatten(shapes)

    def load(number: Any) -> Any:
        step = int(number) // pipeline.share
        try:
            if step in failures:
                raise failures[step]
            example = pipeline.example(step, role, int(number) % pipeline.share)
            return [np.asarray(x, leaf.dtype) for x, leaf in zip(jax.tree.leaves(example), leaves, strict=True)]
        except Exception as error:
            failures.setdefault(step, error)
            return [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]

    def finish(*flat: Any) -> Any:
        return tuple(jax.tree.leaves(pipeline.finish_row(role)(jax.tree.unflatten(structure, flat))))

    in_graph = tf.function(
        jax2tf.convert(finish, with_gradient=False, native_serialization_platforms=("cpu",)),
        autograph=False,
        jit_compile=False,
    )

    def row(number: Any) -> Any:
        flat = tf.numpy_function(load, [number], [tf.as_dtype(leaf.dtype) for leaf in leaves])
        flat = [tf.ensure_shape(x, leaf.shape) for x, leaf in zip(flat, leaves, strict=True)]
        return tuple(flat) if pipeline.on_device else in_graph(*flat)

    numbers = tf.data.Dataset.range(first * pipeline.share, last * pipeline.share)
    return numbers.map(row, num_parallel_calls=pipeline.workers, deterministic=True)


def tfdata_parts(pipeline: Pipeline, first: int, last: int) -> Iterator[tuple[Tree, ...]]:
    """The same through tf.data."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no TensorFlow kernel is used, and it is announced on stderr
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerators belong to the training step
    failures: dict[int, Exception] = {}
    examples = pipeline.recipe.example_shapes(pipeline.config, pipeline.sources)
    structures = [
        jax.tree.structure(
            examples[role] if pipeline.on_device else jax.eval_shape(pipeline.finish_row(role), examples[role])
        )
        for role in pipeline.roles
    ]
    rows = [tfdata_rows(pipeline, role, first, last, failures) for role in pipeline.roles]
    dataset = tf.data.Dataset.zip(tuple(each.batch(pipeline.share, drop_remainder=True) for each in rows))
    dataset = dataset.prefetch(pipeline.config.data.prefetch).with_options(options(pipeline.workers))
    iterator = iter(dataset.as_numpy_iterator())
    for step in range(first, last):
        roles = next(iterator)
        if step in failures:
            raise failures[step]
        yield tuple(jax.tree.unflatten(*each) for each in zip(structures, roles, strict=True))


def options(workers: int) -> Any:
    """tf.data options: a row is one thread's work, rows run side by side."""
    import tensorflow as tf

    chosen = tf.data.Options()
    chosen.autotune.enabled = False
    chosen.threading.max_intra_op_parallelism = 1
    chosen.threading.private_threadpool_size = workers + 2
    return chosen
