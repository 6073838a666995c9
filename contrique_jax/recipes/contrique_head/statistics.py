"""Statistics of every view of every photograph by the frozen trunk, computed once and kept in the user's cache.

A file a photograph, named by the photograph's pixels, in a folder named by the trunk's weights and all that a view depends
on. What is random about a view comes from (seed, pixels, its number): another photograph in the folder, or more views,
cost only themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any

import jax
import numpy as np
from jaxtyping import Float16, Int16, UInt8

from contrique_jax.augment.views import COLOURS
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_image
from contrique_jax.data.pipeline import Sources
from contrique_jax.data.sources import Source
from contrique_jax.errors import UserError
from contrique_jax.io.machine import ONE_THREAD, available_cores, free_memory, host_device
from contrique_jax.networks import encoder
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.recipes.contrique import order
from contrique_jax.recipes.contrique import recipe as contrique
from contrique_jax.recipes.contrique.order import Draws
from contrique_jax.recipes.contrique_head.config import HeadConfig
from contrique_jax.recipes.kept_vectors import KeptVectors, as_halves, frozen, of_all

VERSION = 1  # raise it when the same pixels, weights and settings give other statistics
TOGETHER = 4  # views that go through the trunk at once, whatever their number, so that their numbers stay the same

Vectors = Float16[np.ndarray, "views 2 d"]


class Described:
    """A source whose record r is view r % views of photograph r // views."""

    def __init__(
        self, images: Source, vectors: Float16[np.ndarray, "n views 2 d"], classes: Int16[np.ndarray, " n"] | None
    ):
        self.name, self.images, self.views = images.name, images, vectors.shape[1]
        self.vectors, self.classes = vectors.reshape(-1, *vectors.shape[2:]), classes

    def __len__(self) -> int:
        return len(self.vectors)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        return self.images.load(i // self.views)

    def item_name(self, i: int) -> str:
        return f"{self.images.item_name(i // self.views)} #{i % self.views}"


class _One:
    """A photograph that is loaded already, as a source."""

    def __init__(self, name: str, stack: UInt8[np.ndarray, "k h w 3"], classes: Int16[np.ndarray, " 1"] | None):
        self.name, self.stack, self.classes = name, stack, classes

    def __len__(self) -> int:
        return 1

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        return self.stack

    def item_name(self, i: int) -> str:
        return self.name


def described(config: HeadConfig, sources: Sources, trunk: encoder.Variables, broken: BrokenLog) -> dict[str, Source]:
    """Each source with the statistics of its photographs' views. Raises UserError where 100 photographs in a row cannot be
    read, and for a trunk that gives NaN."""
    name = content_hash(config.model.of_trunk, trunk)
    return {role: _Describer(config, role, sources[role], trunk, name).run(broken) for role in contrique.roles}


class _Describer:
    def __init__(self, config: HeadConfig, role: str, source: Source, trunk: encoder.Variables, trunk_hash: str):
        self.config, self.role, self.source, self.trunk_hash = config, contrique.roles.index(role), source, trunk_hash
        self.ready = source.classes is not None
        self.views = -(-config.data.views // TOGETHER) * TOGETHER
        width = encoder.feature_width(config.model.of_trunk)
        self.nothing = np.zeros((0, 2, width), np.float16)
        self.store = KeptVectors(
            f"views/{trunk_hash}-{self._settings()}",
            lambda kept: kept.shape[1:] == (2, width) and len(kept) % TOGETHER == 0,
        )
        self.trunk = jax.device_put(trunk)
        self.encode = frozen(dataclasses.astuple(config.model.of_trunk))
        finish = functools.partial(contrique.finish_row, config, self.role)
        self.finish = jax.jit(finish, compiler_options=ONE_THREAD)

    def _settings(self) -> str:
        """A name for all that a view depends on, but the photograph and the view's number."""
        data = self.config.data
        kept: list[Any] = [VERSION, self.config.train.seed, self.role, self.ready, data.view_size, data.colours]
        if self.role == 0 and not self.ready:
            kept += [data.height, data.width, data.pristine_share, order.type_table(data.type_weights), data.minmax]
        return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]

    def run(self, broken: BrokenLog) -> Source:
        count, data = len(self.source), self.config.data
        self._check_memory(count)
        vectors: Any = None
        classes = np.zeros((count, data.views), np.int16)
        workers = data.workers or available_cores()
        every = of_all(
            self._views,
            count,
            broken,
            workers,
            2 * workers,
            what=f"statistics of {self.source.name}",
            unit="photograph",
        )
        for number, (content, known, own, crops) in every:
            if len(crops):
                known = np.concatenate([known, self._encoded(crops)]) if len(known) else self._encoded(crops)
                self.store.put(content, known)
            if vectors is None:
                vectors = np.zeros((count, data.views, *known.shape[1:]), np.float16)
            vectors[number], classes[number] = known[: data.views], own[: data.views]
        return Described(self.source, vectors, classes.reshape(-1) if self.role == 0 else None)

    def _check_memory(self, count: int) -> None:
        """Raises UserError if what a run holds of so many photographs does not fit, before hours are spent on it."""
        views, free = self.config.data.views, free_memory()
        size = count * views * 2 * self.nothing.shape[2] * self.nothing.itemsize
        if size > free:
            raise UserError(
                f"config.data.{contrique.roles[self.role]}: the statistics of {views} views of {count:,} photographs take "
                f"{size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; take fewer photographs, or set "
                "--config.data.views lower."
            )

    def _views(self, asked: tuple[int, BrokenLog]) -> tuple[str, Any, Any, Any]:
        """Of a photograph its name, the statistics at hand, each view's class, and the views that are lacking."""
        number, broken = asked
        stack, read = load_image(self.source, number, broken)
        digest = hashlib.sha256(str(stack.shape).encode())
        digest.update(np.ascontiguousarray(stack[0]).data)
        content = digest.hexdigest()[:32]
        class_id, keys, views = order.for_rows(
            self.config.data, self.config.train.seed, int(content[:7], 16), np.arange(self.views, dtype=np.int32)
        )
        if self.ready and self.source.classes is not None:
            class_id = np.full(self.views, self.source.classes[read])
        if not self.config.data.colours:
            plain = np.full_like(views.colour, COLOURS.index("none"))
            views = views._replace(colour=plain)  # type: ignore[arg-type]
        kept = self.store.get(content)
        known = self.nothing if kept is None else kept
        draws = Draws(np.zeros(self.views, int), class_id, keys, views)
        one = _One(self.source.name, stack, class_id[:1] if self.ready else None)
        sources = {contrique.roles[self.role]: one}
        crops = []
        with jax.default_device(host_device()):
            for view in range(len(known), self.views):
                example = contrique.load(self.config, sources, self.role, draws, view, broken)
                crops.append(np.asarray(self.finish(example).views))
        return content, known, class_id, crops

    def _encoded(self, crops: list[UInt8[np.ndarray, "2 s s 3"]]) -> Vectors:
        rows = []
        for i in range(0, len(crops), TOGETHER):
            batch = np.concatenate(crops[i : i + TOGETHER])
            found = np.asarray(self.encode(self.trunk, batch))
            rows.append(as_halves(found, self.config.model.trunk).reshape(TOGETHER, 2, -1))
        return np.concatenate(rows)
