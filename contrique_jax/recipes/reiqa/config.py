"""Re-IQA's config. Annotations are types and not strings: the flags read them."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, LoaderConfig, ModelConfig, OptimConfig, TrainConfig, require

KINDS = ("quality", "content")
NEGATIVES = ("queue", "picture", "batch")
NUM_TYPES = 26
SCALES = 2


@dataclass
class ReiqaData(LoaderConfig):
    """Photographs, clean and other ones alike. To a content model only `authentic`, `view_size` and the loader's matter."""

    authentic: str = "scenes:2000"  # source of photographs, forms as CONTRIQUE's
    batch_size: int = 640  # photographs a step, over all devices; each gives `pairs` pairs of crops
    augment_on: str = "device"  # a photograph takes a sixth of the memory that its 48 crops take
    height: int = 384  # photographs are brought to height x width before they are distorted [pixels]
    width: int = 512
    view_size: int = 160  # side of a crop [pixels]
    copies: int = 12  # of a photograph: itself, and the others under a distortion each, all of different types
    types: tuple[int, ...] = ()  # the distortions, by their numbers in `recipes/reiqa/types.py`; () is all 26
    overlap_least: float = 0.1  # share of its area that a crop has in common with its pair's other one, from
    overlap_most: float = 0.3  # to
    antialias: bool = (
        True  # half size as at inference, in [0, 1]; False: torch's bicubic of single pixels, as in the original
    )

    def validate(self) -> None:
        super().validate()
        for name in ("height", "width"):
            value = getattr(self, name)
            require(value >= 64 and value % 32 == 0, f"data.{name}", value, "a multiple of 32, at least 64")
        require(
            self.view_size >= 32 and self.view_size % 32 == 0, "data.view_size", self.view_size,
            "a multiple of 32, at least 32",
        )  # fmt: skip
        require(
            set(self.types) <= set(range(1, NUM_TYPES + 1)) and len(set(self.types)) == len(self.types),
            "data.types", self.types, f"different numbers from 1 to {NUM_TYPES}, or ()",
        )  # fmt: skip
        most = 1 + (len(self.types) or NUM_TYPES)
        require(
            2 <= self.copies <= most, "data.copies", self.copies,
            f"from 2 to {most}, the photograph and one of each of its types",
        )  # fmt: skip
        holds = 0 < self.overlap_least < self.overlap_most <= 0.75 and self.overlap_most - self.overlap_least >= 0.05
        require(
            holds, "data.overlap_least", self.overlap_least,
            "above 0 and at least 0.05 below data.overlap_most, which is at most 0.75",
        )  # fmt: skip


@dataclass
class ReiqaModel(ModelConfig):
    """One of the two encoders. `patches`, `norm_per_view` and `features` "stages" are CONTRIQUE's alone."""

    unit_features: ClassVar[bool] = False  # features are means, not divided by their length

    kind: str = "quality"  # "quality", which sees crops of one place and distortion, or "content", MoCo-v2

    def validate(self) -> None:
        super().validate()
        require(self.kind in KINDS, "model.kind", self.kind, f"one of {', '.join(KINDS)}")
        require(self.features == "pooled", "model.features", self.features, "pooled in this recipe")

    @property
    def network(self) -> ModelConfig:
        """The encoder and its projector, of whichever kind."""
        return ModelConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(ModelConfig)})


@dataclass
class ReiqaLoss:
    """InfoNCE against a queue of earlier keys."""

    temperature: float = 0.2  # similarities are divided by this, > 0
    queue: int = 65_536  # keys of earlier steps that a query is compared with
    momentum: float = 0.999  # share of the momentum encoder that stays in a step
    # beside the queue's: "queue" none, as in the original; "picture" the other keys of the same photograph and size, of which
    # half swapped places lie where the query does under other distortions; "batch" all other keys of the step
    negatives: str = "picture"
    block_size: int = 4096  # columns of the similarities held at a time

    def validate(self) -> None:
        require(0 < self.temperature < math.inf, "loss.temperature", self.temperature, "above 0")
        require(self.queue >= 1, "loss.queue", self.queue, "at least 1")
        require(0 <= self.momentum < 1, "loss.momentum", self.momentum, "at least 0 and under 1")
        require(self.negatives in NEGATIVES, "loss.negatives", self.negatives, f"one of {', '.join(NEGATIVES)}")
        require(self.block_size >= 1, "loss.block_size", self.block_size, "at least 1")


@dataclass
class ReiqaConfig(Config):
    """Everything that a run depends on; which of the two encoders it trains is `model.kind`."""

    recipe: ClassVar[str] = "reiqa"
    rows_together: ClassVar[int] = 1

    data: ReiqaData = field(default_factory=ReiqaData)  # type: ignore[assignment]
    model: ReiqaModel = field(default_factory=lambda: ReiqaModel(patches=1))
    loss: ReiqaLoss = field(default_factory=ReiqaLoss)  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimiser="lars", learning_rate=12.0, schedule="cosine_by_epoch", schedule_epochs=40, warmup_share=5 / 40
        )
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=40))

    @property
    def pairs(self) -> int:
        """Pairs of crops that a photograph gives."""
        return 1 if self.model.kind == "content" else SCALES * self.data.copies

    def validate(self) -> None:
        self.validate_parts()
        keys = self.data.batch_size * self.pairs
        require(
            self.loss.queue >= keys, "loss.queue", self.loss.queue,
            f"at least {keys:,}, the keys of a step: data.batch_size = {self.data.batch_size} with {self.pairs} a photograph",
        )  # fmt: skip
        require(
            self.model.kind == "quality" or self.loss.negatives != "picture", "loss.negatives", self.loss.negatives,
            "queue or batch for a content model, which has one pair a photograph",
        )  # fmt: skip
        require(
            self.optim.decay_mask in ("all", "no_norm"), "optim.decay_mask", self.optim.decay_mask,
            "all or no_norm in this recipe",
        )  # fmt: skip
