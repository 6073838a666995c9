"""The config of the two-mode system. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, ModelConfig, OptimConfig, require
from contrique_jax.networks import encoder
from contrique_jax.networks.token_mixer import Widths
from contrique_jax.recipes.opinions.config import Judge, OpinionData, OpinionLoss, OpinionTrain
from contrique_jax.recipes.trunk_config import OnTrunk

MOST_BLOCKS = 64
MODES = ("both", "full-reference", "no-reference")


@dataclass
class TwoModeLoss(OpinionLoss):
    """Losses of both heads."""

    # of the full-reference loss, where there is a reference; the no-reference one has the rest. 0 and 1 train one head alone
    reference_share: float = 0.5
    # of the squared distance between the heads' hidden layers, of which the full-reference one is the teacher
    distillation: float = 0.0

    def validate(self) -> None:
        super().validate()
        for name in ("reference_share", "distillation"):
            require(0 <= getattr(self, name) <= 1, f"loss.{name}", getattr(self, name), "between 0 and 1")


@dataclass
class TwoModeModel(Judge, OnTrunk):
    """A frozen convolutional encoder, and a transformer on its last two maps."""

    width: int = 256  # of tokens
    depth: int = 2  # blocks
    heads: int = 8
    hidden: int = 1024  # of a block's two linear layers
    dropout: float = 0.1
    # what the finished model judges: "both", images alone or beside a reference; or only the one
    mode: str = "both"

    def validate(self) -> None:
        OnTrunk.validate(self)
        Judge.validate(self)
        for name in ("width", "heads", "hidden"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        require(1 <= self.depth <= MOST_BLOCKS, "model.depth", self.depth, f"between 1 and {MOST_BLOCKS}")
        require(
            self.width % 4 == 0 and self.width % self.heads == 0, "model.width", self.width,
            f"a multiple of 4 and of model.heads = {self.heads}",
        )  # fmt: skip
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and under 1")
        require(self.mode in MODES, "model.mode", self.mode, f"one of {', '.join(MODES)}")
        require(self.crop_size % 32 == 0, "model.crop_size", self.crop_size, "a multiple of 32")

    @property
    def widths(self) -> Widths:
        """Of the network that is trained; one that judges images alone only is `StudentModel`'s."""
        maps = encoder.last_two_widths(self.of_trunk)
        return Widths(*maps, self.width, self.depth, self.heads, self.hidden, self.dropout)

    @property
    def of_trunk(self) -> ModelConfig:
        """The trunk as an encoder without a projector."""
        return self.encoder_giving("stages")


@dataclass
class TwoModeConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "zeng_kwong"
    rows_together: ClassVar[int] = 1

    data: OpinionData = field(default_factory=OpinionData)  # type: ignore[assignment]
    model: TwoModeModel = field(default_factory=TwoModeModel)  # type: ignore[assignment]
    loss: TwoModeLoss = field(default_factory=TwoModeLoss)  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(optimiser="adamw", learning_rate=1e-4, weight_decay=1e-2)
    )
    train: OpinionTrain = field(default_factory=lambda: OpinionTrain(epochs=30))

    def validate(self) -> None:
        self.validate_parts()
        require(self.data.view_size % 32 == 0, "data.view_size", self.data.view_size, "a multiple of 32")
        require(self.optim.decay_mask == "no_norm", "optim.decay_mask", self.optim.decay_mask, "no_norm in this recipe")
