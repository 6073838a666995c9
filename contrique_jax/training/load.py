"""The network that --model names, wherever it lies."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import jax

from contrique_jax import storage
from contrique_jax.config import ENCODERS, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.model.contrique import Variables, init_model
from contrique_jax.model.store import DESCRIPTION, WEIGHTS, load_model
from contrique_jax.outputs import user_cache


def load_network(spec: str) -> tuple[ModelConfig, Variables]:
    """The network that --model names: a model folder, a run's workdir, a checkpoint in it, or `random:` and the name of
    an encoder or another such place: the same architecture with random weights. A place may be an address in a bucket.

    Raises UserError where there is none.
    """
    if spec.startswith("random:"):
        name = spec.removeprefix("random:")
        model = ModelConfig(encoder=name) if name in ENCODERS else load_network(name)[0]
        return model, random_weights(model)
    folder, remote = model_folder(spec), storage.is_address(spec)
    if folder is not None:
        try:
            return load_model(folder)
        except UserError as error:
            raise (UserError(str(error).replace(str(folder), spec)) if remote else error) from error
    path = Path(spec).expanduser()
    if not remote and not path.is_dir():
        raise UserError(
            f"{path} is no folder; give a model folder, a run's workdir or random:ENCODER "
            f"(encoders: {', '.join(ENCODERS)})."
        )
    from contrique_jax.checkpoint import load_for_inference  # Orbax takes seconds to import

    return load_for_inference(spec if remote else path)


def model_folder(spec: str) -> Path | None:
    """The model folder that --model names, itself or as the workdir around it; None where it names something else.

    That of a bucket is copied to this machine.
    """
    if storage.is_address(spec):
        return _fetched(storage.check_address(spec, "--model"))
    path = Path(spec).expanduser()
    return next((folder for folder in (path, path / "model") if (folder / DESCRIPTION).is_file()), None)


@functools.cache
def _fetched(address: str) -> Path | None:
    """A local copy of the model folder there, for as long as this process lives."""
    for folder in (address, f"{address}/model"):
        description = storage.read(f"{folder}/{DESCRIPTION}")
        if description is not None:
            here = Path(tempfile.mkdtemp(prefix="contrique_jax."))
            atexit.register(shutil.rmtree, here, ignore_errors=True)
            (here / DESCRIPTION).write_bytes(description)
            weights = storage.read(f"{folder}/{WEIGHTS}")
            if weights is not None:
                (here / WEIGHTS).write_bytes(weights)
            return here
    return None


def random_weights(model: ModelConfig) -> Variables:
    """Untrained weights, always the same: what a trained network has to beat."""
    return init_model(model, 0)


def use_compilation_cache() -> None:
    """Compiled networks are kept in the user's cache, so that the next start is quick (CONTRIQUE_CACHE=off: no)."""
    folder = user_cache("compiled")
    if folder is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
