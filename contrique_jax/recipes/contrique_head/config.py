"""The head's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    require,
)
from contrique_jax.recipes.trunk_config import OnTrunk

FEATURES = ("head", "stages", "stages+head")


@dataclass
class HeadData(DataConfig):
    """CONTRIQUE's photographs and views, of which each photograph has a fixed number."""

    pristine: str = "scenes:200"
    authentic: str = "scenes:200"
    augment_on: str = "device"  # rows are a few numbers, which cost nothing to finish
    view_size: int = 192  # half of a 384 x 512 photograph then needs no black border
    # of each photograph, whose statistics are computed once; each under a distortion and crops of its own
    views: int = 8
    colours: bool = False  # True: views in the paper's five colour spaces; False: as they are

    def validate(self) -> None:
        super().validate()
        require(self.views >= 1, "data.views", self.views, "at least 1")


@dataclass
class HeadModel(OnTrunk):
    """A frozen trunk and a head on the mean and deviation of its stages' last maps."""

    hidden_width: int = 1024
    head_width: int = 512  # the head's features of one size of an image
    projection_dim: int = 128
    # of the finished model: "head", "stages" (the trunk's, standardised), or both side by side, "stages+head"
    features: str = "head"

    def validate(self) -> None:
        super().validate()
        require(self.features in FEATURES, "model.features", self.features, f"one of {', '.join(FEATURES)}")
        for name in ("hidden_width", "head_width", "projection_dim"):
            require(getattr(self, name) >= 2, f"model.{name}", getattr(self, name), "at least 2")

    @property
    def of_trunk(self) -> ModelConfig:
        """The trunk as an encoder without a projector."""
        return self.encoder_giving("stages")


@dataclass
class HeadConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "contrique_head"
    rows_together: ClassVar[int] = 2

    data: HeadData = field(default_factory=HeadData)
    model: HeadModel = field(default_factory=HeadModel)  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(optimiser="adamw", learning_rate=1e-3, weight_decay=1e-2)
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=60))

    def validate(self) -> None:
        self.validate_parts()
        require(self.optim.decay_mask == "no_norm", "optim.decay_mask", self.optim.decay_mask, "no_norm in this recipe")
