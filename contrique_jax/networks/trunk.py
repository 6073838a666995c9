"""A frozen encoder under a recipe's own network: found by name, its weights and architecture checked."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from contrique_jax.config import ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.networks.description import folder_at
from contrique_jax.networks.encoder import Variables, init_model
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import embedded_folder

FIELDS = (
    "encoder",
    "base_width",
    "input_scaling",
)  # of a recipe's model, in which its trunk must be that of the config


def trunk_of(variables: Variables) -> Variables:
    """Of a model's variables the encoder's."""
    return {part: {"encoder": variables[part]["encoder"]} for part in ("params", "batch_stats")}


def load_trunk(model: Any) -> Variables:
    """Weights of the encoder that `model.trunk` names (an embedded model, a model folder, a run's workdir, or "random"), on
    the host. Raises UserError if there is none, or it is another encoder than `model` says."""
    return _loaded(model.trunk, *(getattr(model, field) for field in FIELDS))


@functools.lru_cache(maxsize=2)
def _loaded(spec: str, *architecture: Any) -> Variables:
    fields = dict(zip(FIELDS, architecture, strict=True))
    if spec == "random":
        return init_model(ModelConfig(**fields, projection_dim=0, compute_dtype="float32"), 0)
    folder = folder_at(Path(spec).expanduser()) or embedded_folder(spec)
    if folder is None:
        raise UserError(
            f"config.model.trunk={spec}: there is no such model; give a model folder, a run's workdir, a name of "
            "`contrique-jax models` or random."
        )
    model, variables = load_model(folder)
    for field, ours in fields.items():
        if getattr(model, field) != ours:
            raise UserError(
                f"config.model.trunk={spec}: its {field} is {getattr(model, field)!r} and config.model.{field} is {ours!r}; "
                f"set --config.model.{field}={getattr(model, field)} or name another trunk."
            )
    return trunk_of(variables)
