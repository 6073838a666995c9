"""What the frozen trunk says of every frame of every clip, at full and half size, computed once and kept in the user's cache.

A file a clip, in a folder named by the trunk's weights and all that a clip depends on. A clip that is made is named by its
photograph's pixels and its number, and all that is random about it comes from (seed, these); a video by its frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float16, Int, UInt8
from PIL import Image

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.broken import load as load_image
from contrique_jax.data.clips import ClipSource, blocks, content_digest
from contrique_jax.data.pipeline import Sources
from contrique_jax.data.sizes import half_size, to_shorter_side
from contrique_jax.data.sources import Source
from contrique_jax.errors import BrokenImage
from contrique_jax.io.machine import available_cores
from contrique_jax.networks import encoder
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.recipes.conviqt.classes import CLEAN
from contrique_jax.recipes.conviqt.config import ConviqtConfig
from contrique_jax.recipes.conviqt.made import draw_class, made_clip, most_source_frames
from contrique_jax.recipes.kept_vectors import KeptVectors, as_halves, frozen, of_all

VERSION = 1  # raise it when the same content, weights and settings give other vectors
TOGETHER = 8  # frames that go through the trunk at once, whatever their number, so that their numbers stay the same
ROLES = ("pristine", "authentic")

Vectors = Float16[np.ndarray, "t 2 d"]


class DescribedClips:
    """A source whose record r is clip r % clips of record r // clips of what it was made from."""

    def __init__(
        self, source: Source, clips: int, store: KeptVectors, names: list[str], held: dict[str, Vectors],
        classes: Int[np.ndarray, " n"] | None,
    ):  # fmt: skip
        self.name, self.classes = source.name, classes
        self._source, self._clips, self._store, self._names, self._held = source, clips, store, names, held

    def __len__(self) -> int:
        return len(self._names)

    def load(self, i: int) -> UInt8[np.ndarray, "k h w 3"]:
        return self._source.load(i // self._clips)

    def item_name(self, i: int) -> str:
        return f"{self._source.item_name(i // self._clips)} #{i % self._clips}"

    def vectors(self, i: int) -> Vectors:
        """From memory or disk. Raises BrokenImage if somebody has removed the file since."""
        name = self._names[i]
        found = self._held.get(name)
        if found is None:
            found = self._store.get(name, mapped=True)
        if found is None:
            raise BrokenImage(
                self.item_name(i), "its vectors are no longer in the cache; start again to compute them anew"
            )
        return found


def described(
    config: ConviqtConfig, sources: Sources, trunk: encoder.Variables, broken: BrokenLog
) -> dict[str, Source]:
    """Each source with the vectors of its clips. Raises UserError if 100 records in a row cannot be read, and for a trunk
    that gives NaN."""
    name = content_hash(config.model.of_trunk, trunk)
    return {role: _Describer(config, role, sources[role], trunk, name).run(broken) for role in ROLES}


class _Describer:
    def __init__(self, config: ConviqtConfig, role: str, source: Source, trunk: encoder.Variables, trunk_hash: str):
        self.config, self.role, self.source = config, ROLES.index(role), source
        self.clips = config.data.clips if self.role == 0 else 1
        self.frames = config.model.block_frames
        self.held: dict[str, Vectors] = {}
        width = encoder.feature_width(config.model.of_trunk)
        self.store = KeptVectors(
            f"clips/{trunk_hash}-{self._settings()}",
            lambda kept: kept.shape == (len(kept), 2, width) and len(kept) >= self.frames,
        )
        self.trunk = jax.device_put(trunk)
        self.encode = frozen(dataclasses.astuple(config.model.of_trunk))

    def _settings(self) -> str:
        """A name for all that a clip depends on, but its content and its number."""
        data = self.config.data
        kept: list[Any] = [VERSION, self.config.train.seed, self.role, data.height, data.width]
        kept += [data.made_frames, data.most_frames, isinstance(self.source, ClipSource)]
        if self.role == 0:
            kept += [data.clean_share, data.temporal_share, list(data.types), list(data.temporal)]
        return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:12]

    def run(self, broken: BrokenLog) -> DescribedClips:
        count = len(self.source) * self.clips
        names, classes = [""] * count, np.full(count, CLEAN)
        video = isinstance(self.source, ClipSource)
        work = self._streamed if video and self.role == 1 else self._made
        # a video streams through the trunk where it is read: ahead of that there are only clips that are made
        workers = 1 if work == self._streamed else self.config.data.workers or available_cores()
        every = of_all(work, count, broken, workers, workers + 1, what=f"frames of {self.source.name}", unit="clip")
        for number, (name, class_id, clip) in every:
            if clip is not None:
                self._keep(name, self._vectors(iter(clip)))
            names[number], classes[number] = name, class_id
        return DescribedClips(
            self.source, self.clips, self.store, names, self.held, classes if self.role == 0 else None
        )

    def _made(self, asked: tuple[int, BrokenLog]) -> tuple[str, int, UInt8[np.ndarray, "t h w 3"] | None]:
        """Name and class of a clip made of a photograph or of the beginning of a video, and its frames if they are not kept."""
        number, broken = asked
        stack, _ = load_image(self.source, number // self.clips, broken, self._beginning)
        digest = hashlib.sha256(str(stack.shape).encode())
        digest.update(np.ascontiguousarray(stack).data)
        name = f"{digest.hexdigest()[:32]}-{number % self.clips}"
        generator = np.random.default_rng([self.config.train.seed, int(name[:15], 16), number % self.clips])
        class_id = draw_class(self.config.data, generator) if self.role == 0 else CLEAN
        if name in self.held or self.store.get(name) is not None:
            return name, class_id, None
        return name, class_id, made_clip(self.config.data, stack, class_id, generator)

    def _beginning(self, record: int) -> UInt8[np.ndarray, "k h w 3"]:
        """A photograph, or of a video as many frames as a clip that is made may need."""
        if not isinstance(self.source, ClipSource):
            return self.source.load(record)[:1]
        most = most_source_frames(self.config.data)
        return np.stack([self._sized(frame) for frame in itertools.islice(self._frames(record), most)])

    def _streamed(self, asked: tuple[int, BrokenLog]) -> tuple[str, int, None]:
        """The same of a video as it is; what its frames give is kept already."""
        number, broken = asked
        name, _ = load_image(self.source, number, broken, self._kept_video)
        return name, CLEAN, None

    def _kept_video(self, record: int) -> str:
        assert isinstance(self.source, ClipSource)
        name = content_digest(self.source.paths[record])
        if name not in self.held and self.store.get(name) is None:
            frames = itertools.islice(self._frames(record), self.config.data.most_frames)
            self._keep(name, self._vectors(self._sized(frame) for frame in frames))
        return name

    def _frames(self, record: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """All of a video's, of which there must be a block. Raises BrokenImage if there is none."""
        assert isinstance(self.source, ClipSource)
        held = []
        for count, frame in enumerate(self.source.frames(record), 1):
            held.append(frame.image)
            if count >= self.frames:
                yield from held
                held = []
        if held:
            raise BrokenImage(
                self.source.item_name(record),
                f"it has {len(held)} frames, fewer than the {self.frames} of model.block_frames",
            )

    def _sized(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        return to_shorter_side(image, self.config.data.height)

    def _vectors(self, clip: Iterator[UInt8[np.ndarray, "h w 3"]]) -> Vectors:
        rows = [self._encoded(block) for block in blocks(clip, TOGETHER)]
        return as_halves(np.concatenate(rows), self.config.model.trunk)

    def _encoded(self, block: list[UInt8[np.ndarray, "h w 3"]]) -> Float[np.ndarray, "t 2 d"]:
        filled = block + [block[-1]] * (TOGETHER - len(block))
        sizes = np.stack(filled), np.stack([half_size(image, Image.Resampling.BILINEAR) for image in filled])
        found = [np.asarray(self.encode(self.trunk, images)) for images in sizes]
        return np.stack(found, axis=1)[: len(block)]

    def _keep(self, name: str, vectors: Vectors) -> None:
        if not self.store.put(name, vectors):
            self.held[name] = vectors
