"""`contrique-jax convert csv-to-original F.csv OUT.csv`: a manifest as the original's list of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from contrique_jax.convert.original_csv import HELP, ORIGINAL, OURS, labels_of, rewrite
from contrique_jax.io.outputs import output_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = HELP
    parser.epilog = "Example: contrique-jax convert csv-to-original distorted.csv training.csv"
    parser.add_argument("csv", metavar="F.csv", help="columns path, class")
    parser.add_argument("out", metavar="OUT.csv")


def run(args: argparse.Namespace) -> None:
    """Raises UserError naming the first line that is off."""
    out = output_path("OUT", args.out, (".csv",))
    counts = rewrite(Path(args.csv).expanduser(), out, OURS, ORIGINAL, labels_of)
    print(f"{out}: {counts}")
