"""A head on the frozen network inside this package, trained on your own photographs in minutes, without an accelerator.

The statistics of eight views of every photograph (a distortion, a full-size and a half-size crop each) are computed once and
kept in the user's cache; then a head of 1568, 1024 and 512 numbers learns CONTRIQUE's classes from them. The model gives
the network's statistics and the head's numbers side by side, which together predict opinions best (docs/results.md);
--config.model.features=head gives the head's 1,024 alone, not all 4,160.

  python -m contrique_jax.main --config configs/contrique_head.py --workdir runs/head \\
      --config.data.pristine=PHOTOS/clean --config.data.authentic=PHOTOS/mine

Variants:
  :scenes   on 200 pristine and 200 authentic procedural scenes, which need no photographs
"""

from contrique_jax.errors import UserError
from contrique_jax.recipes.contrique_head.config import HeadConfig


def get_config(variant: str = "") -> HeadConfig:
    config = HeadConfig()
    config.model.features = "stages+head"
    config.train.checkpoint_every = 200
    if variant not in ("", "scenes"):
        raise UserError(f"configs/contrique_head.py has no variant {variant!r}; there is `scenes`.")
    if not variant:  # else the scenes that are the default
        config.data.pristine = config.data.authentic = ""
    return config
