"""What the model's config of every recipe on a frozen trunk says of the trunk. Annotations are types and not strings: the flags
read them."""

from dataclasses import dataclass

from contrique_jax.config import ENCODERS, INPUT_SCALINGS, ModelConfig, require


@dataclass
class OnTrunk:
    """A network that stays as it is, under one that is trained."""

    # an embedded model's name, a model folder, a run's workdir, or "random"
    trunk: str = "lite0"
    trunk_hash: str = ""  # of a finished model: which weights that were; a run leaves it empty
    encoder: str = "efficientnet_lite0"  # of the trunk, as are base_width and input_scaling
    base_width: int = 64
    input_scaling: str = "centred"

    def validate(self) -> None:
        require(self.encoder in ENCODERS, "model.encoder", self.encoder, f"one of {', '.join(ENCODERS)}")
        require(self.base_width >= 4, "model.base_width", self.base_width, "at least 4")
        require(
            self.input_scaling in INPUT_SCALINGS, "model.input_scaling", self.input_scaling,
            f"one of {', '.join(INPUT_SCALINGS)}",
        )  # fmt: skip

    def encoder_giving(self, features: str) -> ModelConfig:
        """The trunk as an encoder of such features without a projector."""
        return ModelConfig(
            encoder=self.encoder, base_width=self.base_width, input_scaling=self.input_scaling, features=features,
            patches=1, projection_dim=0, compute_dtype="float32",
        )  # fmt: skip
