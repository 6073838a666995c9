"""`contrique-jax convert probe-from-sklearn X.save OUT.npz` and `probe-to-sklearn P.npz OUT`: a linear regressor of
scikit-learn's as a probe, and a probe as a Ridge, as JSON, as a skops file, or as a pickle.

What a Ridge has no place for (range, direction, data set, model) travels in an attribute of its own, DESCRIPTION.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from contrique_jax.convert.linear_steps import GIVE, PASSED, Step, line_of
from contrique_jax.convert.sklearn_pickle import read_regressor
from contrique_jax.errors import UserError, printable
from contrique_jax.inference.any_recipe import open_extractor
from contrique_jax.io.json_files import read_json
from contrique_jax.io.npz import MOST_BYTES
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.io.regular import open_regular
from contrique_jax.probe import FULL_REFERENCE, NO_REFERENCE, Probe, load_probe

DESCRIPTION = "contrique_jax_probe"
_RIDGE = ("coefficients", "intercept", "alpha")
_PICKLES = (".save", ".pkl", ".pickle")
_TOLD = {
    "score_low": float, "score_high": float, "higher_is_better": bool, "data_set": str, "feature_name": str,
    "model_hash": str, "deviation": float, "shorter_side": int,
}  # fmt: skip
HOW_TO_BUILD = [
    "import json, numpy, sklearn.linear_model; stored = json.load(open(PATH)); w = numpy.array(stored['coefficients'])",
    "ridge = sklearn.linear_model.Ridge(alpha=stored['alpha'])",
    "ridge.coef_, ridge.intercept_, ridge.n_features_in_ = w, stored['intercept'], len(w)",
]


def probe_from_sklearn_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A linear regressor that scikit-learn or joblib pickled, or that probe-to-sklearn wrote, as a probe for contrique-jax "
        "score: a Ridge, an ElasticNet, an SVR with a linear kernel, or a Pipeline of StandardScaler or MinMaxScaler and one "
        "of these. Nothing in a pickle is run: it may name those and their arrays, anything else is refused."
    )
    parser.epilog = (
        "Example, differential scores (lower is better) of 0 to 100: contrique-jax convert probe-from-sklearn LIVE.save "
        "live.npz --low 0 --high 100 --higher-is-better no"
    )
    parser.add_argument("ridge", metavar="X.save", help="pickle (protocol 2 to 5), .json or .skops")
    probe_arguments(parser)


def probe_arguments(parser: argparse.ArgumentParser) -> None:
    """What a regressor of another program does not tell about the probe that is made of it."""
    parser.add_argument("out", metavar="OUT.npz")
    parser.add_argument("--low", type=float, help="lowest score of the data set it was fitted on")
    parser.add_argument("--high", type=float, help="highest score of that data set")
    parser.add_argument("--higher-is-better", choices=("yes", "no"), help="no for differential scores (DMOS)")
    parser.add_argument("--data-set", metavar="NAME", help="default: the name of the file")
    parser.add_argument(
        "--feature-name",
        choices=(NO_REFERENCE, FULL_REFERENCE),
        help=f"{FULL_REFERENCE!r} if it compares an image with its reference; default: {NO_REFERENCE!r}",
    )
    parser.add_argument(
        "--model", metavar="M", help="the model whose features it reads; score then refuses it with any other"
    )


def probe_from_sklearn(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no such regressor, and if neither file nor flags tell range and direction."""
    out = output_path("OUT", args.out, (".npz",))
    path = Path(args.ridge).expanduser()
    save_probe(args, out, path, read(path))


def save_probe(args: argparse.Namespace, out: Path, path: Path, ridge: StoredRidge) -> None:
    """The regressor that was read from `path` as a probe, with what its file tells and the flags. Raises UserError if neither
    tells range and direction."""
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
        raise UserError(f"{path}: it does not say which scores it predicts; give {' and '.join(missing)}.")
    low, high = known["score_low"], known["score_high"]
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--low {low:g} --high {high:g}: give two numbers, the lower one first.")
    probe = Probe(coefficients=ridge.coefficients, intercept=ridge.intercept, alpha=ridge.alpha, **known)
    if fault := probe.fault():
        raise UserError(f"{path}: {fault}; fit it again, or say otherwise with a flag.")
    probe.save(out)
    print(
        f"{out}: a probe on {len(probe.coefficients)} features ({probe.feature_name}), alpha {probe.alpha:g}, intercept "
        f"{probe.intercept:g}, scores of {printable(probe.data_set)} from {low:g} to {high:g}, {probe.direction}"
    )
    if not probe.model_hash:
        print("its model is not known, so any model with as many features is taken; --model M ties it to one")


def _hash_of(model_path: str, ridge: Path, coefficients: int) -> str:
    """The model's hash. Raises UserError if its features are another number than the regressor has coefficients."""
    extractor = open_extractor(model_path)
    if extractor.width != coefficients:
        raise UserError(
            f"{ridge}: a regressor on {coefficients} features, --model {model_path} gives {extractor.width}; name the model "
            "that it was fitted on."
        )
    return extractor.model_hash


def _told(description: dict[str, Any]) -> dict[str, Any]:
    """The fields of a probe that a file tells, of the right types and finite."""
    told = {name: description[name] for name, kind in _TOLD.items() if type(description.get(name)) is kind}
    return {name: value for name, value in told.items() if not isinstance(value, float) or math.isfinite(value)}


def probe_to_sklearn_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A probe as a scikit-learn Ridge that predicts the same: .json (numbers, and three lines of Python that make a "
        "Ridge of them), .skops (the skops library), or with --pickle a pickle, which whoever opens it has to trust."
    )
    parser.epilog = "Example: contrique-jax convert probe-to-sklearn mine.npz mine.json"
    parser.add_argument("probe", metavar="P.npz", help="from contrique-jax evaluate --probe")
    parser.add_argument("out", metavar="OUT.json|OUT.skops|OUT.save")
    parser.add_argument("--pickle", action="store_true", help=f"write a pickle ({', '.join(_PICKLES)})")


def probe_to_sklearn(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no probe, and for a pickle that is not asked for by --pickle."""
    if not args.pickle and args.out.lower().endswith(_PICKLES):
        raise UserError(
            f"{args.out}: a pickle runs code in the program that opens it; name a .json or .skops file, or add --pickle."
        )
    out = output_path("OUT", args.out, _PICKLES if args.pickle else (".json", ".skops"))
    probe = load_probe(args.probe)
    if probe.hidden is not None:
        raise UserError(
            f"{args.probe}: a hidden layer has a share in its scores, which no Ridge has; name a probe that "
            "`contrique-jax evaluate --probe` fitted."
        )
    write = write_pickle if args.pickle else write_json if out.suffix.lower() == ".json" else write_skops
    write(probe, out)
    print(f"{out}: a Ridge on {len(probe.coefficients)} features, alpha {probe.alpha:g}, {probe.direction}")


@dataclasses.dataclass(frozen=True)
class StoredRidge:
    """A regressor of one score as a Ridge has it, and the fields of a Probe that its file tells."""

    coefficients: Float[np.ndarray, " d"]
    intercept: float
    alpha: float
    description: dict[str, Any]


def description(probe: Probe) -> dict[str, Any]:
    """The fields of a probe that a Ridge has no place for; the posterior stays behind."""
    return {name: value for name, value in probe.plain().items() if name not in _RIDGE}


def write_json(probe: Probe, path: Path) -> None:
    """Numbers as text that reads back exactly, and three lines of Python that make a Ridge of them."""
    numbers = {"coefficients": probe.coefficients.tolist(), "intercept": probe.intercept, "alpha": probe.alpha}
    stored = {"how_to_build": HOW_TO_BUILD, DESCRIPTION: description(probe)} | numbers
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def write_skops(probe: Probe, path: Path) -> None:
    """A file of the skops library. Raises UserError if it is not installed."""
    ridge = sklearn_ridge(probe)
    skops = _skops(path)
    with atomic_write(path) as temporary:
        skops.dump(ridge, temporary)


def write_pickle(probe: Probe, path: Path) -> None:
    """A pickled scikit-learn Ridge."""
    ridge = sklearn_ridge(probe)
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(ridge, protocol=4))


def sklearn_ridge(probe: Probe) -> Any:
    """A fitted scikit-learn Ridge that predicts what the probe predicts. Raises UserError without scikit-learn."""
    try:
        from sklearn.linear_model import Ridge
    except ImportError as error:
        raise UserError(
            f"scikit-learn cannot be imported ({error}); pip install 'contrique-jax[sklearn]', or write a .json."
        ) from error
    ridge = Ridge(alpha=probe.alpha)
    ridge.coef_, ridge.intercept_ = np.array(probe.coefficients), probe.intercept
    ridge.n_features_in_, ridge.n_iter_ = len(probe.coefficients), None
    setattr(ridge, DESCRIPTION, description(probe))
    return ridge


def read(path: Path) -> StoredRidge:
    """The regressor in a .json of ours, a .skops file or else a pickle, as a Ridge that predicts the same. Raises UserError if
    it is none."""
    reader = {".json": _read_json, ".skops": _read_skops}.get(path.suffix.lower(), read_regressor)
    held = reader(path)
    told = held.get(DESCRIPTION)
    ridge = StoredRidge(
        held["coef_"], held["intercept_"], held["alpha"], description=told if isinstance(told, dict) else {}
    )
    if not ridge.coefficients.size or not np.isfinite([*ridge.coefficients, ridge.intercept, ridge.alpha]).all():
        raise UserError(f"{path}: no coefficients, or NaN or infinity among its numbers; fit it again.")
    return ridge


def _read_json(path: Path) -> dict[str, Any]:
    try:
        stored = read_json(path, MOST_BYTES)
        plain = [stored["intercept"], stored["alpha"], *stored["coefficients"]]
        if not all(type(value) in (int, float) for value in plain):
            raise TypeError("text where numbers should be")
        coefficients = np.array(plain[2:], np.float64)
        numbers = {"intercept_": float(plain[0]), "alpha": float(plain[1])}
        return {"coef_": coefficients, DESCRIPTION: stored.get(DESCRIPTION), **numbers}
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a probe as JSON ({error}); give one that `probe-to-sklearn` wrote.") from error


def _read_skops(path: Path) -> dict[str, Any]:
    skops = _skops(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it would unpack to more than {MOST_BYTES >> 20} MiB")
        loaded = skops.load(path)
        parts = [step for _, step in loaded.steps] if type(loaded).__name__ == "Pipeline" else [loaded]
        steps = [Step(type(part).__name__, vars(part)) for part in parts if part not in PASSED]
        line = line_of(steps, lambda value: np.asarray(value, np.float64))
        told = {DESCRIPTION: steps[-1].attributes.get(DESCRIPTION)}
        return {"coef_": line.coefficients, "intercept_": line.intercept, "alpha": line.alpha} | told
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror or error}).") from error
    except Exception as error:  # damaged files and types that skops does not trust
        raise UserError(f"{path}: no regressor that skops reads ({' '.join(str(error).split())}); {GIVE}.") from error


def _skops(path: Path) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise UserError(
            f"{path}: skops cannot be imported ({error}); pip install 'contrique-jax[sklearn]', or take a .json."
        ) from error
    return skops.io
