"""A run of seconds of every recipe, by its name."""

from __future__ import annotations

import dataclasses
from typing import Any

from contrique_jax.config import Config, OptimConfig
from contrique_jax.recipes.ahiq.config import AhiqConfig, AhiqModel
from contrique_jax.recipes.arniqa.config import ArniqaConfig, ArniqaData, ArniqaModel
from contrique_jax.recipes.conformer.config import ConformerConfig, ConformerData, ConformerModel
from contrique_jax.recipes.contrique_head.config import HeadConfig, HeadData, HeadModel
from contrique_jax.recipes.conviqt.config import ConviqtConfig, ConviqtData, ConviqtModel
from contrique_jax.recipes.opinions.config import OpinionData, OpinionTrain
from contrique_jax.recipes.reiqa.config import ReiqaConfig, ReiqaData, ReiqaLoss, ReiqaModel
from contrique_jax.recipes.satqa.config import GridModel, PretrainConfig, PretrainData, SatqaConfig, SatqaModel
from contrique_jax.recipes.student.config import StudentConfig, StudentData, StudentModel
from contrique_jax.recipes.zeng_kwong.config import TwoModeConfig, TwoModeModel
from tests import tiny_config
from tests.recipes import toy_config
from tests.recipes.rated_folder import pairs_csv

STEPS = 12


def tiny(name: str, **train) -> Config:
    """A run of seconds of that recipe."""
    config = toy_config.get_config() if name == "toy" else TINY[name]()
    settings: dict[str, Any] = {"steps": STEPS, "checkpoint_every": 4, "log_every": 4} | train
    config.train = dataclasses.replace(config.train, **settings)
    return config


def tiny_arniqa() -> ArniqaConfig:
    config = ArniqaConfig(
        data=ArniqaData(
            pristine="scenes:24", batch_size=8, view_size=64, loader="threads", types=(7, 11, 17), longest_chain=3
        )
    )
    config.model = ArniqaModel("resnet10", base_width=4, projection_dim=16, compute_dtype="float32", patches=1)
    config.optim.learning_rate, config.optim.restart_steps = 0.001, 1000
    return config


def tiny_head() -> HeadConfig:
    kept = {"pristine": "scenes:24", "authentic": "scenes:24", "height": 64, "width": 96, "view_size": 32, "views": 2}
    config = HeadConfig(
        data=HeadData(**kept, augment_on="host", batch_size=16, loader="threads", type_weights=tiny_config.FEW_TYPES)
    )
    config.model = HeadModel("random", "", "resnet10", 4, "unit", hidden_width=24, head_width=16, projection_dim=8)
    return config


def tiny_reiqa() -> ReiqaConfig:
    data = ReiqaData(
        authentic="scenes:24", batch_size=8, height=64, width=96, view_size=32, copies=3, types=(5, 8, 24),
        augment_on="host", loader="threads",
    )  # fmt: skip
    model = ReiqaModel("resnet18", base_width=4, projection_dim=16, compute_dtype="float32", patches=1)
    # 48 keys a step, which the queue's length is no multiple of, nor of four devices
    config = ReiqaConfig(data=data, model=model, loss=ReiqaLoss(queue=131, momentum=0.9, block_size=50))
    config.optim = OptimConfig(optimiser="adamw", learning_rate=0.001, schedule="constant", warmup_share=0.0)
    return config


def tiny_conviqt() -> ConviqtConfig:
    kept = {"pristine": "scenes:12", "authentic": "scenes:12", "height": 64, "width": 64, "made_frames": 5}
    config = ConviqtConfig(
        data=ConviqtData(
            **kept, batch_size=16, loader="threads", types=(17,), temporal=("dropped", "flicker"), temporal_share=0.5
        )
    )
    config.model = ConviqtModel(
        "random", "", "resnet10", 4, "unit", frame_features="stages", block_frames=4, hidden_width=8, projection_dim=8
    )
    config.optim = OptimConfig(optimiser="adamw", learning_rate=3e-3, decay_mask="no_norm")
    return config


def tiny_zeng_kwong() -> TwoModeConfig:
    config = TwoModeConfig(
        data=OpinionData(rated=pairs_csv(), batch_size=8, view_size=32, augment_on="host", loader="threads")
    )
    config.model = TwoModeModel(
        "random", "", "resnet10", 4, "unit", width=8, depth=1, heads=2, hidden=16, crop_count=4, crop_size=32
    )
    # the bias of an attention's keys changes nothing: adamw would make a step of the rounding in its gradient
    config.optim = OptimConfig(learning_rate=0.05)
    config.train = OpinionTrain(average=0.5)
    return config


def tiny_student() -> StudentConfig:
    config = StudentConfig(
        data=StudentData(rated=pairs_csv(), batch_size=8, view_size=32, augment_on="host", loader="threads")
    )
    config.model = StudentModel(
        "random", "", "resnet10", 4, "unit", width=8, depth=1, heads=2, hidden=16, crop_count=4, crop_size=32
    )
    config.optim = OptimConfig(learning_rate=0.05)  # as that of zeng_kwong
    return config


def tiny_ahiq() -> AhiqConfig:
    config = AhiqConfig(
        data=OpinionData(rated=pairs_csv(), batch_size=8, view_size=32, augment_on="host", loader="threads")
    )
    config.model = AhiqModel(
        crop_count=4, crop_size=32, vit="random", resnet="random", vit_width=16, vit_heads=2, vit_side=4, base_width=4,
        fused=8, bottleneck=8, projected=8, smoothed=8, compute_dtype="float32",
    )  # fmt: skip
    config.optim = OptimConfig(optimiser="adam", learning_rate=0.003)
    config.train = OpinionTrain()
    return config


def tiny_conformer() -> ConformerConfig:
    """Of its network of two modes the one with a reference, which has all layers of the other."""
    config = ConformerConfig()
    config.data = ConformerData(
        rated=pairs_csv(),
        batch_size=8,
        view_size=32,
        scaling="z-score",
        rotation=0.0,
        augment_on="host",
        loader="threads",
    )
    config.model = ConformerModel(
        trunk="random", encoder="resnet10", base_width=4, input_scaling="unit", width=8, heads=2, hidden=16, kernel=3,
        crop_count=4, crop_size=32, compute_dtype="float32",
    )  # fmt: skip
    config.optim = OptimConfig(optimiser="adam", learning_rate=0.003)
    return config


def tiny_satqa_pretrain() -> PretrainConfig:
    data = PretrainData(
        pristine="scenes:24", batch_size=16, height=64, width=96, view_size=64, type_weights=tiny_config.FEW_TYPES,
        loader="threads",
    )  # fmt: skip
    model = GridModel(
        "resnet10", base_width=4, projection_dim=8, compute_dtype="float32", patches=2, reduced_width=8, hidden_width=16
    )
    config = PretrainConfig(data=data, model=model)
    config.optim.learning_rate, config.optim.schedule = 0.003, "constant"
    return config


def tiny_satqa() -> SatqaConfig:
    data = OpinionData(rated=pairs_csv(), batch_size=8, view_size=40, augment_on="host", loader="threads")
    # five squares a side, three and two places after halving: maps of odd and even sides
    model = SatqaModel(
        crop_count=4, crop_size=40, vit="random", trunk="random", patch=8, vit_width=8, vit_heads=2, vit_side=4,
        encoder="resnet10", base_width=4, cells=2, reduced_width=4, width=48, heads=4, middle_blocks=1, last_blocks=1,
        compute_dtype="float32",
    )  # fmt: skip
    config = SatqaConfig(data=data, model=model)
    config.optim = OptimConfig(learning_rate=0.05, warmup_share=0.0, decay_mask="all")
    return config


TINY = {
    "conformer": tiny_conformer,
    "ahiq": tiny_ahiq,
    "contrique": tiny_config.get_config,
    "contrique_head": tiny_head,
    "arniqa": tiny_arniqa,
    "conviqt": tiny_conviqt,
    "reiqa": tiny_reiqa,
    "student": tiny_student,
    "zeng_kwong": tiny_zeng_kwong,
    "satqa_pretrain": tiny_satqa_pretrain,
    "satqa": tiny_satqa,
}
