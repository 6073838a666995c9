"""The demo: a narrow ResNet-18 on small procedural scenes, a few minutes on two cores, no data to fetch.

python -m contrique_jax.main --config configs/demo.py --workdir demo_out/run
"""

from contrique_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig


def get_config() -> Config:
    return Config(
        data=DataConfig(
            pristine="scenes:300", authentic="scenes:300", batch_size=64, height=192, width=256, view_size=64
        ),
        model=ModelConfig(encoder="resnet18", base_width=32, compute_dtype="float32"),
        optim=OptimConfig(learning_rate=0.04),
        train=TrainConfig(steps=240, checkpoint_every=120, log_every=20),
    )
