"""SaTQA (arXiv 2312.06995) with its authors' settings, in two trainings.

A ResNet-50 learns distortions by contrast; frozen, beside a frozen ViT-B/8, it then helps multi-stream blocks to learn
opinions.
It may start from ImageNet's weights: torchvision's file, by `contrique-jax convert from-torch FILE models/resnet50_unit
--input-scaling unit`, since SaTQA feeds it pixels in [0, 1].

Pre-training: 110 pairs of a distorted photograph and itself a step, 300 epochs; about 5.4 TFLOP a step. Opinions: 8 crops a
step, 2,400 passes (in the authors' 300 each image stands eight times); about 1.5 TFLOP a step. The paper could not be had here;
its SROCC is remembered as .983 on LIVE, .946 on KADID-10k and .930 on KonIQ-10k, medians of ten splits of which the best epoch
was chosen on the test side: check before quoting. No weights are published, and nobody has run these configs to their end.

  python -m contrique_jax.main --config configs/satqa.py:pretrain --workdir runs/satqa_encoder \\
      --config.data.pristine=PHOTOS --config.train.init_from=models/resnet50_unit
  python -m contrique_jax.main --config configs/satqa.py --workdir runs/satqa --config.data.rated=RATED.csv \\
      --config.model.vit=models/vit_base_patch8_224 --config.model.trunk=runs/satqa_encoder
  contrique-jax score --model runs/satqa PHOTOS --out scores.csv

Variants, which may be joined by _:
  :pretrain  the encoder, on clean photographs alone
  :small     for two CPU cores, float32. Opinions: three blocks of width 96 on a ViT of random weights and the embedded
             EfficientNet-Lite0, crops of 128 pixels. Pre-training: a ResNet-18 from random weights, 24 pairs of 128 pixels
"""

from contrique_jax.config import OptimConfig, TrainConfig
from contrique_jax.errors import UserError
from contrique_jax.recipes.satqa.config import PretrainConfig, SatqaConfig

VARIANTS = ("pretrain", "small")


def get_config(variant: str = "") -> PretrainConfig | SatqaConfig:
    chosen = variant.split("_") if variant else []
    if unknown := [name for name in chosen if name not in VARIANTS]:
        raise UserError(
            f"configs/satqa.py has no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}, joined by _."
        )
    return _pretrain("small" in chosen) if "pretrain" in chosen else _opinions("small" in chosen)


def _pretrain(small: bool) -> PretrainConfig:
    config = PretrainConfig()
    config.model.reduced_width = 512
    if small:
        config.model.encoder, config.model.compute_dtype = "resnet18", "float32"
        config.model.patches, config.model.reduced_width, config.model.hidden_width = 4, 128, 256
        config.data.view_size, config.data.batch_size = 128, 24
        config.train = TrainConfig(epochs=25, checkpoint_every=50, log_every=10)
    return config


def _opinions(small: bool) -> SatqaConfig:
    config = SatqaConfig()
    config.model.reduced_width = 512
    if small:
        config.data.view_size = config.model.crop_size = 128
        config.data.batch_size = 16
        model = config.model
        model.vit, model.patch, model.vit_width, model.vit_heads, model.vit_side = "random", 16, 96, 4, 8
        model.trunk, model.encoder, model.input_scaling = "lite0", "efficientnet_lite0", "centred"
        model.cells, model.reduced_width = 4, 0
        model.width, model.heads, model.middle_blocks, model.last_blocks = 96, 4, 1, 1
        model.compute_dtype = "float32"
        config.optim = OptimConfig(optimiser="adamw", learning_rate=5e-4, weight_decay=1e-2, warmup_share=0.05)
        config.train.epochs, config.train.checkpoint_every, config.train.log_every = 20, 100, 10
    return config
