"""What the model's config of every recipe on a frozen trunk says of the trunk. Annotations are types and not strings: the flags
read them."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from contrique_jax.config import DTYPES, ENCODERS, INPUT_SCALINGS, ModelConfig, require


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


@dataclass
class OnMaps(OnTrunk):
    """A network on the maps of frozen ones: those of a paper, which `encoder` calls by `own`, or an encoder of ours."""

    own: ClassVar[str] = ""

    compute_dtype: str = "bfloat16"  # "bfloat16" or "float32"

    def validate(self) -> None:
        if self.encoder != self.own:
            known = f"{self.own} or one of {', '.join(ENCODERS)}"
            require(self.encoder in ENCODERS, "model.encoder", self.encoder, known)
            super().validate()
        require(self.compute_dtype in DTYPES, "model.compute_dtype", self.compute_dtype, f"one of {', '.join(DTYPES)}")

    @property
    def of_paper(self) -> bool:
        """Whether it stands on the paper's own networks."""
        return self.encoder == self.own

    @property
    def of_trunk(self) -> ModelConfig:
        """The trunk as an encoder without a projector."""
        return dataclasses.replace(self.encoder_giving("stages"), compute_dtype=self.compute_dtype)
