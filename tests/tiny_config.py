"""A run of seconds: 64-pixel views of small scenes through a narrow ResNet-10."""

from contrique_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig

# three quick types: one that draws nothing, one that draws noise, one that draws places
FEW_TYPES = tuple(float(kind in (7, 11, 20)) for kind in range(1, 26))


def get_config() -> Config:
    return Config(
        data=DataConfig(
            "scenes:24",
            "scenes:24",
            batch_size=16,
            height=64,
            width=96,
            view_size=64,
            loader="threads",
            type_weights=FEW_TYPES,
        ),
        model=ModelConfig(encoder="resnet10", base_width=4, projection_dim=16, compute_dtype="float32"),
        optim=OptimConfig(learning_rate=0.05),
        train=TrainConfig(steps=40, checkpoint_every=5, log_every=2),
    )
