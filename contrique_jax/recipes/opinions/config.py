"""Parts of the configs of systems that are trained on opinions. Annotations are types and not strings: the flags read them."""

import math
from dataclasses import dataclass

from contrique_jax.config import LoaderConfig, TrainConfig, require
from contrique_jax.errors import UserError

CROPS = ("grid", "random", "ten")
SCALINGS = ("min-max", "z-score")


@dataclass
class OpinionData(LoaderConfig):
    """Images with opinion scores, alone or beside their references."""

    # F.csv with columns path, reference if there are pairs, and mos, dmos or score; or NAME=FOLDER, a public data set, of which
    # only the official training part is taken if it has one; or several of these with commas between. Or bank:PHOTOS, pairs of
    # photographs (a folder, F.csv, scenes:N) under the bank's distortions, eight of each, which `teacher` scores
    rated: str = ""
    teacher: str = (
        "ms-ssim"  # of bank:PHOTOS: "ms-ssim", or a model that gives scores, a model folder or a run's workdir
    )
    batch_size: int = 16  # crops a step, over all devices
    augment_on: str = "device"  # crops are taken on the host in either case, and nothing is left to do
    view_size: int = 224  # side of a training crop [pixels], the same window in image and reference
    flips: bool = True  # half of the crops mirrored, image and reference alike
    # what a network learns, of the scores of the training side, higher is better: "min-max" [0, 1], or "z-score"
    scaling: str = "min-max"

    def validate(self) -> None:
        super().validate()
        require(self.view_size >= 32, "data.view_size", self.view_size, "at least 32")
        require(self.scaling in SCALINGS, "data.scaling", self.scaling, f"one of {', '.join(SCALINGS)}")


@dataclass
class OpinionLoss:
    """The sum of these, each with its weight; 0 leaves one out."""

    mse: float = 0.0  # mean of squared errors
    mae: float = 1.0  # mean of absolute errors
    ranking: float = 0.0  # of pairs in the batch: how much the order of the two is wrong
    correlation: float = 0.0  # (1 - Pearson's correlation over the batch) / 2

    @property
    def terms(self) -> dict[str, float]:
        """The weights by name."""
        return {name: getattr(self, name) for name in ("mse", "mae", "ranking", "correlation")}

    def validate(self) -> None:
        for name, weight in self.terms.items():
            require(0 <= weight < math.inf, f"loss.{name}", weight, "at least 0")
        if not any(self.terms.values()):
            raise UserError(
                f"config.loss: every weight is 0, so nothing is learned; set one of {', '.join(self.terms)}."
            )


@dataclass
class OpinionTrain(TrainConfig):
    """A run, of whose weights a mean may be kept."""

    # the finished model has the moving average of the weights: each step this share of it stays; 0: the last weights
    average: float = 0.0

    def validate(self) -> None:
        super().validate()
        require(0 <= self.average < 1, "train.average", self.average, "at least 0 and under 1")


@dataclass
class Judge:
    """What a model that gives scores says of them: a part of its architecture. A subclass has the network's own fields."""

    # where a test image is looked at: "grid", crops spread evenly from edge to edge; "random", drawn once from crop_seed;
    # "ten", corners and centre, and the same mirrored. The score is the mean
    crops: str = "grid"
    crop_count: int = 9  # of "grid" (a square number) and "random"
    crop_size: int = 224  # side [pixels]; a smaller image is continued by its mirror image
    crop_seed: int = 0
    # of a finished model, fitted on the training side: score = score_zero + score_unit x output (a unit below 0: lower is
    # better), and the ends of the scale of the scores
    score_zero: float = 0.0
    score_unit: float = 1.0
    score_low: float = 0.0
    score_high: float = 1.0

    def validate(self) -> None:
        require(self.crops in CROPS, "model.crops", self.crops, f"one of {', '.join(CROPS)}")
        count = self.crop_count
        require(1 <= count <= 400, "model.crop_count", count, "between 1 and 400")
        if self.crops == "grid":
            require(math.isqrt(count) ** 2 == count, "model.crop_count", count, "a square number for a grid")
        require(32 <= self.crop_size <= 4096, "model.crop_size", self.crop_size, "between 32 and 4096")
        require(self.crop_seed >= 0, "model.crop_seed", self.crop_seed, "at least 0")
        for name in ("score_zero", "score_unit", "score_low", "score_high"):
            require(math.isfinite(getattr(self, name)), f"model.{name}", getattr(self, name), "a finite number")
        require(self.score_unit != 0, "model.score_unit", self.score_unit, "a number other than 0")
        require(self.score_low < self.score_high, "model.score_low", self.score_low, "under model.score_high")
