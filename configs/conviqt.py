"""CONVIQT (arXiv 2206.14713) with its authors' settings: 256 + 256 clips of 16 frames a step, SGD, 25 epochs.

The trunk is frozen: a ResNet-50 of CONTRIQUE's, the authors' own checkpoint as a model folder (`contrique-jax convert
from-torch CONTRIQUE_checkpoint25.tar models/original`). Every frame goes through it once, at both sizes; then only GRU and
projector learn, 10.6 million weights: 0.73 TFLOP a step. Its authors took 120 kinds of distorted clips and Kinetics-400;
here clips of videos or of photographs are distorted in 145 ways. Its authors' SROCC on KoNViD-1k, a ridge on frozen features,
is about .85 (not looked up in the paper); nobody has run this config to its end.

  python -m contrique_jax.main --config configs/conviqt.py --workdir runs/conviqt \\
      --config.data.pristine=clips:CLEAN --config.data.authentic=clips:MINE --config.model.trunk=models/original

Variants:
  :small   the embedded EfficientNet-Lite0 as the trunk, clips of 20 frames of 128 x 192 made from photographs, a GRU of 256
           numbers, 64 pairs of clips a step: 800 photographs take 7 minutes of CPU time. Without photographs on 400
           procedural scenes. docs/results.md has what it is worth.
"""

from contrique_jax.config import OptimConfig
from contrique_jax.errors import UserError
from contrique_jax.recipes.conviqt.config import ConviqtConfig


def get_config(variant: str = "") -> ConviqtConfig:
    config = ConviqtConfig()
    config.data.augment_on = "device"  # rows are a few numbers, which cost nothing to finish
    config.train.checkpoint_every = 200
    if variant == "small":
        config.data.batch_size = 64
        config.data.height, config.data.width, config.data.made_frames = 128, 192, 20
        config.data.most_frames = 96
        config.model.frame_features, config.model.hidden_width = "stages", 256
        config.optim = OptimConfig(optimiser="adamw", learning_rate=1e-3, weight_decay=1e-2, decay_mask="no_norm")
        config.train.epochs = 40
        config.train.log_every = 10
    elif variant:
        raise UserError(f"configs/conviqt.py has no variant {variant!r}; there is `small`.")
    else:
        config.data.pristine = config.data.authentic = ""
        config.model.trunk, config.model.encoder, config.model.input_scaling = "", "resnet50", "unit"
    return config
