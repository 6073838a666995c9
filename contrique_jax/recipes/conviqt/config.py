"""CONVIQT's config. Annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrique_jax.config import (
    FEATURES,
    Config,
    LoaderConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    require,
)
from contrique_jax.distort.bank import NUM_TYPES, TYPES
from contrique_jax.recipes.conviqt.classes import TEMPORAL
from contrique_jax.recipes.trunk_config import OnTrunk


@dataclass
class ConviqtData(LoaderConfig):
    """Clips, or photographs of which clips are made by a camera that moves over them."""

    # clips:FOLDER or clips:F.csv (videos, folders of numbered frames), or photographs as CONTRIQUE's; these get distortions
    pristine: str = "scenes:200"
    authentic: str = "scenes:200"  # the same, each a class of its own and left as it is
    batch_size: int = 512  # clips a step, over all devices, half of each kind
    height: int = 384  # of the frames of a clip that is made; a video's shorter side is brought to it if that is longer
    width: int = 512
    made_frames: int = 32  # frames of a clip that is made
    most_frames: int = 320  # frames of a video that are used, from its beginning
    clips: int = 1  # distorted clips of each pristine record, each of a class and a camera of its own
    clean_share: float = 1 / 121  # share of the pristine half left undistorted, in [0, 1]
    temporal_share: float = 0.4  # of the others the share with a distortion along time, in [0, 1]
    types: tuple[int, ...] = ()  # the bank's distortions that are used, by their numbers; () is all 25
    temporal: tuple[str, ...] = TEMPORAL  # those along time

    def validate(self) -> None:
        super().validate()
        require(
            self.batch_size >= 4 and self.batch_size % 2 == 0, "data.batch_size", self.batch_size, "even, at least 4"
        )
        for name in ("height", "width"):
            value = getattr(self, name)
            require(value >= 64 and value % 2 == 0, f"data.{name}", value, "even, at least 64")
        for name in ("made_frames", "most_frames", "clips"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        for name in ("clean_share", "temporal_share"):
            require(0 <= getattr(self, name) <= 1, f"data.{name}", getattr(self, name), "between 0 and 1")
        require(set(self.types) <= set(TYPES), "data.types", self.types, f"numbers of 1 to {NUM_TYPES}, or ()")
        require(set(self.temporal) <= set(TEMPORAL), "data.temporal", self.temporal, f"some of {', '.join(TEMPORAL)}")
        require(
            bool(self.temporal) or self.temporal_share == 0, "data.temporal_share", self.temporal_share,
            "0 if data.temporal is empty",
        )  # fmt: skip


@dataclass
class ConviqtModel(OnTrunk):
    """A frozen trunk, a GRU over the vectors of its frames, and a projector."""

    # of a frame: "pooled", the L2-normalised mean of the last map, as in the paper; "stages", means and deviations of all
    # stages, which are then standardised
    frame_features: str = "pooled"
    block_frames: int = 16  # consecutive frames that the GRU sees together
    hidden_width: int = 1024  # of the GRU's state, the features of one size of a clip
    projection_dim: int = 128

    def validate(self) -> None:
        super().validate()
        require(
            self.frame_features in FEATURES, "model.frame_features", self.frame_features,
            f"one of {', '.join(FEATURES)}",
        )  # fmt: skip
        require(1 <= self.block_frames <= 4096, "model.block_frames", self.block_frames, "between 1 and 4096")
        for name in ("hidden_width", "projection_dim"):
            require(2 <= getattr(self, name) <= 65536, f"model.{name}", getattr(self, name), "between 2 and 65536")

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What model.json says of it that is not as with images."""
        return {
            "scales": ["full", "half: Pillow bilinear to (width // 2, height // 2)"],
            "features": f"mean state of a GRU over blocks of {self.block_frames} frames, the last one shorter, L2-normalised "
            "at each scale, full scale first; of a clip the mean over its blocks, weighted by their frames",
        }  # fmt: skip

    @property
    def of_trunk(self) -> ModelConfig:
        """The trunk as an encoder without a projector."""
        return self.encoder_giving(self.frame_features)


@dataclass
class ConviqtConfig(Config):
    """Everything that a run depends on."""

    recipe: ClassVar[str] = "conviqt"
    rows_together: ClassVar[int] = 2

    data: ConviqtData = field(default_factory=ConviqtData)  # type: ignore[assignment]
    model: ConviqtModel = field(default_factory=ConviqtModel)  # type: ignore[assignment]
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=0.6, decay_mask="all"))
    train: TrainConfig = field(default_factory=TrainConfig)

    def validate(self) -> None:
        self.validate_parts()
        require(
            self.optim.decay_mask in ("all", "no_norm"), "optim.decay_mask", self.optim.decay_mask,
            "all or no_norm in this recipe",
        )  # fmt: skip
        require(
            self.data.made_frames >= self.model.block_frames, "data.made_frames", self.data.made_frames,
            f"at least model.block_frames = {self.model.block_frames}",
        )  # fmt: skip
        require(
            self.data.most_frames >= self.model.block_frames, "data.most_frames", self.data.most_frames,
            f"at least model.block_frames = {self.model.block_frames}",
        )  # fmt: skip
