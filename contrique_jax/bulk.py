"""The command `contrique-jax bulk`: a million images, in shards, on this machine or on a cluster by Apache Beam."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.inference.flags import add_model_flags
from contrique_jax.shards.results import FORMATS
from contrique_jax.shards.run import Run, check_installed, score_all
from contrique_jax.shards.scoring import Job


def main(argv: Sequence[str]) -> None:
    """Raises UserError if Beam is missing, a source or the model cannot be used, or a shard cannot be done."""
    parser = Parser(
        prog="contrique-jax bulk",
        description="Scores of many images, in shards: OUT/scores-N.parquet (path, score, its 90 % interval, the likeliest "
        "distortion, size, hashes), OUT/broken-N.csv with reasons. Nothing is lost and nothing done twice: the same command "
        "again does what is missing, and what is new. Apache Beam spreads the work: over processes of this machine, or by "
        "--runner over a cluster.",
        epilog="Examples: contrique-jax bulk ~/photos --out scores; contrique-jax bulk 'shards/*.tar' --out scores --features; "
        "contrique-jax bulk --features-of scores --model M --probe new.npz --out again; contrique-jax bulk gs://B/photos --out "
        "gs://B/scores --runner DataflowRunner --option project=P --option region=R --option temp_location=gs://B/temp",
    )
    add_model_flags(parser, default=None)
    parser.add_argument("--probe", metavar="P.npz", help="from contrique-jax evaluate --probe; it goes with a --model")
    parser.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="files, folders (recursive), globs, .csv, .txt; tar files (WebDataset), Parquet tables that name images or hold "
        "them; the same at gs://",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="a folder, made if it is not there, or gs://BUCKET/FOLDER"
    )
    parser.add_argument(
        "--path-column", metavar="NAME",
        help="the column of a table that names the images, or holds them (default: path, of Parquet else image)",
    )  # fmt: skip
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of scores (default: %(default)s)")
    parser.add_argument("--features", action="store_true", help="keep features too, in features-N.npz")
    parser.add_argument(
        "--features-of",
        metavar="DIR",
        help="score the features that another run has kept, with a new probe; no PATH then",
    )
    parser.add_argument(
        "--shard-images", type=int, default=1000, metavar="N",
        help="in a shard, which is what is done again after a kill; a tar file is one shard (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N",
        help="processes of each host, which share its cores (default: one a core; one on a GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--runner", default="direct", metavar="R",
        help="of Apache Beam: direct is this machine; DataflowRunner, FlinkRunner, SparkRunner ... (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of that runner, as often as need be",
    )
    flags = parser.parse_intermixed_args(argv)
    check_installed()
    if bool(flags.paths) == bool(flags.features_of):
        raise UserError("bulk: give the PATHs of images, or --features-of DIR, one of the two.")
    for name, least in (("shard_images", 1), ("workers", 0)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(flags, name)}: give {least} or more.")
    job = Job(
        flags.out, flags.model, flags.probe, flags.max_megapixels, flags.memory, flags.format, flags.features,
        flags.features_of,
    )  # fmt: skip
    run = Run(flags.paths, flags.path_column, flags.shard_images, flags.workers, flags.runner, flags.option)
    print(score_all(job, run))


if __name__ == "__main__":
    sys.exit(run_verb(main))
