"""SaTQA's configs. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrique_jax.config import (
    DTYPES,
    INPUT_SCALINGS,
    Config,
    DataConfig,
    LoaderConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    require,
)
from contrique_jax.networks.backbones import VitBackbone
from contrique_jax.networks.grid_encoder import Size as Grid
from contrique_jax.networks.grid_encoder import grid_width
from contrique_jax.networks.satqa import Size
from contrique_jax.recipes.opinions.config import Judge, OpinionData, OpinionLoss, OpinionTrain
from contrique_jax.recipes.trunk_config import OnTrunk

TAPS = (1, 2, 5, 6)  # of the ViT's blocks
MOST_BLOCKS = 64  # of a stage


@dataclass
class PretrainData(LoaderConfig):
    """Clean photographs, each beside itself under a distortion."""

    pristine: str = "scenes:2000"  # source of clean photographs, forms as CONTRIQUE's
    batch_size: int = 110  # pairs a step, over all devices
    height: int = 384  # photographs are brought to height x width before they are distorted [pixels]
    width: int = 512
    view_size: int = 224  # side of a crop [pixels]
    type_weights: tuple[float, ...] = ()  # 25 weights, type 01 first, 0 leaves one out; () is uniform
    merge_identity_classes: bool = False  # True: what the four levels leave unchanged counts as undistorted
    minmax: bool = True  # stretch to the full range before and after each distortion, as KADIS does

    def validate(self) -> None:
        super().validate()
        # what it says of these fields holds here too; a batch may be odd
        DataConfig(
            batch_size=4, height=self.height, width=self.width, view_size=self.view_size, type_weights=self.type_weights
        ).validate()
        require(self.batch_size >= 2, "data.batch_size", self.batch_size, "at least 2")


@dataclass
class GridModel(ModelConfig):
    """The encoder and its projector. `patches` is the side of the grid that each stage's map is pooled to."""

    input_scaling: str = "unit"
    patches: int = 7
    reduced_width: int = (
        0  # channels that the third and the fourth stage are brought to, 512 in the paper; 0: as they are
    )
    hidden_width: int = 1024  # of the projector

    def validate(self) -> None:
        super().validate()
        require(self.features == "pooled", "model.features", self.features, "pooled in this recipe")
        require(self.reduced_width >= 0, "model.reduced_width", self.reduced_width, "at least 0")
        require(self.hidden_width >= 1, "model.hidden_width", self.hidden_width, "at least 1")

    @property
    def grid(self) -> Grid:
        """The network."""
        return Grid(
            self.encoder, self.base_width, self.patches, self.reduced_width, self.hidden_width, self.projection_dim,
            self.compute_dtype,
        )  # fmt: skip

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What a model folder says of its features."""
        return {
            "features": f"mean over {self.patches} x {self.patches} places of four stages' vectors, each L2-normalised, "
            "at each scale, full scale first"
        }


@dataclass
class PretrainConfig(Config):
    """Everything that a run of the pre-training depends on."""

    recipe: ClassVar[str] = "satqa_pretrain"
    rows_together: ClassVar[int] = 1

    data: PretrainData = field(default_factory=PretrainData)  # type: ignore[assignment]
    model: GridModel = field(default_factory=GridModel)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimiser="adam", learning_rate=3e-4, weight_decay=1e-5, warmup_share=0.0, decay_mask="all"
        )
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=300))

    def validate(self) -> None:
        self.validate_parts()
        require(
            self.optim.decay_mask in ("all", "no_norm"), "optim.decay_mask", self.optim.decay_mask,
            "all or no_norm in this recipe",
        )  # fmt: skip


@dataclass
class SatqaModel(OnTrunk, Judge):
    """A frozen ViT and a frozen encoder, and multi-stream blocks and cross-attention on what they give."""

    vit: str = ""  # a model folder that `convert from-torch` made, or "random"
    # what `satqa_pretrain` trained, a run's workdir or its model folder; or an embedded model's name, another encoder's model
    # folder or "random"
    trunk: str = ""
    patch: int = 8  # side of the ViT's squares [pixels]
    vit_width: int = 768
    vit_heads: int = 12
    vit_side: int = 28  # squares along the images that its positions were learned on
    vit_scaling: str = "unit"  # what the ViT is given: "unit", [0, 1], as in the original; "centred" is timm's own
    encoder: str = "resnet50"  # of the trunk, as are base_width, input_scaling, cells and reduced_width
    input_scaling: str = "unit"
    cells: int = 7  # along each side of its grid
    reduced_width: int = 0  # other than 0 only of what `satqa_pretrain` has trained
    width: int = 768  # of the blocks
    heads: int = 8
    first_blocks: int = 1  # on the ViT's grid
    middle_blocks: int = 5  # on half as many places a side
    last_blocks: int = 3  # on a quarter
    dropout: float = 0.1  # of the cross-attention's weights
    compute_dtype: str = "bfloat16"  # "bfloat16" or "float32"; parameters and what lies between blocks are float32

    def validate(self) -> None:
        OnTrunk.validate(self)
        Judge.validate(self)
        require(self.compute_dtype in DTYPES, "model.compute_dtype", self.compute_dtype, f"one of {', '.join(DTYPES)}")
        require(
            self.vit_scaling in INPUT_SCALINGS, "model.vit_scaling", self.vit_scaling,
            f"one of {', '.join(INPUT_SCALINGS)}",
        )  # fmt: skip
        for name in ("patch", "vit_width", "vit_side", "cells", "heads", "vit_heads", "width"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for name in ("first_blocks", "middle_blocks", "last_blocks"):
            require(
                1 <= getattr(self, name) <= MOST_BLOCKS, f"model.{name}", getattr(self, name), f"1 to {MOST_BLOCKS}"
            )
        require(self.reduced_width >= 0, "model.reduced_width", self.reduced_width, "at least 0")
        require(
            self.vit_width % self.vit_heads == 0,
            "model.vit_width",
            self.vit_width,
            f"a multiple of {self.vit_heads} heads",
        )
        require(
            self.width % 48 == 0 and self.width % self.heads == 0, "model.width", self.width,
            f"a multiple of 48 and of model.heads = {self.heads}",
        )  # fmt: skip
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "at least 0 and under 1")
        require(
            self.crop_size % self.patch == 0 and self.crop_size >= 5 * self.patch, "model.crop_size", self.crop_size,
            f"a multiple of model.patch = {self.patch}, at least {5 * self.patch}",
        )  # fmt: skip

    @property
    def backbone(self) -> VitBackbone:
        """The ViT, as far as it is used."""
        return VitBackbone(self.patch, self.vit_width, self.vit_heads, self.vit_side, max(TAPS) + 1)

    @property
    def grid(self) -> Grid:
        """The encoder on its grid, without a projector."""
        return Grid(self.encoder, self.base_width, self.cells, self.reduced_width, 0, 0, self.compute_dtype)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names in the variables under which the frozen networks stand."""
        return "vit", "encoder", "pool1", "pool2"

    @property
    def size(self) -> Size:
        """What is trained."""
        parts = self.width // 48
        streams = ((16 * parts,) * 3, (12 * parts, 12 * parts, 24 * parts), (3 * parts, 3 * parts, 42 * parts))
        depths = self.first_blocks, self.middle_blocks, self.last_blocks
        side = self.crop_size // self.patch
        return Size(
            len(TAPS) * self.vit_width, self.width, side, depths, streams, self.heads, grid_width(self.grid), self.dropout,
            self.compute_dtype,
        )  # fmt: skip


@dataclass
class SatqaConfig(Config):
    """Everything that a run on opinions depends on."""

    recipe: ClassVar[str] = "satqa"
    rows_together: ClassVar[int] = 1

    data: OpinionData = field(default_factory=lambda: OpinionData(batch_size=8))  # type: ignore[assignment]
    model: SatqaModel = field(default_factory=SatqaModel)  # type: ignore[assignment]
    loss: OpinionLoss = field(default_factory=OpinionLoss)  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimiser="adamw", learning_rate=2e-5, weight_decay=1e-2, warmup_share=0.0, decay_mask="all"
        )
    )
    # an epoch takes one crop of each image; the authors' 300 take eight
    train: OpinionTrain = field(default_factory=lambda: OpinionTrain(epochs=2400))

    def validate(self) -> None:
        self.validate_parts()
        require(
            self.data.view_size == self.model.crop_size, "data.view_size", self.data.view_size,
            f"model.crop_size = {self.model.crop_size}: the last blocks know how many places there are",
        )  # fmt: skip
        require(
            self.optim.decay_mask in ("all", "no_norm"), "optim.decay_mask", self.optim.decay_mask,
            "all or no_norm in this recipe",
        )  # fmt: skip
