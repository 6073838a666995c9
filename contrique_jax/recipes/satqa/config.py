"""SaTQA's configs. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrique_jax.config import Config, DataConfig, LoaderConfig, ModelConfig, OptimConfig, TrainConfig, require


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
    reduced_width: int = 512  # channels that the third and the fourth stage are brought to
    hidden_width: int = 1024  # of the projector

    def validate(self) -> None:
        super().validate()
        require(self.features == "pooled", "model.features", self.features, "pooled in this recipe")
        for name in ("reduced_width", "hidden_width"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")

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
