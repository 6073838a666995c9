"""ARNIQA (arXiv 2310.14918) with its authors' settings: 16 records of four crops a step, ten passes over the photographs.

Cost: about 1.6 TFLOP a step; its authors' 140,000 photographs are 87,500 steps. The paper has a SROCC of .908 on KADID-10k and
of .905 on SPAQ with a ridge on frozen features: its authors' numbers, nobody has run this config to its end. It wants
ImageNet's weights to start from; a ResNet-50's file of torchvision's becomes one by `contrique-jax convert from-torch`:

  python -m contrique_jax.main --config configs/arniqa.py --workdir runs/arniqa \\
      --config.data.pristine=PHOTOS --config.train.init_from=models/resnet50_imagenet

Variants:
  :lite0        EfficientNet-Lite0, which starts from models/lite0_imagenet (`configs/contrique_lite0.py` says how to make it)
  :lite0_small  the same on two CPU cores, some 35 minutes of both: 128-pixel crops, float32, 1,500 steps (docs/results.md)
  :small        ResNet-18, 96-pixel crops, float32: for two CPU cores; not measured yet

Its authors' test takes the mean over five crops of an image at two sizes: --config.model.crops=five. Without it the features
are of the whole image.
"""

from contrique_jax.errors import UserError
from contrique_jax.recipes.arniqa.config import ArniqaConfig, ArniqaModel

VARIANTS = ("", "lite0", "lite0_small", "small")


def get_config(variant: str = "") -> ArniqaConfig:
    config = ArniqaConfig()
    config.train.checkpoint_every = 1000
    if variant not in VARIANTS:
        raise UserError(f"configs/arniqa.py has no variant {variant!r}; there are {', '.join(filter(None, VARIANTS))}.")
    lite0, small = "lite0" in variant, "small" in variant
    if lite0:
        config.model = ArniqaModel(encoder="efficientnet_lite0", input_scaling="centred", patches=1)
    elif small:
        config.model = ArniqaModel(encoder="resnet18", input_scaling="imagenet", patches=1)
    if small:
        config.model.compute_dtype = "float32"
        config.data.view_size = 128 if lite0 else 96
        config.optim.restart_steps = 100
        config.train.checkpoint_every = 50
        config.train.log_every = 10
    if lite0 and small:
        config.train.steps = 1500
    return config
