"""CONTRIQUE (arXiv 2110.13266) as its authors' command trains it: a ResNet-50 without opinions.

512 images (1,024 views) a step, 25 passes over 600,000 authentic images.

Cost: about 33 TFLOP a step, 58,575 steps: 2e18 FLOP, by that count hours on one modern GPU.
The paper has a median SROCC of .894 on KonIQ-10k and of .934 on KADID-10k, with a ridge on the frozen features. Those are its
authors' numbers: nobody has run this config to its end, and what it reaches is not known.

  python -m contrique_jax.main --config configs/contrique_resnet50.py --workdir runs/paper \\
      --config.data.pristine=PHOTOS --config.data.authentic=tfds:NAME/SPLIT

Variants:
  :small   ResNet-18, 128-pixel views, float32: about an hour on two CPU cores with 700 clean and 800 other photographs
"""

from contrique_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.errors import UserError


def get_config(variant: str = "") -> Config:
    config = Config(
        data=DataConfig(batch_size=512),
        model=ModelConfig(encoder="resnet50"),
        optim=OptimConfig(learning_rate=0.6),
        # the original's epoch ends with its 600,000 authentic files; ours would end with the clean photographs, which it has
        # distorted five times each beforehand
        train=TrainConfig(steps=58_575, checkpoint_every=1000, log_every=20),
    )
    if variant == "small":
        config.data.batch_size = 32
        config.data.view_size = 128
        config.model = ModelConfig(encoder="resnet18", compute_dtype="float32")
        config.optim.learning_rate = 0.008  # higher ones lose the start: the first gradients are large
        config.train.steps = 0  # 25 epochs of the shorter source
        config.train.checkpoint_every = 50
        config.train.log_every = 10
    elif variant:
        raise UserError(f"configs/contrique_resnet50.py has no variant {variant!r}; there is `small`.")
    return config
