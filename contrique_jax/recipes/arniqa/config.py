"""ARNIQA's config. Annotations are types and not strings: the flags read them."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrique_jax.config import Config, LoaderConfig, ModelConfig, OptimConfig, TrainConfig, require
from contrique_jax.recipes.arniqa.groups import TYPES, groups_of

WHOLE, FIVE = CROPS = ("whole", "five")


@dataclass
class ArniqaData(LoaderConfig):
    """Clean photographs, two to a record, under one chain of distortions."""

    pristine: str = "scenes:2000"  # source of clean photographs, forms as CONTRIQUE's
    batch_size: int = 16  # records a step, over all devices; four crops each
    view_size: int = 224  # side of a crop [pixels]
    undistorted_share: float = 0.05  # share of records left undistorted, in [0, 1]
    types: tuple[int, ...] = ()  # the distortions in chains, by their numbers (26: the second contrast); () is all 24
    longest_chain: int = 4  # distortions in a chain at most, 1 to 7
    level_deviation: float = 2.5  # a level i = 0..4 has a chance as exp(-i^2 / (2 x its square)), > 0

    def validate(self) -> None:
        super().validate()
        require(
            self.view_size >= 64 and self.view_size % 32 == 0, "data.view_size", self.view_size,
            "a multiple of 32, at least 64",
        )  # fmt: skip
        require(
            set(self.types) <= set(TYPES),
            "data.types",
            self.types,
            f"numbers out of {', '.join(map(str, TYPES))}, or ()",
        )
        groups = len(groups_of(self.types))
        require(
            self.longest_chain <= groups, "data.longest_chain", self.longest_chain,
            f"at most {groups}, the groups that data.types has some of",
        )  # fmt: skip
        require(0 <= self.undistorted_share <= 1, "data.undistorted_share", self.undistorted_share, "between 0 and 1")
        require(1 <= self.longest_chain <= 7, "data.longest_chain", self.longest_chain, "between 1 and 7")
        require(0 < self.level_deviation < math.inf, "data.level_deviation", self.level_deviation, "above 0")


@dataclass
class ArniqaModel(ModelConfig):
    """Encoder and projector. `patches` and `features` "stages" are CONTRIQUE's alone."""

    added_later: ClassVar[frozenset[str]] = frozenset(("crops", "crop_size"))  # older folders and configs lack them

    # what a test image's features are of: "whole", all of it, as the original's torch.hub model; "five", the mean over crops at
    # the centre and in the corners, at full and at half size, as its test
    crops: str = WHOLE
    crop_size: int = 224  # side of these [pixels]; black where an image is smaller

    def validate(self) -> None:
        super().validate()
        require(self.crops in CROPS, "model.crops", self.crops, f"one of {', '.join(CROPS)}")
        require(32 <= self.crop_size <= 4096, "model.crop_size", self.crop_size, "between 32 and 4096")

    @property
    def looked_at(self) -> str:
        """What of an image is taken, if it is not the whole."""
        return "" if self.crops == WHOLE else f"five crops of {self.crop_size} pixels"

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What model.json says of it that is not as with CONTRIQUE's."""
        if self.crops == WHOLE:
            return {}
        about = f"{self.looked_at} (centre, corners; 0 beyond the image), each L2-normalised"
        return {"features": f"global average of the last map, mean over {about}, at each scale, full scale first"}


def network_of(model: ModelConfig) -> ModelConfig:
    """Encoder and projector alone, of an `ArniqaModel` or of the plain `ModelConfig` that older configs have."""
    return ModelConfig(**{each.name: getattr(model, each.name) for each in dataclasses.fields(ModelConfig)})


@dataclass
class ArniqaConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "arniqa"
    rows_together: ClassVar[int] = 1

    data: ArniqaData = field(default_factory=ArniqaData)  # type: ignore[assignment]
    model: ArniqaModel = field(default_factory=lambda: ArniqaModel(input_scaling="imagenet", patches=1))
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            learning_rate=1e-3, warmup_share=0.0, schedule="cosine_restarts", restart_steps=8750, restart_growth=2,
            decay_mask="all",
        )
    )  # fmt: skip
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10))

    def validate(self) -> None:
        self.validate_parts()
        require(self.model.features == "pooled", "model.features", self.model.features, "pooled in this recipe")
        require(
            self.optim.decay_mask in ("all", "no_norm"), "optim.decay_mask", self.optim.decay_mask,
            "all or no_norm in this recipe",
        )  # fmt: skip
