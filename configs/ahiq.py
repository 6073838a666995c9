"""AHIQ (arXiv 2204.10485) with its authors' settings: judges an image beside its reference.

A ViT-B/8 and a ResNet-50 stay as they are; 4 pairs a step, Adam, 200 epochs of PIPAL's training part.

The frozen networks are timm's, as model folders (`contrique-jax convert from-torch FILE FOLDER`):
vit_base_patch8_224.augreg_in21k_ft_in1k and resnet50.a1_in1k. Trained are 27 million weights. On PIPAL's 23,200 pairs 200
epochs are 1.16 million steps of 1.9 TFLOP.
The paper has, as far as we remember (its text could not be had), PLCC .845 and SROCC .835 on the challenge's validation part
and .823 and .813 on its test part; nobody has run this config to its end.

  contrique-jax train --config ahiq.py --workdir runs/ahiq --config.data.rated=pipal=PIPAL \\
      --config.model.vit=models/vit_b8 --config.model.resnet=models/resnet50_a1
  contrique-jax score --model runs/ahiq --reference PRISTINE.png DISTORTED

Variants:
  :patch16  a ViT-B/16: 0.6 times the cost
  :small    on the EfficientNet-Lite0 inside this package, whose stages stand for both networks, crops of 160 pixels, 8 pairs
            a step: minutes on two CPU cores; on a part of LIVE, contents left out, .942 SROCC after 80 steps (docs/results.md)
"""

from contrique_jax.config import OptimConfig
from contrique_jax.errors import UserError
from contrique_jax.recipes.ahiq.config import AhiqConfig, AhiqModel


def get_config(variant: str = "") -> AhiqConfig:
    config = AhiqConfig()
    if variant == "small":
        config.data.view_size, config.data.batch_size = 160, 8
        config.model = AhiqModel(
            encoder="efficientnet_lite0", crop_size=160, crop_count=4, fused=48, bottleneck=64, projected=32, smoothed=64,
            compute_dtype="float32",
        )  # fmt: skip
        config.optim = OptimConfig(optimiser="adam", learning_rate=1e-3, weight_decay=1e-5)
        config.train.average = 0.99
        config.train.steps = 300
        config.train.checkpoint_every = 100
        config.train.log_every = 10
    elif variant in ("", "patch16"):
        config.model.vit, config.model.resnet = "models/vit_b8", "models/resnet50_a1"
        config.train.checkpoint_every = 1000
        if variant:
            config.model.patch, config.model.vit_side, config.model.vit = 16, 14, "models/vit_b16"
    else:
        raise UserError(f"configs/ahiq.py has no variant {variant!r}; there are `patch16` and `small`.")
    return config
