"""`contrique-jax convert probe-from-sklearn X.save OUT.npz`: a scikit-learn Ridge as a probe."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from contrique_jax.convert.ridges import read
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import output_path
from contrique_jax.networks.encoder import feature_width
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe
from contrique_jax.training.load import load_network

_TOLD = {
    "score_low": float, "score_high": float, "higher_is_better": bool, "data_set": str, "feature_name": str,
    "model_hash": str, "deviation": float, "shorter_side": int,
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A Ridge that scikit-learn or joblib pickled, or that probe-to-sklearn wrote, as a probe for contrique-jax score. "
        "Nothing in a pickle is run: it may name a Ridge and its arrays, anything else is refused."
    )
    parser.epilog = (
        "Example, differential scores (lower is better) of 0 to 100: contrique-jax convert probe-from-sklearn LIVE.save "
        "live.npz --low 0 --high 100 --higher-is-better no"
    )
    parser.add_argument("ridge", metavar="X.save", help="pickle (protocol 2 to 5), .json or .skops")
    parser.add_argument("out", metavar="OUT.npz")
    parser.add_argument("--low", type=float, help="lowest score of the data set it was fitted on")
    parser.add_argument("--high", type=float, help="highest score of that data set")
    parser.add_argument("--higher-is-better", choices=("yes", "no"), help="no for differential scores (DMOS)")
    parser.add_argument("--data-set", metavar="NAME", help="default: the name of the file")
    parser.add_argument(
        "--feature-name",
        choices=(NO_REFERENCE, FULL_REFERENCE),
        help=f"{FULL_REFERENCE!r} where it compares an image with its reference; default: {NO_REFERENCE!r}",
    )
    parser.add_argument(
        "--model", metavar="M", help="the model whose features it reads; score then refuses it with any other"
    )


def run(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no Ridge, and where neither file nor flags tell range and direction."""
    out = output_path("OUT", args.out, (".npz",))
    path = Path(args.ridge).expanduser()
    ridge = read(path)
    flags = {
        "score_low": args.low,
        "score_high": args.high,
        "higher_is_better": args.higher_is_better and args.higher_is_better == "yes",
        "data_set": args.data_set,
        "feature_name": args.feature_name,
        "model_hash": None if args.model is None else _hash_of(args.model, path, len(ridge.coefficients)),
    }
    default = {"data_set": path.stem, "feature_name": NO_REFERENCE, "model_hash": "", "deviation": None}
    known = default | _told(ridge.description) | {name: value for name, value in flags.items() if value is not None}
    asked = {"score_low": "--low", "score_high": "--high", "higher_is_better": "--higher-is-better yes|no"}
    missing = [flag for name, flag in asked.items() if name not in known]
    if missing:
        raise UserError(f"{path}: a Ridge does not say which scores it predicts; give {' and '.join(missing)}.")
    low, high = known["score_low"], known["score_high"]
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--low {low:g} --high {high:g}: give two numbers, the lower one first.")
    probe = Probe(coefficients=ridge.coefficients, intercept=ridge.intercept, alpha=ridge.alpha, **known)
    probe.save(out)
    print(
        f"{out}: a probe on {len(probe.coefficients)} features ({probe.feature_name}), alpha {probe.alpha:g}, intercept "
        f"{probe.intercept:g}, scores of {probe.data_set} from {low:g} to {high:g}, {probe.direction}"
    )
    if not probe.model_hash:
        print("its model is not known, so any model with as many features is taken; --model M ties it to one")


def _hash_of(model_path: str, ridge: Path, coefficients: int) -> str:
    """The model's hash. Raises UserError where its features are another number than the Ridge has coefficients."""
    model, variables = load_network(model_path)
    features = 2 * feature_width(model)
    if features != coefficients:
        raise UserError(
            f"{ridge}: a Ridge on {coefficients} features, --model {model_path} gives {features}; name the model that it "
            "was fitted on."
        )
    return content_hash(model, variables)


def _told(description: dict[str, Any]) -> dict[str, Any]:
    """The fields of a probe that a file tells, of the right types and finite."""
    told = {name: description[name] for name, kind in _TOLD.items() if isinstance(description.get(name), kind)}
    return {name: value for name, value in told.items() if not isinstance(value, float) or math.isfinite(value)}
