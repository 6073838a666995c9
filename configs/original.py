"""The paper's run in the original program's way, wherever a field can choose it; docs/fidelity.md has the list.

  python -m contrique_jax.main --config configs/original.py --workdir runs/original \\
      --config.data.pristine=PHOTOS/clean --config.data.authentic=PHOTOS/mine

The variant is the number of processes of the run to imitate, because the original divides its gradient by it:
configs/original.py:4 is a run on four GPUs. Views, colour spaces, patches and loss are the original's in every config of
CONTRIQUE; so is the warm-up, but for its first step (docs/fidelity.md).
"""

from contrique_jax.config import Config, DataConfig, LossConfig, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.errors import UserError


def get_config(variant: str = "1") -> Config:
    if not variant.isdigit() or int(variant) < 1:
        raise UserError(f"configs/original.py:{variant}: give the number of processes to imitate, e.g. original.py:4.")
    return Config(
        data=DataConfig(batch_size=512, minmax=True),  # KADIS stretches before and after each distortion
        model=ModelConfig(encoder="resnet50", norm_per_view=True),  # a forward pass a view
        loss=LossConfig(temperature=0.1),
        optim=OptimConfig(
            learning_rate=0.6,
            decay_mask="original",  # decays the stem's, the downsamplings' and the projector's BatchNorm too
            gradient_scale=1 / int(variant),  # its gather keeps the local gradient, DDP averages
        ),
        train=TrainConfig(steps=58_575, checkpoint_every=1000, log_every=20),  # 25 epochs of 600,000 authentic files
    )
