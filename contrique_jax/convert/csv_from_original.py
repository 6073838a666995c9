"""`contrique-jax convert csv-from-original F.csv OUT.csv`: the original's list of images as a manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from contrique_jax.convert.original_csv import HELP, ORIGINAL, OURS, class_of, rewrite
from contrique_jax.io.outputs import output_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = HELP
    parser.epilog = "Example: contrique-jax convert csv-from-original training.csv distorted.csv"
    parser.add_argument("csv", metavar="F.csv", help="columns File_names, labels")
    parser.add_argument("out", metavar="OUT.csv")


def run(args: argparse.Namespace) -> None:
    """Raises UserError naming the first line that is off."""
    out = output_path("OUT", args.out, (".csv",))
    counts = rewrite(Path(args.csv).expanduser(), out, ORIGINAL, OURS, class_of)
    print(f"{out}: {counts}")
