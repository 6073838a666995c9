"""IQA-Conformer's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, OptimConfig, require
from contrique_jax.networks.backbones import stages_of
from contrique_jax.networks.conformer import Widths
from contrique_jax.networks.inception_resnet import TAPS, WIDTH, grid_of
from contrique_jax.recipes.opinions.config import Judge, OpinionData, OpinionLoss, OpinionTrain
from contrique_jax.recipes.trunk_config import OnMaps

KINDS = ("conformer", "transformer")
MOST_BLOCKS = 64
MODES = ("full-reference", "no-reference")
STRIDES = (4, 8, 16)  # of an encoder of ours: maps that are used, all brought to the last one


@dataclass
class ConformerData(OpinionData):
    """Pairs, or images alone, turned by any angle."""

    # image and reference are turned by an angle within +- this [degrees], nearest neighbour, mid grey where nothing is; 0: none
    rotation: float = 180.0

    def validate(self) -> None:
        super().validate()
        require(0 <= self.rotation <= 180, "data.rotation", self.rotation, "between 0 and 180")


@dataclass
class ConformerModel(OnMaps, Judge):
    """A frozen network, and Conformer blocks on its maps."""

    own: ClassVar[str] = "inception_resnet_v2"
    added_later: ClassVar[frozenset[str]] = frozenset(("kind",))  # older folders lack it

    # "inception_resnet_v2", as in the paper; or an encoder of ours (`trunk`): its maps of strides 4 to 16
    encoder: str = "inception_resnet_v2"
    inception: str = ""  # of "inception_resnet_v2": a model folder that `convert from-torch` made, or "random"
    mode: str = "full-reference"  # or "no-reference": the same without its cross-attention, on the image alone
    crop_size: int = 192  # positions are learned for crops of this size alone
    width: int = 128
    heads: int = 4
    hidden: int = 512
    blocks: int = 1  # of the encoder and of the decoder
    kernel: int = 7  # side of the depthwise convolution
    dropout: float = 0.1
    # "transformer": the plain variant, whose head reads a learned token; of no use to it is `kernel`
    kind: str = "conformer"

    def validate(self) -> None:
        OnMaps.validate(self)
        Judge.validate(self)
        require(self.kind in KINDS, "model.kind", self.kind, f"one of {', '.join(KINDS)}")
        require(self.mode in MODES, "model.mode", self.mode, f"one of {', '.join(MODES)}")
        for name in ("width", "heads", "hidden", "kernel"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        require(1 <= self.blocks <= MOST_BLOCKS, "model.blocks", self.blocks, f"between 1 and {MOST_BLOCKS}")
        require(self.width % self.heads == 0, "model.heads", self.heads, f"a divisor of model.width = {self.width}")
        require(self.kernel % 2 == 1, "model.kernel", self.kernel, "an odd number")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and under 1")
        if not self.of_paper:
            require(self.crop_size % 16 == 0, "model.crop_size", self.crop_size, "a multiple of 16")

    @property
    def paired(self) -> bool:
        return self.mode == "full-reference"

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names in the variables under which the frozen networks stand."""
        return ("inception",) if self.of_paper else ("trunk",)

    @property
    def widths(self) -> Widths:
        """Of the network that is trained."""
        inputs, grid = len(TAPS) * WIDTH, grid_of(self.crop_size)
        if not self.of_paper:
            inputs = sum(width for stride, width in stages_of(self.of_trunk) if stride in STRIDES)
            grid = self.crop_size // max(STRIDES)
        own = self.width, self.heads, self.hidden, self.blocks
        return Widths(inputs, grid, *own, self.dropout, self.paired, self.kernel, self.kind == "transformer")


@dataclass
class ConformerConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "conformer"
    rows_together: ClassVar[int] = 1

    data: ConformerData = field(  # type: ignore[assignment]
        default_factory=lambda: ConformerData(batch_size=16, view_size=192, scaling="z-score")
    )
    model: ConformerModel = field(default_factory=ConformerModel)  # type: ignore[assignment]
    loss: OpinionLoss = field(default_factory=lambda: OpinionLoss(mse=1.0, mae=0.0))  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimiser="adam", learning_rate=1e-4, weight_decay=0.0, schedule="constant", warmup_share=0.0
        )
    )
    train: OpinionTrain = field(default_factory=lambda: OpinionTrain(epochs=30))

    def validate(self) -> None:
        self.validate_parts()
        crop = self.model.crop_size
        require(self.data.view_size == crop, "data.view_size", self.data.view_size, f"model.crop_size, {crop}")
