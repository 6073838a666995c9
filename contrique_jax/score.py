"""What a user calls: quality scores of files and folders."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from contrique_jax.data.image_files import list_images
from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.inference.extractor import Extractor, add_model_flags, name_reduced, progress_bar
from contrique_jax.inference.scores import Tally, Writer, check_fit, reference_features, score_files
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.probe import load_probe
from contrique_jax.training.load import load_network


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """`out`, which appears at the end and whole, or stdout. File names that are not UTF-8 come out as they are."""
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        sys.stdout.flush()
        return
    with atomic_write(out) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as stream:
        yield stream


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax score`."""
    parser = Parser(
        prog="contrique-jax score",
        description="Quality scores of images: path, score, deviation; direction and range are in the header.",
        epilog="Example: contrique-jax score --model runs/first --probe my.npz ~/photos 'more/*.png' --out scores.csv",
    )
    add_model_flags(parser)
    parser.add_argument("--probe", required=True, metavar="P.npz", help="from contrique-jax evaluate --probe")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders (recursive) or globs")
    parser.add_argument("--reference", metavar="PATH", help="the pristine image, for a full-reference probe")
    parser.add_argument("--out", metavar="F.csv|F.jsonl", help="default: csv on stdout")
    flags = parser.parse_intermixed_args(argv)
    out = output_path("--out", flags.out, (".csv", ".jsonl")) if flags.out else None
    probe = load_probe(flags.probe)
    paths = list_images(flags.paths)
    use_compilation_cache()
    limits = {"max_megapixels": flags.max_megapixels, "shorter_side": probe.shorter_side}
    extractor = Extractor(*load_network(flags.model), **limits)
    check_fit(extractor, probe, flags.reference is not None)
    reference = reference_features(extractor, flags.reference) if flags.reference else None
    scores = progress_bar(score_files(extractor, probe, paths, reference), len(paths), out is not None)
    tally = Tally()
    try:
        with _opened(out) as stream:
            writer = Writer(stream, probe, out.suffix.lower() if out else ".csv")
            for score in scores:
                if score.broken:
                    print(f"broken image: {score.broken}", file=sys.stderr)
                tally.add(score)
                writer.write(score)
            if not tally.scored:
                raise UserError(f"none of the {len(paths)} images could be read; the first is {tally.first_broken}.")
    except BrokenPipeError:  # the reader of our stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    name_reduced(tally.reduced, flags.max_megapixels)
    if sys.stderr.isatty():
        print(tally.summary(probe), file=sys.stderr)
    elif tally.broken:
        print(f"{tally.broken} of {len(paths)} images could not be read", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_verb(main))
