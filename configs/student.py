"""A blind network taught by a teacher on unlabelled photographs, after "Conformer and Blind Noisy Students" (arXiv 2204.12819).

The paper's student is not public, and its figures are of PIPAL's hidden part: none is claimed.

Cost: 16 crops a step through a frozen ResNet-50, 0.16 TFLOP; the teacher judges each pair once, before the first step. Its
weights are torchvision's, by `contrique-jax convert from-torch`. First the teacher's scores, then opinions if there are some;
the student may teach the next one.

  python -m contrique_jax.main --config configs/student.py --workdir runs/taught --config.data.rated=bank:PHOTOS \\
      --config.data.teacher=runs/two_mode                                        # default: MS-SSIM
  python -m contrique_jax.main --config configs/student.py --workdir runs/student --config.data.rated=RATED.csv \\
      --config.train.init_from=runs/taught
  python -m contrique_jax.main --config configs/student.py --workdir runs/second --config.data.rated=bank:PHOTOS \\
      --config.data.teacher=runs/student                                         # the next generation

Variant:
  :small   on the network inside this package, one block of width 64: minutes on two CPU cores;
           what a teacher gives it on BIQ2021, with few labels: docs/results.md
"""

from contrique_jax.errors import UserError
from contrique_jax.recipes.student.config import StudentConfig, StudentModel


def get_config(variant: str = "") -> StudentConfig:
    config = StudentConfig()
    if variant == "small":
        config.model = StudentModel(width=64, depth=1, heads=4, hidden=128, crop_count=4)
        config.optim.learning_rate = 1e-3
        config.train.steps = 300
        config.train.checkpoint_every = 100
        config.train.log_every = 10
    elif variant:
        raise UserError(f"configs/student.py has no variant {variant!r}; there is `small`.")
    else:
        config.model = StudentModel(trunk="models/resnet50_imagenet", encoder="resnet50", input_scaling="imagenet")
    return config
