"""The toy recipe's config. As in `contrique_jax.config`, annotations are types and not strings: the flags read them."""

from dataclasses import dataclass, field
from typing import ClassVar

from contrique_jax.config import Config, DataConfig, OptimConfig


@dataclass
class ToyModel:
    encoder: str = "linear"
    width: int = 8

    def validate(self) -> None:
        pass


@dataclass
class ToyLoss:
    temperature: float = 0.2

    def validate(self) -> None:
        pass


@dataclass
class ToyConfig(Config):
    recipe: ClassVar[str] = "toy"
    rows_together: ClassVar[int] = 1
    data: DataConfig = field(default_factory=lambda: DataConfig(authentic="scenes:24", batch_size=8, loader="threads"))
    model: ToyModel = field(default_factory=ToyModel)  # type: ignore[assignment]
    loss: ToyLoss = field(default_factory=ToyLoss)  # type: ignore[assignment]

    def validate(self) -> None:
        self.validate_parts()


def get_config() -> ToyConfig:
    return ToyConfig(optim=OptimConfig(learning_rate=0.1))
