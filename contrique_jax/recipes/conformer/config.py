"""IQA-Conformer's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import DTYPES, Config, OptimConfig, require
from contrique_jax.networks.conformer import Widths
from contrique_jax.networks.efficientnet import STAGE_WIDTHS
from contrique_jax.networks.inception_resnet import TAPS, WIDTH, grid_of
from contrique_jax.recipes.opinions.config import Judge, OpinionData, OpinionLoss, OpinionTrain

BACKBONES = ("inception_resnet_v2", "efficientnet_lite0")
MODES = ("full-reference", "no-reference")
LITE_STAGES = (1, 2, 3, 4)  # of strides 4, 8, 16, 16; all are brought to 16


@dataclass
class ConformerData(OpinionData):
    """Pairs, or images alone, turned by any angle."""

    # image and reference are turned by an angle within +- this [degrees], nearest neighbour, mid grey where nothing is; 0: none
    rotation: float = 180.0

    def validate(self) -> None:
        super().validate()
        require(0 <= self.rotation <= 180, "data.rotation", self.rotation, "between 0 and 180")


@dataclass
class ConformerModel(Judge):
    """A frozen network, and Conformer blocks on its maps."""

    # "inception_resnet_v2", as in the paper; "efficientnet_lite0": its stages of strides 4 to 16
    backbone: str = "inception_resnet_v2"
    inception: str = ""  # of "inception_resnet_v2": a model folder that `convert from-torch` made, or "random"
    trunk: str = "lite0"  # of "efficientnet_lite0": an embedded model's name, a model folder or "random"
    backbone_hash: str = ""  # of a finished model: which frozen weights those were; a run leaves it empty
    mode: str = "full-reference"  # or "no-reference": the same without its cross-attention, on the image alone
    crop_size: int = 192  # positions are learned for crops of this size alone
    width: int = 128
    heads: int = 4
    hidden: int = 512
    blocks: int = 1  # of the encoder and of the decoder
    dropout: float = 0.1
    compute_dtype: str = "bfloat16"  # "bfloat16" or "float32"

    def validate(self) -> None:
        super().validate()
        require(self.backbone in BACKBONES, "model.backbone", self.backbone, f"one of {', '.join(BACKBONES)}")
        require(self.mode in MODES, "model.mode", self.mode, f"one of {', '.join(MODES)}")
        require(self.compute_dtype in DTYPES, "model.compute_dtype", self.compute_dtype, f"one of {', '.join(DTYPES)}")
        for name in ("width", "heads", "hidden", "blocks"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        require(self.width % self.heads == 0, "model.heads", self.heads, f"a divisor of model.width = {self.width}")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and under 1")
        if self.lite:
            require(self.crop_size % 16 == 0, "model.crop_size", self.crop_size, "a multiple of 16")

    @property
    def encoder(self) -> str:
        """What a plan calls the model by."""
        return self.backbone

    @property
    def lite(self) -> bool:
        return self.backbone == "efficientnet_lite0"

    @property
    def paired(self) -> bool:
        return self.mode == "full-reference"

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names in the variables under which the frozen networks stand."""
        return ("lite0",) if self.lite else ("inception",)

    @property
    def widths(self) -> Widths:
        """Of the network that is trained."""
        inputs = sum(STAGE_WIDTHS[i] for i in LITE_STAGES) if self.lite else len(TAPS) * WIDTH
        grid = self.crop_size // 16 if self.lite else grid_of(self.crop_size)
        return Widths(inputs, grid, self.width, self.heads, self.hidden, self.blocks, self.dropout, self.paired)


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
