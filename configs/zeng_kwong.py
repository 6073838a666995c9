"""One network that judges images alone and beside their references, of the kind of Zeng and Kwong's (arXiv 2112.00485).

Neither the paper's text nor code could be had: what is trained here is ours (docs/fidelity.md), and so is every number.

Cost: a frozen ResNet-50 sees 32 crops a step, 0.3 TFLOP; of LIVE's 779 images 30 epochs are 1,440 steps. The paper's figures
are not known to us, and nobody has run this to its end. It wants ImageNet's weights under it: torchvision's file of a ResNet-50
becomes a model folder by `contrique-jax convert from-torch`.

  python -m contrique_jax.main --config configs/zeng_kwong.py --workdir runs/two_mode \\
      --config.data.rated=live=LIVE,koniq10k=KONIQ --config.model.trunk=models/resnet50_imagenet
  contrique-jax score --model runs/two_mode --reference PRISTINE.png DISTORTED      # or without --reference
  contrique-jax evaluate --model runs/two_mode --scores RATED.csv --full-reference

Variant:
  :small   on the network inside this package, one block of width 64: minutes on two CPU cores;
           on a part of LIVE, contents left out, .959 SROCC, after MS-SSIM's scores of bank:PHOTOS .963 (docs/results.md)
"""

from contrique_jax.errors import UserError
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig, TwoModeModel


def get_config(variant: str = "") -> TwoModeConfig:
    config = TwoModeConfig()
    if variant == "small":
        config.model = TwoModeModel(width=64, depth=1, heads=4, hidden=128, crop_count=4)
        config.optim.learning_rate = 1e-3
        config.train.steps = 300
        config.train.checkpoint_every = 100
        config.train.log_every = 10
    elif variant:
        raise UserError(f"configs/zeng_kwong.py has no variant {variant!r}; there is `small`.")
    else:
        config.model = TwoModeModel(trunk="models/resnet50_imagenet", encoder="resnet50", input_scaling="imagenet")
    return config
