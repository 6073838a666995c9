"""The network that --model names, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import jax

from contrique_jax.config import ENCODERS, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.model.contrique import Variables, init_model
from contrique_jax.model.store import DESCRIPTION, load_model
from contrique_jax.outputs import user_cache


def load_network(spec: str) -> tuple[ModelConfig, Variables]:
    """The network that --model names: a model folder, a run's workdir, a checkpoint in it, or `random:` and the name of
    an encoder or another such place: the same architecture with random weights.

    Raises UserError where there is none.
    """
    if spec.startswith("random:"):
        name = spec.removeprefix("random:")
        model = ModelConfig(encoder=name) if name in ENCODERS else load_network(name)[0]
        return model, random_weights(model)
    folder = model_folder(spec)
    if folder is not None:
        return load_model(folder)
    path = Path(spec).expanduser()
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder; give a model folder, a run's workdir or random:ENCODER "
            f"(encoders: {', '.join(ENCODERS)})."
        )
    from contrique_jax.checkpoint import load_for_inference  # Orbax takes seconds to import

    return load_for_inference(path)


def model_folder(spec: str) -> Path | None:
    """The model folder that --model names, itself or as the workdir around it; None where it names something else."""
    path = Path(spec).expanduser()
    return next((folder for folder in (path, path / "model") if (folder / DESCRIPTION).is_file()), None)


def random_weights(model: ModelConfig) -> Variables:
    """Untrained weights, always the same: what a trained network has to beat."""
    return init_model(model, 0)


def use_compilation_cache() -> None:
    """Compiled networks are kept in the user's cache, so that the next start is quick (CONTRIQUE_CACHE=off: no)."""
    folder = user_cache("compiled")
    if folder is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
