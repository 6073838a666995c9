"""Ensembles: a model folder that holds others side by side, each in a folder of its own name, and says so in `model.json`.

Each of the others is a model folder like any, which may be named by itself. Their features stand side by side in the order of
`architecture.members`, each member's own full and half size together.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from contrique_jax.errors import UserError, disk_message
from contrique_jax.io.outputs import mark
from contrique_jax.networks.description import DESCRIPTION, FORMAT_VERSION, read_description
from contrique_jax.networks.model_folder import NO_LICENCE, checked_folder
from contrique_jax.networks.weights_file import WEIGHTS

ENSEMBLE = "ensemble"  # in place of a recipe's name
MOST_MEMBERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def members_of(folder: Path) -> list[str]:
    """The names of the models in an ensemble's folder, in order; [] if it is no ensemble. Raises UserError for a description
    that cannot be right."""
    description = read_description(folder)
    if description.get("recipe") != ENSEMBLE:
        return []
    architecture = description.get("architecture")
    names = architecture.get("members") if isinstance(architecture, dict) else None
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_MEMBERS or not all(map(is_name, names)):
        raise UserError(
            f"{folder / DESCRIPTION}: architecture.members must be a list of 1 to {MOST_MEMBERS} names of folders in it; "
            "copy the model again."
        )
    if len(set(names)) < len(names):
        raise UserError(f"{folder / DESCRIPTION}: architecture.members names a model twice; copy the model again.")
    return names


def is_name(name: object) -> bool:
    """Whether it can be a member's: letters, digits, _ and -."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def save_ensemble(folder: str | os.PathLike[str], members: Mapping[str, Path]) -> None:
    """Copies model folders, by name, into a new one, whole or not at all. Raises UserError if the place is taken or cannot be
    written."""
    folder = Path(os.path.abspath(folder))
    if folder.exists():
        raise UserError(f"{folder}: it exists; name another folder.")
    given = {name: read_description(checked_folder(path)) for name, path in members.items()}
    licences = dict.fromkeys(f"{name}: {description.get('licence', NO_LICENCE)}" for name, description in given.items())
    description = {
        "format_version": FORMAT_VERSION,
        "recipe": ENSEMBLE,
        "architecture": {"members": list(members)},
        "licence": "; ".join(licences),
    }
    beside = folder.with_name(f".{folder.name}.{mark()}.writing")
    try:
        for name, path in members.items():
            (beside / name).mkdir(parents=True)
            for file in (DESCRIPTION, WEIGHTS):
                shutil.copyfile(path / file, beside / name / file)
        (beside / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        os.rename(beside, folder)
    except OSError as error:
        raise UserError(
            disk_message(error, str(folder)) or f"{folder}: cannot be written ({error.strerror}); choose another."
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
