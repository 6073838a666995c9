"""`contrique-jax convert probe-to-sklearn P.npz OUT`: a probe as a scikit-learn Ridge."""

from __future__ import annotations

import argparse

from contrique_jax.convert import ridges
from contrique_jax.errors import UserError
from contrique_jax.io.outputs import output_path
from contrique_jax.probe import load_probe

_SAFE = {".json": ridges.write_json, ".skops": ridges.write_skops}
_PICKLES = (".save", ".pkl", ".pickle")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A probe as a scikit-learn Ridge that predicts the same: .json (numbers, and three lines of Python that make a "
        "Ridge of them), .skops (the skops library), or with --pickle a pickle, which whoever opens it has to trust."
    )
    parser.epilog = "Example: contrique-jax convert probe-to-sklearn mine.npz mine.json"
    parser.add_argument("probe", metavar="P.npz", help="from contrique-jax evaluate --probe")
    parser.add_argument("out", metavar="OUT.json|OUT.skops|OUT.save")
    parser.add_argument("--pickle", action="store_true", help=f"write a pickle ({', '.join(_PICKLES)})")


def run(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no probe, and for a pickle that is not asked for by --pickle."""
    if not args.pickle and args.out.lower().endswith(_PICKLES):
        raise UserError(
            f"{args.out}: a pickle runs code in the program that opens it; name a .json or .skops file, or add --pickle."
        )
    out = output_path("OUT", args.out, _PICKLES if args.pickle else tuple(_SAFE))
    probe = load_probe(args.probe)
    write = ridges.write_pickle if args.pickle else _SAFE[out.suffix.lower()]
    write(probe, out)
    print(f"{out}: a Ridge on {len(probe.coefficients)} features, alpha {probe.alpha:g}, {probe.direction}")
