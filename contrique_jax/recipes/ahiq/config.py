"""AHIQ's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, OptimConfig, require
from contrique_jax.networks.ahiq import Widths
from contrique_jax.networks.backbones import stages_of
from contrique_jax.recipes.opinions.config import Judge, OpinionData, OpinionLoss, OpinionTrain
from contrique_jax.recipes.trunk_config import OnMaps

TAPS = (0, 1, 2, 3, 4)  # of the ViT's blocks


@dataclass
class AhiqModel(OnMaps, Judge):
    """Frozen networks, and a deformable convolution and a regressor on their maps."""

    own: ClassVar[str] = "vit_resnet50"

    # "vit_resnet50", as in the paper; or an encoder of ours (`trunk`): its map of stride 4 (shallow), of 8 and 16 (deep)
    encoder: str = "vit_resnet50"
    vit: str = ""  # of "vit_resnet50": model folders that `convert from-torch` made, or "random"
    resnet: str = ""
    patch: int = 8  # side of the ViT's squares, 8 or 16 [pixels]
    vit_width: int = 768
    vit_heads: int = 12
    vit_side: int = 28  # squares along the images that its positions were learned on
    fused: int = 768  # channels behind the deformable convolution
    bottleneck: int = 512
    projected: int = 256
    smoothed: int = 1024

    def validate(self) -> None:
        OnMaps.validate(self)
        Judge.validate(self)
        require(self.patch in (8, 16), "model.patch", self.patch, "8 or 16")
        heads = self.vit_heads
        require(heads >= 1 and self.vit_width % heads == 0, "model.vit_heads", heads, f"a divisor of {self.vit_width}")
        for name in ("vit_width", "vit_side"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for name in ("base_width", "fused", "bottleneck", "projected", "smoothed"):
            require(getattr(self, name) >= 2, f"model.{name}", getattr(self, name), "at least 2")
        require(self.crop_size % self.grain == 0, "model.crop_size", self.crop_size, f"a multiple of {self.grain}")

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names in the variables under which the frozen networks stand."""
        return ("vit", "resnet50") if self.of_paper else ("trunk",)

    @property
    def grain(self) -> int:
        """What a crop's side must be a multiple of, so that both maps cover it alike."""
        return self.patch if self.of_paper else 16

    @property
    def widths(self) -> Widths:
        """Of the network that is trained."""
        sizes = self.fused, self.bottleneck, self.projected, self.smoothed
        if self.of_paper:
            return Widths(len(TAPS) * self.vit_width, 3 * 4 * self.base_width, *sizes, self.patch // 8)
        by_stride = dict(stages_of(self.of_trunk))  # the last map of each stride
        return Widths(by_stride[8] + by_stride[16], by_stride[4], *sizes, 1)


@dataclass
class AhiqConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "ahiq"
    rows_together: ClassVar[int] = 1

    data: OpinionData = field(default_factory=lambda: OpinionData(batch_size=4))  # type: ignore[assignment]
    model: AhiqModel = field(default_factory=AhiqModel)  # type: ignore[assignment]
    loss: OpinionLoss = field(default_factory=lambda: OpinionLoss(mse=1.0, mae=0.0))  # type: ignore[assignment]
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            optimiser="adam", learning_rate=1e-4, weight_decay=1e-5, warmup_share=0.0, decay_mask="all"
        )
    )
    train: OpinionTrain = field(default_factory=lambda: OpinionTrain(epochs=200))

    def validate(self) -> None:
        self.validate_parts()
        grain = self.model.grain
        require(self.data.view_size % grain == 0, "data.view_size", self.data.view_size, f"a multiple of {grain}")
