"""The flags of `evaluate`, and the data sets that they name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contrique_jax.data.iqa_sets import LOWER_IS_BETTER, ScoredImages, csv_columns, read_scores, read_set
from contrique_jax.data.iqa_sets.ratings import shared_files
from contrique_jax.errors import Parser, UserError
from contrique_jax.evaluation.splits import check_request
from contrique_jax.inference.flags import add_model_flags

MOST_SPLITS = 10_000
COLUMNS = tuple(f"{what}_column" for what in ("path", "score", "group", "subset", "reference", "deviation"))


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
    parser.add_argument("--path-column", metavar="C", help="the images' file names (default: path)")
    parser.add_argument("--score-column", metavar="C", help="default: the one of mos, dmos, score that is there")
    parser.add_argument("--group-column", metavar="C", help="a group is never on two sides of a split (default: group)")
    parser.add_argument("--subset-column", metavar="C", help="correlations of each subset too (default: subset)")
    parser.add_argument("--reference-column", metavar="C", help="as --full-reference; the column of pristine images")
    parser.add_argument("--deviation-column", metavar="C", help="opinions' standard deviations, for the outlier ratio")
    parser.add_argument(
        "--keep-duplicates-apart", action="store_true", help="do not put files of the same bytes in one group"
    )
    parser.add_argument("--full-reference", action="store_true", help="|f(reference) - f(image)| is judged")
    parser.add_argument("--lower-is-better", action="store_true", help="the scores measure damage (dmos always does)")
    parser.add_argument("--shorter-side", type=int, metavar="N", help="scale images down to this shorter side first")
    parser.add_argument("--splits", type=int, metavar="N", help="random splits (default: the official split, else 10)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the splits (default: 0)")
    parser.add_argument("--splits-file", metavar="F.json", help="read the splits there; write them if it is not there")
    parser.add_argument(
        "--choose", choices=("validation", "leave-one-out"),
        help="alpha by median validation SROCC, or by the error of groups left out of train and validation together "
        "(default: validation if the splits have such a side)",
    )  # fmt: skip
    parser.add_argument("--logistic", type=int, choices=(4, 5), default=4,
                        help="parameters of the curve behind PLCC and RMSE (default: %(default)s)")  # fmt: skip
    parser.add_argument("--against", nargs="+", default=[], metavar="M",
                        help="further models over the same splits, compared with --model")  # fmt: skip
    parser.add_argument("--cross", nargs="+", default=[], metavar="OTHER.csv|NAME=FOLDER",
                        help="fit on all of this data set and test on all of those; columns named here, --shorter-side "
                        "and --lower-is-better are for those csv files too")  # fmt: skip
    parser.add_argument(
        "--learning-curve", action="store_true", help="SROCC from 10 labelled images to all (--report too)"
    )
    parser.add_argument("--no-control", action="store_true", help="leave out random weights and hand-made statistics")
    parser.add_argument("--features-cache", metavar="DIR", help="keep features there (default: the user's cache)")
    parser.add_argument("--probe", metavar="P.npz", help="save the probe fitted on all images here")
    parser.add_argument("--out", metavar="R.json", help="save every number here")
    parser.add_argument("--report", metavar="R.html", help="a page with tables and pictures, in one file")
    flags = parser.parse_args(argv)
    if flags.splits is not None and not 1 <= flags.splits <= MOST_SPLITS:
        raise UserError(f"--splits {flags.splits}: it must be between 1 and {MOST_SPLITS}.")
    if flags.seed is not None and flags.seed < 0:
        raise UserError(f"--seed {flags.seed}: it must be at least 0.")
    if flags.shorter_side is not None and flags.shorter_side < 1:
        raise UserError(f"--shorter-side={flags.shorter_side}: it is a number of pixels, at least 1.")
    if flags.model in flags.against or len(set(flags.against)) < len(flags.against):
        raise UserError("--against: a model is named twice; give each once.")
    if flags.images and not flags.dataset:
        raise UserError("--images: say which data set it is with --dataset NAME, or give a csv with --scores.")
    given = [name.replace("_", "-") for name in _for_csv(flags)]
    if flags.images and given and not any(map(_is_csv, flags.cross)):
        raise UserError(f"--{given[0]}: it is for a csv, and the data set's own tables are read; leave it out.")
    if flags.splits_file and Path(flags.splits_file).expanduser().exists():
        check_request(flags.splits_file, flags.splits, flags.seed)
    flags.seed = flags.seed or 0
    return flags


def read_images(flags: argparse.Namespace) -> ScoredImages:
    if flags.images:
        with_references = flags.full_reference or flags.reference_column is not None
        return read_set(flags.dataset, flags.images, with_references=with_references)
    default = {"reference_column": "reference"} if flags.full_reference else {}
    return read_scores(flags.scores, name=flags.dataset, **default | _for_csv(flags))


def read_others(flags: argparse.Namespace, own: ScoredImages) -> list[ScoredImages]:
    """The data sets that --cross names; says on stderr how many of their images are among `own` too."""
    others = [_read_other(spec, flags, own) for spec in flags.cross]
    for spec, other in zip(flags.cross, others, strict=True):
        shared = shared_files(own.paths, other.paths)
        if shared:
            are = "is" if shared == 1 else "are"
            print(
                f"warning: --cross {spec}: {shared} of its {len(other)} images {are} also in {own.name}; its result is not "
                "of unseen images.",
                file=sys.stderr,
            )
    return others


def _read_other(spec: str, flags: argparse.Namespace, own: ScoredImages) -> ScoredImages:
    """NAME=FOLDER, or a csv: of the columns that are named for the csv of --scores those that this one has too."""
    with_references = own.references is not None
    if not _is_csv(spec):
        name, _, folder = spec.partition("=")
        return read_set(name, folder, with_references=with_references, field="--cross")
    if not Path(spec).expanduser().is_file():
        raise UserError(f"--cross: {spec} is no file; give a csv, or a public data set as NAME=FOLDER.")
    arguments = _for_csv(flags)
    if flags.scores:
        there = csv_columns(spec, "--cross")
        arguments = {name: value for name, value in arguments.items() if name not in COLUMNS or value in there}
    default = {"reference_column": "reference"} if with_references else {}
    found = read_scores(spec, **default | arguments, field="--cross")
    theirs = found.score_column
    if flags.scores and flags.lower_is_better and theirs.lower() not in (own.score_column.lower(), *LOWER_IS_BETTER):
        raise UserError(
            f"--lower-is-better: {own.score_column!r} measures damage, and whether {theirs!r} of {spec} does is not clear; "
            "call scores of damage dmos in both and leave the flag out."
        )
    return replace(found, name=Path(spec).stem if found.name in ("", ".") else found.name)


def _is_csv(spec: str) -> bool:
    return "=" not in spec or Path(spec).expanduser().is_file()


def _for_csv(flags: argparse.Namespace) -> dict[str, Any]:
    """What was said of csv files, as arguments of `read_scores`."""
    return {
        name: vars(flags)[name]
        for name in (*COLUMNS, "lower_is_better", "shorter_side", "keep_duplicates_apart")
        if vars(flags)[name] not in (None, False)
    }
