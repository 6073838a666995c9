"""The student's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, OptimConfig, require
from contrique_jax.networks.token_mixer import Widths
from contrique_jax.recipes.opinions.config import OpinionData, OpinionLoss, OpinionTrain
from contrique_jax.recipes.zeng_kwong.config import TwoModeModel


@dataclass
class StudentData(OpinionData):
    """What the student is shown, and the noise on it. Flips are `flips`, noise on features is `model.dropout`."""

    turns: bool = True  # by a random number of quarter turns
    cutout: float = 0.25  # side of a black square, as a share of the crop's, in half of the crops; 0: none
    grid_mask: float = 0.25  # share of crops under a grid of small black squares

    def validate(self) -> None:
        super().validate()
        require(0 <= self.cutout < 1, "data.cutout", self.cutout, "at least 0 and under 1")
        require(0 <= self.grid_mask <= 1, "data.grid_mask", self.grid_mask, "between 0 and 1")


@dataclass
class StudentModel(TwoModeModel):
    """The transformer on a frozen encoder with the head that judges images alone."""

    mode: str = "no-reference"

    def validate(self) -> None:
        super().validate()
        require(self.mode == "no-reference", "model.mode", self.mode, "no-reference in this recipe")

    @property
    def widths(self) -> Widths:
        return super().widths._replace(compares=False)


@dataclass
class StudentConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "student"
    rows_together: ClassVar[int] = 1

    data: StudentData = field(default_factory=StudentData)  # type: ignore[assignment]
    model: StudentModel = field(default_factory=StudentModel)  # type: ignore[assignment]
    loss: OpinionLoss = field(default_factory=OpinionLoss)  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(optimiser="adamw", learning_rate=1e-4, weight_decay=1e-2)
    )
    train: OpinionTrain = field(default_factory=lambda: OpinionTrain(epochs=30))

    def validate(self) -> None:
        self.validate_parts()
        require(self.data.view_size % 32 == 0, "data.view_size", self.data.view_size, "a multiple of 32")
        require(self.optim.decay_mask == "no_norm", "optim.decay_mask", self.optim.decay_mask, "no_norm in this recipe")
