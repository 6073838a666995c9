"""`contrique-jax convert ensemble OUT NAME=M NAME=M`: models side by side in one model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from contrique_jax.errors import UserError
from contrique_jax.inference.any_recipe import EnsembleExtractor
from contrique_jax.networks.ensemble import MOST_MEMBERS, is_name, save_ensemble
from contrique_jax.training.load import load_any, model_folder


def ensemble_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Models side by side in one model folder, which score, evaluate and contrique_jax.load take as they take one: their "
        "features stand one after the other, each model's full and half size together. Each stays a model of its own, "
        "OUT/NAME. Of Re-IQA the names are content and quality."
    )
    parser.epilog = "Example: contrique-jax convert ensemble models/reiqa content=runs/content quality=runs/quality"
    parser.add_argument("out", metavar="OUT", help="the model folder, which must not exist yet")
    parser.add_argument("members", metavar="NAME=M", nargs="+", help="a name, and a model folder or a run's workdir")


def ensemble(args: argparse.Namespace) -> None:
    """Raises UserError for a name that is none, a model that is no model folder or not of the kind that its name says."""
    given = [member.partition("=")[::2] for member in args.members]
    for name, spec in given:
        if not is_name(name) or not spec:
            raise UserError(f"{name}={spec}: give NAME=MODEL, a name of letters, digits, _ and -.")
    names = [name for name, _ in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice or not 2 <= len(names) <= MOST_MEMBERS:
        raise UserError(
            f"{args.out}: " + (f"{twice} is given twice." if twice else f"name 2 to {MOST_MEMBERS} models.")
        )
    folders: dict[str, Path] = {}
    models = {}
    for name, spec in given:
        folder = model_folder(spec)
        if folder is None:
            raise UserError(f"{name}={spec}: no model folder and no finished run; name one.")
        models[name] = load_any(str(folder))
        kind = getattr(models[name][0].model, "kind", name)
        if kind != name:
            raise UserError(f"{name}={spec}: is a {kind} model; name a {name} model, or write {kind}={spec}.")
        folders[name] = folder
    extractor = EnsembleExtractor(models)
    save_ensemble(args.out, folders)
    print(f"{args.out}: {', '.join(names)}, {extractor.width} features, model {extractor.model_hash}")
