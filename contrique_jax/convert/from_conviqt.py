"""A CONVIQT checkpoint, GRU and projector alone, on a trunk that is a model already -> a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contrique_jax.convert.torch_names import COUNTER
from contrique_jax.errors import UserError
from contrique_jax.networks import gru
from contrique_jax.networks.encoder import Variables, feature_width
from contrique_jax.networks.model_folder import content_hash, from_flat, to_flat
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes.conviqt.config import ConviqtModel
from contrique_jax.training.load import load_network

SAYS = "CONVIQT"
_FIRST = "gru.weight_ih_l0"


def is_conviqt(tensors: Mapping[str, np.ndarray]) -> bool:
    return _FIRST in tensors


def adopt_conviqt(path: Path, tensors: Mapping[str, np.ndarray], trunk: str | None) -> tuple[ConviqtModel, Variables]:
    """Architecture and weights, with the trunk's that `trunk` names. Raises UserError if there is none, and if names, shapes
    or numbers are not those of a CONVIQT on it."""
    if trunk is None:
        raise UserError(
            f"{path}: CONVIQT's GRU and projector, which stand on a frozen CONTRIQUE; convert its checkpoint first "
            "(CONTRIQUE_checkpoint25.tar) and name that model with --trunk M."
        )
    encoder, weights = load_network(trunk)
    flat = {name: array for name, array in tensors.items() if not name.endswith(COUNTER)}
    gates, last = flat[_FIRST], flat.get("projector.3.weight")
    inputs = feature_width(encoder)
    if gates.ndim != 2 or gates.shape[0] % 3 or gates.shape[1] != inputs:
        raise UserError(
            f"{path}: {_FIRST} is {list(gates.shape)}, and --trunk {trunk} gives {inputs} numbers a frame; name the model that "
            "it was trained on."
        )
    model = ConviqtModel(
        trunk=Path(trunk).name, trunk_hash="", encoder=encoder.encoder, base_width=encoder.base_width,
        input_scaling=encoder.input_scaling, frame_features=encoder.features, hidden_width=gates.shape[0] // 3,
        projection_dim=0 if last is None or not last.ndim else int(last.shape[0]),
    )  # fmt: skip
    if encoder.features != "pooled":
        raise UserError(
            f"--trunk {trunk}: its features are {encoder.features!r}, and CONVIQT's are pooled; name another."
        )
    widths = gru.Widths(inputs, model.hidden_width, max(model.projection_dim, 1), False)
    wanted = {name: array.shape for name, array in to_flat(skeleton(gru.ClipNetwork, widths).init(0)).items()}
    for name in sorted(wanted.keys() | flat.keys()):
        found = None if name not in flat else tuple(flat[name].shape)
        if found != wanted.get(name):
            raise UserError(
                f"{path}: {name} is {'not there' if found is None else list(found)}, where a CONVIQT has "
                f"{list(wanted[name]) if name in wanted else 'none'}; give its whole state dict."
            )
    broken = [name for name, array in flat.items() if not np.isfinite(array).all()]
    broken += [name for name, array in flat.items() if name.endswith("running_var") and (array < 0).any()]
    if broken:
        raise UserError(f"{path}: NaN, infinity or a negative variance in {broken[0]}; take an earlier checkpoint.")
    own, below = from_flat(flat), trunk_of(weights)
    model.trunk_hash = content_hash(model.of_trunk, below)
    model.validate()
    return model, {part: below[part] | own[part] for part in ("params", "batch_stats")}
