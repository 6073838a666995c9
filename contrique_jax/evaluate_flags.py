"""What `evaluate` is asked for: its flags, and the data sets that they name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from contrique_jax.data.iqa_sets import ScoredImages, read_scores, read_set
from contrique_jax.errors import Parser, UserError
from contrique_jax.features import add_model_flags


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="contrique-jax evaluate",
        description="Correlation with opinion scores: repeated 70/10/20 splits (or the official one), ridge on the "
        "features, alpha by validation; the same for random weights, hand-made statistics and the mean; saves the probe "
        "fitted on all images.",
        epilog="Examples: contrique-jax evaluate --model runs/first --scores my/scores.csv --probe my.npz --report my.html; "
        "contrique-jax evaluate --model runs/first --dataset koniq10k --images ~/koniq --cross clive=~/clive",
    )
    add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--scores", metavar="F.csv", help="columns path (relative to it) and a score")
    source.add_argument("--images", metavar="FOLDER", help="a public data set as distributed, with --dataset NAME")
    parser.add_argument("--dataset", metavar="NAME", help="with --images: which it is; else what to call it")
    parser.add_argument("--score-column", metavar="C", help="default: the one of mos, dmos, score that is there")
    parser.add_argument("--group-column", metavar="C", help="a group is never on two sides of a split (default: group)")
    parser.add_argument("--subset-column", metavar="C", help="correlations of each subset too (default: subset)")
    parser.add_argument("--reference-column", metavar="C", help="as --full-reference; the column of pristine images")
    parser.add_argument("--full-reference", action="store_true", help="|f(reference) - f(image)| is judged")
    parser.add_argument("--lower-is-better", action="store_true", help="the scores measure damage (dmos always does)")
    parser.add_argument("--splits", type=int, metavar="N", help="random splits (default: the official split, else 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the splits (default: %(default)s)")
    parser.add_argument("--splits-file", metavar="F.json", help="read the splits there; write them if it is not there")
    parser.add_argument(
        "--choose", choices=("validation", "leave-one-out"),
        help="alpha by median validation SROCC, or by the error of groups left out of train and validation together "
        "(default: validation where the splits have such a side)",
    )  # fmt: skip
    parser.add_argument("--cross", nargs="+", default=[], metavar="OTHER.csv|NAME=FOLDER",
                        help="fit on all of this data set and test on all of those")  # fmt: skip
    parser.add_argument(
        "--learning-curve", action="store_true", help="SROCC from 10 labelled images to all (--report too)"
    )
    parser.add_argument("--no-control", action="store_true", help="leave out random weights and hand-made statistics")
    parser.add_argument("--features-cache", metavar="DIR", help="keep features there (default: the user's cache)")
    parser.add_argument("--probe", metavar="P.npz", help="save the probe fitted on all images here")
    parser.add_argument("--out", metavar="R.json", help="save every number here")
    parser.add_argument("--report", metavar="R.html", help="a page with tables and pictures, in one file")
    flags = parser.parse_args(argv)
    if (flags.splits is not None and flags.splits < 1) or flags.seed < 0:
        raise UserError("--splits must be at least 1 and --seed at least 0.")
    if flags.images and not flags.dataset:
        raise UserError("--images: say which data set it is with --dataset NAME, or give a csv with --scores.")
    columns = [name for name in ("score", "group", "subset", "reference") if vars(flags)[f"{name}_column"] is not None]
    if flags.images and (columns or flags.lower_is_better):
        wrong = f"--{columns[0]}-column" if columns else "--lower-is-better"
        raise UserError(f"{wrong}: it is for a csv, and the data set's own tables are read; leave it out.")
    return flags


def read_images(flags: argparse.Namespace) -> ScoredImages:
    if flags.images:
        return read_set(flags.dataset, flags.images, with_references=flags.full_reference)
    return read_scores(
        flags.scores,
        name=flags.dataset,
        score_column=flags.score_column,
        group_column=flags.group_column,
        subset_column=flags.subset_column,
        reference_column=flags.reference_column or ("reference" if flags.full_reference else None),
        lower_is_better=flags.lower_is_better,
    )


def read_other(spec: str, with_references: bool) -> ScoredImages:
    """The data set that --cross names: a csv with the default columns, or NAME=FOLDER."""
    name, equals, folder = spec.partition("=")
    if equals and not Path(spec).expanduser().is_file():
        return read_set(name, folder, with_references=with_references, field="--cross")
    found = read_scores(spec, reference_column="reference" if with_references else None)
    return replace(found, name=Path(spec).stem if found.name in ("", ".") else found.name)
