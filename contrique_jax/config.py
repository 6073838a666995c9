"""The typed configuration: one small dataclass a concern, a comment a field, `validate()` in plain words.

The dataclasses are mutable, and their annotations types and not strings, because `ml_collections.config_flags` sets fields
from the command line.
"""

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from contrique_jax.errors import UserError

ENCODERS = ("resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "efficientnet_lite0")
INPUT_SCALINGS = ("unit", "imagenet", "centred")
FEATURES = ("pooled", "stages")
AUGMENT_ON = ("host", "device")
LOADERS = ("auto", "tfdata", "threads")
DTYPES = ("bfloat16", "float32")
DECAY_MASKS = ("no_norm", "original", "all")
OPTIMISERS = ("sgd", "adam", "adamw", "lars")
SCHEDULES = ("cosine", "cosine_by_epoch", "cosine_restarts", "cosine_wave", "constant")
# fields that say how and when, not what, and so may differ between a run and its continuation
FREE_FIELDS = (
    "train.checkpoint_every", "train.keep_checkpoints", "train.log_every", "train.remat", "train.wait_seconds",
    "data.workers", "data.prefetch", "data.cache_gigabytes",
)  # fmt: skip

MOST_NUMBER, MOST_SIZE = 2**31 - 1, 1 << 20  # of any field, of a model's
MOST = {"data.workers": 1024, "data.prefetch": 1024, "train.wait_seconds": 10**7, "data.max_pixels": 10**12}  # others'


def require(holds: bool, name: str, value: Any, what: str) -> None:
    if not holds:
        raise UserError(f"config.{name} = {value!r}: must be {what}.")


@dataclass(kw_only=True)
class LoaderConfig:
    """What every recipe's `data` has."""

    batch_size: int = 512  # rows (of CONTRIQUE images, both halves together) per step, over all devices
    augment_on: str = "host"  # where distortion and views are taken: "host" (in the pipeline) or "device" (in the step)
    loader: str = "auto"  # "tfdata", "threads" (needs no TensorFlow), or "auto": tfdata if TensorFlow is installed
    workers: int = 0  # decoding threads of a process; 0 is one a core
    prefetch: int = 2  # batches kept ready on the host
    # decoded images of each source that a process keeps in memory, so that each is decoded once [10^9 bytes]; of scenes
    # it always keeps half a gigabyte
    cache_gigabytes: float = 0.0
    max_pixels: int = 200_000_000  # an image with more pixels counts as broken

    def validate(self) -> None:
        require(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        require(self.augment_on in AUGMENT_ON, "data.augment_on", self.augment_on, f"one of {', '.join(AUGMENT_ON)}")
        require(self.loader in LOADERS, "data.loader", self.loader, f"one of {', '.join(LOADERS)}")
        require(self.workers >= 0, "data.workers", self.workers, "at least 0 (0 is one a core)")
        require(self.prefetch >= 1, "data.prefetch", self.prefetch, "at least 1")
        kept = self.cache_gigabytes
        require(kept >= 0, "data.cache_gigabytes", kept, "at least 0 (0 keeps none)")
        require(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1")


@dataclass
class DataConfig(LoaderConfig):
    """Where photographs come from and how views are taken."""

    # source of clean photographs: folder, F.csv, tfds:NAME/SPLIT, arrays:F.npy, scenes:N; if F.csv has a column `class`
    # (0..125), its images are distorted already: they are used at their own size, and `height`, `width`, `pristine_share`,
    # `type_weights`, `minmax` and `merge_identity_classes` do not apply
    pristine: str = "scenes:2000"
    authentic: str = "scenes:2000"  # source of photographs with their own distortions, same forms
    height: int = 384  # pristine photographs are brought to height x width before they are distorted [pixels]
    width: int = 512
    view_size: int = 256  # side of a view [pixels]
    pristine_share: float = 1 / 126  # share of the synthetic half left undistorted, in [0, 1]
    type_weights: tuple[float, ...] = ()  # 25 weights, type 01 first, 0 leaves one out; () is uniform
    merge_identity_classes: bool = False  # True: the four classes that change nothing are drawn as the undistorted one
    minmax: bool = True  # stretch to the full range before and after each distortion, as KADIS does

    def validate(self) -> None:
        require(
            self.batch_size >= 4 and self.batch_size % 2 == 0, "data.batch_size", self.batch_size, "even, at least 4"
        )
        for name in ("height", "width"):
            value = getattr(self, name)
            require(value >= 64 and value % 32 == 0, f"data.{name}", value, "a multiple of 32, at least 64")
        require(
            self.view_size >= 32 and self.view_size % 32 == 0,
            "data.view_size",
            self.view_size,
            "a multiple of 32, at least 32",
        )
        require(0 <= self.pristine_share <= 1, "data.pristine_share", self.pristine_share, "between 0 and 1")
        require(
            len(self.type_weights) in (0, 25), "data.type_weights", self.type_weights, "25 numbers, one a type, or ()"
        )
        numbers = all(isinstance(weight, int | float) for weight in self.type_weights)
        require(numbers, "data.type_weights", self.type_weights, "numbers")
        require(
            all(weight >= 0 for weight in self.type_weights) and (not self.type_weights or sum(self.type_weights) > 0),
            "data.type_weights", self.type_weights, "at least 0 everywhere and above 0 somewhere",
        )  # fmt: skip
        super().validate()


@dataclass
class ModelConfig:
    """The network: an encoder, 2x2 patches, a projector."""

    encoder: str = "resnet50"  # one of ENCODERS
    base_width: int = (
        64  # channels after a ResNet's stem; 64 is torchvision's, and stands for an EfficientNet-Lite0's own
    )
    patches: int = 2  # the last map is pooled to patches x patches local vectors
    projection_dim: int = 128  # width of the projections that the loss compares
    compute_dtype: str = "bfloat16"  # "bfloat16" or "float32"; parameters, statistics and loss are always float32
    norm_per_view: bool = True  # BatchNorm statistics of each view apart, as in the original; False: of both together
    # "unit": [0, 1], as in the original; "imagenet": then minus mean, over deviation; "centred": (255 x - 127) / 128
    input_scaling: str = "unit"
    # "pooled": means of the last map, as in the paper; "stages": means and deviations of each stage's last map, of which the
    # projector's input is made too (an EfficientNet-Lite0's last convolution then learns nothing)
    features: str = "pooled"

    def validate(self) -> None:
        require(self.encoder in ENCODERS, "model.encoder", self.encoder, f"one of {', '.join(ENCODERS)}")
        require(self.base_width >= 4, "model.base_width", self.base_width, "at least 4")
        lite = self.encoder == "efficientnet_lite0"
        require(not lite or self.base_width == 64, "model.base_width", self.base_width, f"64 for {self.encoder}")
        require(self.patches >= 1, "model.patches", self.patches, "at least 1")
        require(self.projection_dim >= 2, "model.projection_dim", self.projection_dim, "at least 2")
        require(self.compute_dtype in DTYPES, "model.compute_dtype", self.compute_dtype, f"one of {', '.join(DTYPES)}")
        require(
            self.input_scaling in INPUT_SCALINGS, "model.input_scaling", self.input_scaling,
            f"one of {', '.join(INPUT_SCALINGS)}",
        )  # fmt: skip
        require(self.features in FEATURES, "model.features", self.features, f"one of {', '.join(FEATURES)}")


@dataclass
class LossConfig:
    """Multi-positive NT-Xent."""

    temperature: float = 0.1  # similarities are divided by this, > 0
    block_size: int = 512  # rows and columns of the similarity matrix held at a time; 1 MB stays in a core's cache

    def validate(self) -> None:
        require(0 < self.temperature < math.inf, "loss.temperature", self.temperature, "above 0")
        require(self.block_size >= 1, "loss.block_size", self.block_size, "at least 1")


@dataclass
class OptimConfig:
    """The optimiser and its schedule, stepped every iteration."""

    optimiser: str = "sgd"  # "sgd", "adam", "adamw" or "lars"
    learning_rate: float = 0.6  # peak, not scaled by the batch
    # after the warm-up: "cosine" to 0, "cosine_by_epoch", "cosine_restarts", "cosine_wave" or "constant"
    schedule: str = "cosine"
    schedule_epochs: int = 40  # of "cosine_by_epoch": the run is so many equal parts, each with one rate
    final_share: float = 0.001  # of "cosine_by_epoch": its last rate, as a share of the peak, in [0, 1]
    warmup_rate: float = 0.01  # of "cosine_by_epoch": where its warm-up begins
    restart_steps: int = 1000  # steps of the first cycle of "cosine_restarts"; of half a wave of "cosine_wave"
    restart_growth: int = 1  # each later cycle is so many times as long as the one before
    momentum: float = 0.9  # of adam and adamw the decay rate of the gradient's mean
    momentum_square: float = 0.999  # of these alone: the decay rate of its square's mean
    weight_decay: float = 1e-4
    decay_mask: str = "no_norm"  # "no_norm": all but BatchNorm; "original": also the BatchNorms its names miss; "all"
    gradient_scale: float = 1.0  # the global loss's gradient is multiplied by it; 1 / processes in the original
    warmup_share: float = 0.1  # share of the steps spent in linear warm-up, in [0, 1)

    def validate(self) -> None:
        for name, choices in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            require(value in choices, f"optim.{name}", value, f"one of {', '.join(choices)}")
        require(0 < self.learning_rate < math.inf, "optim.learning_rate", self.learning_rate, "above 0")
        for name in ("restart_steps", "restart_growth", "schedule_epochs"):
            require(getattr(self, name) >= 1, f"optim.{name}", getattr(self, name), "at least 1")
        for name in ("momentum", "momentum_square"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optim.{name}", value, "at least 0 and under 1")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        require(self.decay_mask in DECAY_MASKS, "optim.decay_mask", self.decay_mask, f"one of {', '.join(DECAY_MASKS)}")
        require(0 <= self.final_share <= 1, "optim.final_share", self.final_share, "between 0 and 1")
        require(0 <= self.warmup_rate < math.inf, "optim.warmup_rate", self.warmup_rate, "at least 0")
        require(self.gradient_scale > 0, "optim.gradient_scale", self.gradient_scale, "above 0")
        require(0 <= self.warmup_share < 1, "optim.warmup_share", self.warmup_share, "at least 0 and under 1")


@dataclass
class TrainConfig:
    """The run: how long, from which seed, what is written when."""

    steps: int = 0  # 0: `epochs` decides
    epochs: int = 25  # an epoch ends with the shorter source
    # where the weights come from before the first step: a model folder, a run's workdir or a checkpoint, of the same encoder;
    # its projector is taken too if it has this one's shapes; "" draws all weights from the seed
    init_from: str = ""
    seed: int = 0  # every random choice of a run comes from it
    # micro-batches a step: memory of one, forwards of two. The contrastive batch stays `data.batch_size`, its loss and
    # gradient exact; BatchNorm sees a micro-batch, and its running statistics move once a step, by the micro-batches' mean
    accumulation: int = 1
    remat: bool = False  # True: the backward pass computes each residual block again instead of keeping what is inside
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 2  # the last ones kept
    log_every: int = 20  # steps between reads of the metrics from the devices
    wait_seconds: int = 600  # with several processes: how long a start, a step or a save may take before the job ends

    def validate(self) -> None:
        require(self.steps >= 0, "train.steps", self.steps, "at least 0 (0: train.epochs decides)")
        require(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        require(0 <= self.seed < 2**31, "train.seed", self.seed, "between 0 and 2^31 - 1")
        for name in ("accumulation", "checkpoint_every", "keep_checkpoints", "log_every", "wait_seconds"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")


@dataclass
class Config:
    """Everything that a training run depends on. CONTRIQUE's; another recipe's is a subclass with parts of its own.

    Every recipe's has `data.batch_size`, `data.augment_on` and the loader's fields, `model.encoder`, `optim` and `train`.
    """

    recipe: ClassVar[str] = "contrique"  # the name in `recipes.RECIPES`
    rows_together: ClassVar[int] = 2

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def validate(self) -> None:
        """Raises UserError with one sentence naming the first field that is off."""
        self.validate_parts()
        require(
            self.model.patches <= self.data.view_size // 32, "model.patches", self.model.patches,
            f"at most data.view_size / 32 = {self.data.view_size // 32}",
        )  # fmt: skip

    def validate_parts(self) -> None:
        """What holds for every recipe."""
        for part in dataclasses.fields(self):
            getattr(self, part.name).validate()
            _check_numbers(part.name, vars(getattr(self, part.name)))
        check_accumulation(self.train.accumulation, self.data.batch_size, 1, self.rows_together)


def _check_numbers(part: str, values: dict[str, Any]) -> None:
    """Raises UserError for what no field means: an infinite number, threads without end, a giant network."""
    for name, value in values.items():
        if type(value) is int:
            most = MOST.get(f"{part}.{name}", MOST_SIZE if part == "model" and "seed" not in name else MOST_NUMBER)
            require(value <= most, f"{part}.{name}", value, f"at most {most:,}")
        elif type(value) is float:
            require(abs(value) <= MOST_NUMBER, f"{part}.{name}", value, "a finite number of a usual size")


def check_accumulation(accumulation: int, batch_size: int, devices: int, together: int) -> None:
    """Raises UserError if micro-batches would not hold equal numbers of whole runs of `together` rows of each device."""
    runs = batch_size // together // devices
    by = " x ".join([str(together)] * (together > 1) + [f"{devices} devices"] * (devices > 1))
    share = f"data.batch_size / {f'({by})' if devices > 1 and together > 1 else by}" if by else "data.batch_size"
    require(runs % accumulation == 0, "train.accumulation", accumulation, f"a divisor of {share} = {runs}")


def as_record(config: Config) -> dict[str, Any]:
    """A config as plain values, with its recipe's name."""
    return {"recipe": config.recipe, **dataclasses.asdict(config)}


def to_json(config: Config) -> str:
    """A config as text that is the same for equal configs."""
    return json.dumps(as_record(config), indent=2, sort_keys=True) + "\n"


def first_difference(ours: dict[str, Any], stored: dict[str, Any], like: Config | None = None) -> str | None:
    """The first `part.field`, with both values, in which two stored configs differ; FREE_FIELDS may differ.

    A field that is not in `stored` because it came later had its default, which is that of the type of `like` (default:
    Config).
    """
    recipes = [record.get("recipe", Config.recipe) for record in (ours, stored)]  # CONTRIQUE if none is written
    if recipes[0] != recipes[1]:
        return f"recipe is {recipes[0]!r} here and {recipes[1]!r:.200} there"
    defaults = json.loads(to_json(type(like)() if like else Config()))  # tuples as they are stored
    for part in sorted((set(ours) | set(stored)) - {"recipe"}):
        mine, theirs = ours.get(part, {}), defaults.get(part, {}) | stored.get(part, {})
        for name in sorted(set(mine) | set(theirs)):
            if f"{part}.{name}" not in FREE_FIELDS and _meant(mine.get(name)) != _meant(theirs.get(name)):
                return f"{part}.{name} is {mine.get(name)!r:.200} here and {theirs.get(name)!r:.200} there"
    return None


def _meant(value: Any) -> Any:
    """A path as it is found from here: one folder can be written in many ways. Other values as they are."""
    return os.path.abspath(os.path.expanduser(value)) if isinstance(value, str) and os.sep in value else value
