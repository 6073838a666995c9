"""`model.json`, which says what the weights of a model folder are: each field is checked before a network is laid out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from contrique_jax.config import DTYPES, ENCODERS, FEATURES, INPUT_SCALINGS, Config, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.io.json_files import read_json

DESCRIPTION = "model.json"
FORMAT_VERSION = 1
ADDED_LATER = {"input_scaling", "features"}  # fields of the architecture that older folders lack; they had the default
MOST_BYTES = 1 << 22  # of a description
MOST = {"base_width": 4096, "patches": 1024, "depth": 64, "blocks": 64}  # more would take all memory
MOST_OF_ANY = 1 << 16

Architecture = TypeVar("Architecture", bound=Any)


def folder_at(path: Path) -> Path | None:
    """The model folder at a place, or the one in the workdir of a run there; None if there is none."""
    return next((folder for folder in (path, path / "model") if (folder / DESCRIPTION).is_file()), None)


def read_description(folder: Path) -> dict[str, Any]:
    """The `model.json` of a model folder. Raises UserError if it cannot be read or is of an unknown format."""
    path = folder / DESCRIPTION
    try:
        description = read_json(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy or save the model again.") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int or version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format version {version!r} is unknown, this program reads {FORMAT_VERSION}; "
            "update the program or save the model again."
        )
    if not isinstance(recipe := description.get("recipe", Config.recipe), str):
        raise UserError(f"{path}: recipe is {recipe!r}, and must be a name; save the model again.")
    return dict(description)


def stored_architecture(stored: Any, kind: type[Architecture], path: Path) -> Architecture:
    """The architecture that the file at `path` describes, as the dataclass `kind` of a recipe's models.

    Raises UserError for fields that are unknown, missing, of another type or out of range.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    fields = {name: type(default) for name, default in defaults.items()}
    later = (ADDED_LATER | getattr(kind, "added_later", frozenset())) & set(fields)
    if not isinstance(stored, dict):
        raise UserError(f"{path}: architecture is {stored!r}, and must hold {some(fields)}.")
    if set(stored) | later != set(fields):
        unknown, missing = set(stored) - set(fields), set(fields) - set(stored) - later
        faults = [f"{word} {some(names)}" for word, names in (("has unknown", unknown), ("lacks", missing)) if names]
        raise UserError(f"{path}: architecture {' and '.join(faults)}; save the model again with this program.")
    for name, value in stored.items():
        kind_of_field = fields[name]
        # 0 is a number among others where it is the default, and of projection_dim: an encoder without a projector
        least = int(name != "projection_dim" and defaults[name] != 0)
        most = MOST.get(name, MOST_OF_ANY)
        in_range = not isinstance(value, int) or isinstance(value, bool) or least <= value <= most
        if type(value) is not kind_of_field or not in_range:
            wanted = f"a whole number, {least} to {most}" if kind_of_field is int else f"a {kind_of_field.__name__}"
            raise UserError(f"{path}: architecture.{name} is {value!r}, and must be {wanted}.")
    if not issubclass(kind, ModelConfig):
        return kind(**stored)
    choices = {
        "encoder": ENCODERS,
        "compute_dtype": DTYPES,
        "input_scaling": INPUT_SCALINGS,
        "features": FEATURES,
    }
    for name, allowed in choices.items():
        if stored.get(name, allowed[0]) not in allowed:
            raise UserError(
                f"{path}: architecture.{name} is {stored[name]!r}, and must be one of {', '.join(allowed)}."
            )
    if stored["encoder"] == "efficientnet_lite0" and stored["base_width"] != ModelConfig.base_width:
        raise UserError(f"{path}: architecture.base_width is {stored['base_width']}, and must be 64 for its encoder.")
    return kind(**stored)


def check_sizes(model: ModelConfig) -> None:
    """Raises UserError if a network of sizes that somebody's arrays have cannot be laid out."""
    for name, least in (("base_width", 1), ("projection_dim", 0)):
        value, most = getattr(model, name), MOST.get(name, MOST_OF_ANY)
        if not least <= value <= most:
            raise UserError(f"its arrays are of a {name} of {value}, and it must be {least} to {most}.")


def some(names: Iterable[str], limit: int = 4) -> str:
    """The first few names, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {more} more" if more > 0 else "")
