"""IQA-Conformer (arXiv 2204.12819) with its authors' settings: judges an image beside its reference, or alone.

Inception-ResNet-v2 stays as it is; 16 pairs of crops of 192 pixels a step, turned by any angle, Adam at a constant rate, 30
epochs of PIPAL's training part.

The frozen network is the file inceptionresnetv2-520b38e4.pth of the authors' release (or of the package pretrainedmodels) as
a model folder (`contrique-jax convert from-torch FILE models/inception`). Trained are 1.2 million weights. On PIPAL's 23,200
pairs 30 epochs are 43,500 steps of 0.15 TFLOP. Its authors report PLCC .775 and SROCC .766 on the challenge's test part,
fourth of all; nobody has run this config to its end.

  contrique-jax train --config conformer.py --workdir runs/conformer --config.data.rated=pipal=PIPAL
  contrique-jax score --model runs/conformer --reference PRISTINE.png DISTORTED

Variants:
  :blind        the same without cross-attention, on the image alone: no reference is needed
  :transformer  the authors' plain variant: transformer blocks, whose head reads a learned token
  :small        on the EfficientNet-Lite0 inside this package, crops of 160 pixels, width 64, 8 pairs a step, no turning:
                minutes on two CPU cores; on a part of LIVE, contents left out, .900 SROCC, after MS-SSIM's scores .942
  :small_blind  the two together
"""

from contrique_jax.config import OptimConfig
from contrique_jax.errors import UserError
from contrique_jax.recipes.conformer.config import ConformerConfig, ConformerModel

VARIANTS = ("", "blind", "transformer", "small", "small_blind")


def get_config(variant: str = "") -> ConformerConfig:
    if variant not in VARIANTS:
        raise UserError(f"configs/conformer.py has no variant {variant!r}; there are {', '.join(VARIANTS[1:])}.")
    config = ConformerConfig()
    if variant.startswith("small"):
        config.data.view_size, config.data.batch_size, config.data.rotation = 160, 8, 0.0
        config.model = ConformerModel(
            encoder="efficientnet_lite0", crop_size=160, crop_count=4, width=64, hidden=128, compute_dtype="float32"
        )
        config.optim = OptimConfig(optimiser="adam", learning_rate=1e-3, weight_decay=0.0)
        config.train.steps = 300
        config.train.checkpoint_every = 100
        config.train.log_every = 10
    else:
        config.model.inception = "models/inception"
        config.train.checkpoint_every = 1000
    config.train.average = 0.99
    if variant == "transformer":
        config.model.kind, config.model.hidden = "transformer", 1024
    if variant.endswith("blind"):
        config.model.mode = "no-reference"
    return config
