"""The typed configuration: one small dataclass a concern, a comment a field, `validate()` in plain words.

The dataclasses are mutable because `ml_collections.config_flags` sets fields from the command line.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from contrique_jax.errors import UserError

ENCODERS = ("resnet18", "resnet34", "resnet50")


@dataclass
class DataConfig:
    """Where photographs come from and how views are taken."""

    pristine: str = "scenes:2000"  # source of clean photographs: folder, F.csv, tfds:NAME/SPLIT, arrays:F.npy, scenes:N
    authentic: str = "scenes:2000"  # source of photographs with their own distortions, same forms
    batch_size: int = 512  # images per step, both halves together, over all devices
    height: int = 384  # pristine photographs are brought to height x width before they are distorted [pixels]
    width: int = 512
    view_size: int = 256  # side of a view [pixels]
    pristine_share: float = 1 / 126  # share of the synthetic half left undistorted, in [0, 1)
    type_weights: str = ""  # e.g. "1:2,10:0.5": weight of a distortion type, 0 leaves it out; "" is uniform
    minmax: bool = True  # stretch to the full range before and after each distortion, as KADIS does
    loader: str = "auto"  # "tfdata", "threads" (needs no TensorFlow), or "auto": tfdata where TensorFlow is installed
    workers: int = 0  # decoding threads of a process; 0 is one a core
    prefetch: int = 2  # batches kept ready on the host
    max_pixels: int = 200_000_000  # an image with more pixels counts as broken


@dataclass
class ModelConfig:
    """The network: a torchvision-layout ResNet, 2x2 patches, a projector."""

    encoder: str = "resnet50"  # one of ENCODERS
    base_width: int = 64  # channels after the stem; 64 is torchvision's
    patches: int = 2  # the last map is pooled to patches x patches local vectors
    projection_dim: int = 128  # width of the projections the loss compares
    compute_dtype: str = "bfloat16"  # "bfloat16" or "float32"; parameters, statistics and loss are always float32
    views_in_one_forward: bool = False  # True: both views share one BatchNorm batch; False: one forward a view, as the original


@dataclass
class LossConfig:
    """Multi-positive NT-Xent."""

    temperature: float = 0.1  # similarities are divided by this, > 0
    block_size: int = 1024  # columns of the similarity matrix held at a time


@dataclass
class OptimConfig:
    """SGD with warm-up and cosine decay, stepped every iteration."""

    learning_rate: float = 0.6  # peak, not scaled by the batch
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_mask: str = "no_norm"  # "no_norm": all but BatchNorm; "original": also decays the BatchNorms the original's names miss; "all"
    warmup_share: float = 0.1  # share of the steps spent in linear warm-up, in [0, 1)


@dataclass
class TrainConfig:
    """The run: how long, from which seed, what is written when."""

    steps: int = 0  # 0: `epochs` decides
    epochs: int = 25  # an epoch ends with the shorter source
    seed: int = 0
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 2  # the last ones kept
    log_every: int = 20  # steps between reads of the metrics from the devices


@dataclass
class Config:
    """Everything a training run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
