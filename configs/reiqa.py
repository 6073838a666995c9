"""Re-IQA (arXiv 2304.00451) with its authors' settings: two ResNet-50s, trained apart by momentum contrast with 65,536 keys.

Quality: 640 photographs a step (630 in the paper), each with 11 distorted copies and at both sizes: 15,360 pairs of crops, LARS
and 40 epochs over photographs of every kind. About 260 TFLOP a step. With --config.train.accumulation=8 it is 310, and fits 16
chips of a v5e with 3.5 GB on each and 0.26 s a step at their peaks (`contrique-jax plan`, whose compiler takes long). Content:
MoCo-v2, 256 photographs a step, 200 epochs, 8 TFLOP a step. Features of both side by side have a SROCC of .914 on KonIQ-10k and
of .872 on KADID-10k with a regularised regression: later papers' numbers; nobody has run these configs to their end.

  python -m contrique_jax.main --config configs/reiqa.py --workdir runs/quality --config.data.authentic=PHOTOS
  python -m contrique_jax.main --config configs/reiqa.py:content --workdir runs/content --config.data.authentic=PHOTOS
  contrique-jax convert ensemble models/reiqa content=runs/content quality=runs/quality
  contrique-jax evaluate --model models/reiqa --scores RATED.csv --probe reiqa.npz

Variants, which may be joined by _:
  :quality  the default
  :content  the other encoder
  :small    ResNet-18, 96-pixel crops, 4 copies, 2,304 keys, float32: for two CPU cores; not measured yet
  :lite0    the same with an EfficientNet-Lite0, which starts from models/lite0_imagenet (`configs/contrique_lite0.py` says how
            to make it); measured with 128-pixel crops in docs/results.md ("Whole networks")

With --config.loss.negatives=queue a query meets the queue alone, as in the authors' program; then it makes no difference that
half of the pairs have their crops exchanged.
"""

from contrique_jax.config import OptimConfig, TrainConfig
from contrique_jax.errors import UserError
from contrique_jax.recipes.reiqa.config import ReiqaConfig

VARIANTS = ("quality", "content", "small", "lite0")


def get_config(variant: str = "") -> ReiqaConfig:
    chosen = variant.split("_") if variant else []
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown or {"quality", "content"} <= set(chosen):
        raise UserError(f"configs/reiqa.py has no variant {variant!r}; there are {', '.join(VARIANTS)}, joined by _.")
    config = ReiqaConfig()
    config.train.checkpoint_every = 500
    if "content" in chosen:
        config.model.kind, config.model.input_scaling, config.loss.negatives = "content", "imagenet", "queue"
        config.data.view_size, config.data.batch_size = 224, 256
        config.optim = OptimConfig(
            learning_rate=0.03, schedule="cosine_by_epoch", schedule_epochs=200, warmup_share=0.0, decay_mask="all"
        )
        config.train = TrainConfig(epochs=200, checkpoint_every=1000)
    if {"small", "lite0"} & set(chosen):
        content = config.model.kind == "content"
        config.model.encoder, config.model.compute_dtype = "resnet18", "float32"
        if "lite0" in chosen:
            config.model.encoder, config.model.input_scaling = "efficientnet_lite0", "centred"
        config.data.view_size, config.data.batch_size = 96, 64 if content else 8
        config.data.copies, config.loss.queue = 4, 2304
        config.optim = OptimConfig(learning_rate=0.03, warmup_share=0.05)
        config.train.checkpoint_every, config.train.log_every, config.data.augment_on = 50, 10, "host"
    return config
