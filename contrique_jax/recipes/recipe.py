"""What a recipe is: a module of pure functions and a few constants, from which the loader, the step and the meter are made.

All arrays are plain trees. The leading axis of batches and outputs is the row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from contrique_jax.config import ModelConfig
from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.pipeline import RowRecipe, Sources, Tree
from contrique_jax.errors import UserError

# of a model and the pristine image: it has no use for it, judges beside it if there is one, or cannot do without
Reference = Literal["never", "optional", "needed"]
Variables = dict[str, Any]  # "params", "batch_stats", and collections of the recipe's own


class Recipe(RowRecipe, Protocol):
    """The contract; `tests/recipes/test_contract.py` holds every recipe of the table to it."""

    name: str
    rows_together: int  # rows that no device and no micro-batch may separate
    gives: str  # "features": a probe makes the score; "score": the model is the meter
    Config: type  # of its configs; its `model` is what a model folder's architecture holds

    def takes_reference(self, config: Any) -> Reference:
        """Whether `apply` is given the pristine image beside each."""

    def canvas(self, config: Any) -> tuple[int, int]:
        """Height and width at which a source that draws its images makes them."""

    def describe(self, config: Any, sources: Sources) -> str:
        """What is trained on, in a few words with counts."""

    def finish(self, config: Any, examples: tuple[Tree, ...]) -> Tree:
        """On a device: each role's examples [n, ...] -> the batch, its roles' rows in turn; equal to `finish_row` up to
        rounding."""

    # the training

    def init(self, config: Any, seed: int) -> Variables:
        """Fresh variables on the host, float32; counters in collections of the recipe's own int32."""

    def variable_shapes(self, config: Any) -> Variables:
        """The shapes of a model folder's collections, params and batch_stats, without memory for any: what a stranger's file
        describes may be of any size."""

    def take_over(self, config: Any, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
        """The variables of a run that starts from another model (`train.init_from`), and what was taken, in words.
        Raises UserError if that model does not fit."""

    def constants(self, config: Any) -> Tree:
        """What the step reads and never changes (a frozen teacher or trunk); not in checkpoints. {} if there is nothing."""

    def forward(
        self,
        config: Any,
        variables: Variables,
        constants: Tree,
        batch: Tree,
        keys: UInt32[Array, "n 2"],
        axis: str | None,
    ) -> tuple[Tree, Variables]:
        """Each row through the network by itself, but for BatchNorm -> (outputs [n, ...], changed collections).

        `keys`: randomness of each row. `axis`: inside a `shard_map`, the mesh axis over which rows are split. Of micro-batches
        the mean of what changed is kept.
        """

    def objective(
        self, config: Any, variables: Variables, outputs: Tree, batch: Tree, axis: str
    ) -> tuple[Float[Array, ""], Variables, dict[str, Float[Array, ""]]]:
        """All rows against all, inside a `shard_map` over `axis` that splits outputs and batch by rows -> (loss, changed
        collections, further measures), each the same on every device. Only through the outputs does it move parameters."""

    def after_update(self, config: Any, variables: Variables) -> Variables:
        """The variables once the optimiser has moved the parameters: for a moving average of them."""

    def decays(self, config: Any, variables: Variables) -> Tree:
        """A tree of booleans like the parameters: which of them weight decay touches."""

    # inference

    def finished(self, config: Any, variables: Variables, constants: Tree) -> tuple[Any, Variables]:
        """What a model folder holds after training: the architecture, and "params" and "batch_stats" with all that `apply`
        needs, a frozen trunk too."""

    def check(self, model: Any, variables: Variables) -> None:
        """Raises UserError, without the file's name, if a model folder's weights, whose names and shapes are right, are not
        those that its architecture is about."""

    def score_range(self, config: Any) -> tuple[float, float, bool]:
        """Only of a recipe that gives scores: the ends of their scale, and whether higher is better."""

    def encodes(self, config: Any) -> ModelConfig:
        """Only of a recipe whose `apply` is `encoder.encode` with this model, of unit length unless the model's
        `unit_features` is False: large images then go through it in tiles."""

    def crop_side(self, config: Any) -> int | None:
        """Only of a recipe that may look at an image in five crops (`augment.five_crops`) at full and at half size, the mean
        of whose features is the image's: their side [pixels]; None: this model looks at the whole image."""

    def apply(
        self,
        config: Any,
        variables: Variables,
        stack: Array,
        valid: Array | None,
        reference: Array | None,
    ) -> Float[Array, "..."]:
        """With `finished` variables: images [n, h, w, 3] of the sizes `valid` [n, 2] -> features [n, d], or scores [n].
        `reference`: the pristine images, of the same shape and sizes, as `takes_reference` says."""

    # only of a recipe of clips, to whose `apply` an image is a clip of one frame; its model has `block_frames`

    def frame_encoder(self, config: Any, variables: Variables) -> tuple[ModelConfig, Variables]:
        """The encoder that every frame goes through by itself, at full and half size."""

    def of_frames(
        self, config: Any, variables: Variables, vectors: Float[Array, "n t i"], lengths: Int[Array, " n"]
    ) -> Float[Array, "n d"]:
        """Features of n blocks of frames, of which the first `lengths` count, from those of the frames at one size."""


def row_keys(seed: int, step: Array, rows: int) -> UInt32[Array, "n 2"]:
    """A key for each row of a step's global batch, the same on any number of devices."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.key_data(jax.random.fold_in(key, row)))(jnp.arange(rows))


def all_rows(x: Float[Array, "n *rest"], axis: str) -> Float[Array, "m *rest"]:
    """Inside a `shard_map`: the rows of all devices in order, the same on every device."""
    place = lax.axis_index(axis) * len(x)
    whole = jnp.zeros((len(x) * lax.axis_size(axis), *x.shape[1:]), x.dtype)
    return lax.psum(lax.dynamic_update_slice_in_dim(whole, x, place, 0), axis)


# what a recipe says that has nothing of its own to say


def all_or_no_norm(config: Any, variables: Variables, without_norms: Callable[[], Tree]) -> Tree:
    """`decays` of a recipe whose original decays everything: all parameters, or with `optim.decay_mask` "no_norm" those of
    `without_norms`."""
    if config.optim.decay_mask == "no_norm":
        return without_norms()
    return jax.tree.map(lambda leaf: True, variables["params"])


def judges_alone(config: Any) -> Reference:
    """`takes_reference` of a recipe that looks at one image."""
    return "never"


def as_given(config: Any, sources: Sources, broken: BrokenLog) -> Sources:
    """`prepared` of a recipe that takes its sources as they are."""
    return sources


def as_moved(config: Any, variables: Variables) -> Variables:
    """`after_update` of a recipe without moving averages."""
    return variables


def as_trained(config: Any, variables: Variables, constants: Tree) -> tuple[Any, Variables]:
    """`finished` of a recipe whose model is what was trained."""
    return config.model, {part: variables[part] for part in ("params", "batch_stats")}


def nothing_more(model: Any, variables: Variables) -> None:
    """`check` of a recipe whose weights need no more than the right names and shapes."""


def check_same_encoder(config: Any, model: Any) -> None:
    """Raises UserError if a model that a run is to start from has another encoder or expects other pixels."""
    for field in ("encoder", "base_width", "input_scaling"):
        ours, other = getattr(config.model, field), getattr(model, field, None)
        if ours != other:
            raise UserError(
                f"config.train.init_from={config.train.init_from}: its model.{field} is {other!r} and this run's is {ours!r}; "
                f"name another model or set --config.model.{field}={other}."
            )
