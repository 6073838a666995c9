"""Loads what --model names: a model folder, workdir, checkpoint, gs:// address or random:ENCODER."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from contrique_jax.config import ENCODERS, Config, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.networks.backbones import is_backbone
from contrique_jax.networks.description import DESCRIPTION, folder_at, read_description
from contrique_jax.networks.encoder import Variables, init_model
from contrique_jax.networks.ensemble import members_of
from contrique_jax.networks.model_folder import load_model
from contrique_jax.networks.weights_file import WEIGHTS, embedded_folder
from contrique_jax.recipes import RECIPES
from contrique_jax.recipes.stored import stored_model


def recipe_behind(spec: str) -> str:
    """The recipe of the model that --model names; of what is no model folder, CONTRIQUE's. Raises UserError for one
    that is not known, and for several models."""
    folder = None if spec.startswith("random:") else model_folder(spec)
    if folder is None:
        return Config.recipe
    _refuse_ensemble(spec, folder)
    name = str(read_description(folder).get("recipe", Config.recipe))
    if is_backbone(name):
        raise UserError(
            f"{folder / DESCRIPTION}: holds a frozen network alone, which other models are trained on; name a trained model."
        )
    if name not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise UserError(f"{folder / DESCRIPTION}: there is no recipe {name!r} (known: {known}); update the program.")
    return name


def load_any(spec: str) -> tuple[Config, Variables]:
    """The model that --model names, of any recipe: its config, of which `model` is the architecture, and its weights.

    Raises UserError if there is none.
    """
    name = recipe_behind(spec)
    if name == Config.recipe:
        model, variables = load_network(spec)
        return Config(model=model), variables
    folder = model_folder(spec)
    assert folder is not None  # or it would be CONTRIQUE's
    return stored_model(folder)


def load_ensemble(spec: str) -> dict[str, tuple[Config, Variables]]:
    """The models of the ensemble that --model names, by name, as `load_any` gives them; {} if it names no ensemble."""
    folder = None if spec.startswith("random:") else model_folder(spec)
    return {name: load_any(str(folder / name)) for name in members_of(folder)} if folder else {}


def is_ensemble(spec: str) -> bool:
    """Whether --model names several models in one folder."""
    folder = None if spec.startswith("random:") else model_folder(spec)
    return folder is not None and bool(members_of(folder))


def _refuse_ensemble(spec: str, folder: Path) -> None:
    names = members_of(folder)
    if names:
        one = f"{spec.rstrip('/')}/{names[0]}"
        raise UserError(
            f"{spec}: holds several models side by side ({', '.join(names)}); name one of them, such as {one}."
        )


def load_network(spec: str) -> tuple[ModelConfig, Variables]:
    """The network that --model names: an embedded model, a model folder, a run's workdir, a checkpoint in it, or `random:`
    and the name of an encoder or another such place: the same architecture with random weights. A place may be an address
    in a bucket.

    Raises UserError if there is none.
    """
    if spec.startswith("random:"):
        name = spec.removeprefix("random:")
        model = ModelConfig(encoder=name) if name in ENCODERS else load_network(name)[0]
        return model, random_weights(model)
    folder, remote = model_folder(spec), buckets.is_address(spec)
    if folder is not None:
        _refuse_ensemble(spec, folder)
        try:
            return load_model(folder)
        except UserError as error:
            raise (UserError(str(error).replace(str(folder), spec)) if remote else error) from error
    check_place(spec)
    from contrique_jax.training.checkpoint import load_for_inference  # Orbax takes seconds to import

    return load_for_inference(spec if remote else Path(spec).expanduser())


def check_place(spec: str) -> None:
    """Raises UserError if --model names nothing that could be there."""
    path = Path(spec).expanduser()
    if not (buckets.is_address(spec) or spec.startswith("random:") or embedded_folder(spec) or path.is_dir()):
        raise UserError(
            f"{path} is no folder; give a model folder, a run's workdir, a name of `contrique-jax models` or random:ENCODER "
            f"(encoders: {', '.join(ENCODERS)})."
        )


def model_folder(spec: str) -> Path | None:
    """The model folder that --model names, itself, as the workdir around it or as an embedded model; None if it names
    something else.

    That of a bucket is copied to this machine.
    """
    if not spec:
        raise UserError("--model: it is empty; give a model folder, a run's workdir or random:ENCODER.")
    if buckets.is_address(spec):
        return _fetched(buckets.check_address(spec, "--model"))
    return folder_at(Path(spec).expanduser()) or embedded_folder(spec)


@functools.cache
def _fetched(address: str) -> Path | None:
    """A local copy of the model folder there, for as long as this process lives."""
    for folder in (address, f"{address}/model"):
        description = buckets.read(f"{folder}/{DESCRIPTION}")
        if description is not None:
            here = Path(tempfile.mkdtemp(prefix="contrique_jax."))
            atexit.register(shutil.rmtree, here, ignore_errors=True)
            (here / DESCRIPTION).write_bytes(description)
            names = members_of(here)
            files = [f"{name}/{file}" for name in names for file in (DESCRIPTION, WEIGHTS)] or [WEIGHTS]
            for file in files:
                stored = buckets.read(f"{folder}/{file}")
                if stored is not None:
                    (here / file).parent.mkdir(exist_ok=True)
                    (here / file).write_bytes(stored)
            return here
    return None


def random_weights(model: ModelConfig) -> Variables:
    """Untrained weights, always the same: what a trained network has to beat."""
    return init_model(model, 0)
