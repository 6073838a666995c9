"""What a user calls: quality scores of files and folders."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from contrique_jax import __version__
from contrique_jax.data.clips import is_clip
from contrique_jax.data.listed import find_listed
from contrique_jax.data.sizes import read_image
from contrique_jax.errors import Parser, SomeUnread, UserError, counted, none_read, run_verb
from contrique_jax.inference.few_images import few_images
from contrique_jax.inference.file_features import name_reduced
from contrique_jax.inference.flags import add_model_flags
from contrique_jax.inference.kept import kept_scores
from contrique_jax.inference.pretrained import Meter, choose_meter, load_why
from contrique_jax.inference.quality_map import MapFolder, overlay
from contrique_jax.inference.scores import (
    Score,
    Tally,
    Writer,
    beside_reference,
    check_fit,
    explanation,
    score_files,
    write_about,
)
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import atomic_write, output_path
from contrique_jax.io.parts import Parts, fingerprint
from contrique_jax.io.progress import progress_bar


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
        description="Quality scores of images and videos: path, score, deviation; direction and range are said on stderr, or "
        "in OUT.csv.json beside OUT.csv. Without --model and --probe they are the embedded model's, from 0 to 100, higher is "
        "better. What is interrupted keeps its results in OUT.partial, and the same command goes on from them.",
        epilog="Examples: contrique-jax score ~/photos 'more/*.png' --out scores.csv --map maps; "
        "contrique-jax score --why PHOTO.jpg; contrique-jax score --model runs/first --probe my.npz ~/photos",
    )
    add_model_flags(parser, default=None)
    parser.add_argument("--probe", metavar="P.npz", help="from contrique-jax evaluate --probe; it goes with a --model")
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="files, folders (recursive), globs; a csv with a column path, a .txt of paths, or - for such a list on stdin",
    )
    parser.add_argument(
        "--path-column", metavar="NAME", help="the column of a csv that names the images (default: path)"
    )
    parser.add_argument("--reference", metavar="PATH", help="the pristine image, for a full-reference probe")
    parser.add_argument("--out", metavar="F.csv|F.jsonl", help="default: csv on stdout")
    parser.add_argument(
        "--map", metavar="DIR", help="where in each image: NAME.map.png, red is worse than its mean, and NAME.map.npy"
    )
    parser.add_argument(
        "--why", action="store_true", help="name the likeliest distortions and their levels, 1 to 5, of each image"
    )
    flags = parser.parse_intermixed_args(argv)
    out = output_path("--out", flags.out, (".csv", ".jsonl")) if flags.out else None
    for name in ("map", "why"):
        if getattr(flags, name) and flags.reference:
            raise UserError(f"--{name}: it is of images alone; leave --reference or --{name} out.")
    meter = choose_meter(flags.model, flags.probe)
    probe, scale = meter.probe, meter.scale
    why = load_why(meter.model) if flags.why else None
    listing = find_listed(flags.paths, flags.path_column)
    paths = listing.files
    maps = MapFolder(flags.map, paths) if flags.map else None
    if maps and any(map(is_clip, paths)):
        print("note: --map: videos have scores and no maps", file=sys.stderr)
    extractor = _opened_model(flags, meter, paths)
    check_fit(extractor, probe, flags.reference is not None)
    reference = beside = None
    if flags.reference:
        extractor, reference = beside_reference(extractor, flags.reference)
        beside = fingerprint(extractor.references if reference is None else reference)

    def made(wanted: Sequence[Path]) -> Iterator[Score]:
        for score in score_files(extractor, probe, wanted, reference, scale, meter.faults, why):
            if maps and score.map is not None:
                image, _ = read_image(score.path, extractor.max_megapixels, extractor.shorter_side)
                maps.write(score.path, score.map, overlay(image, score.map, probe, scale))
            yield score

    about = {
        "command": "score", "version": __version__, "model": extractor.model_hash, "probe": fingerprint([probe, scale]),
        "--reference": beside, "--why": flags.why, "--map": flags.map,
        "--max-megapixels": extractor.max_megapixels,
    }  # fmt: skip
    tally = Tally()
    try:
        with Parts(out, about) if out else nullcontext() as parts:
            _write_all(
                out, progress_bar(kept_scores(parts, paths, made), len(paths), out is not None), tally, meter, flags.why
            )
            if out and out.suffix.lower() == ".csv":
                write_about(out, probe, scale)
    except BrokenPipeError:  # the reader of our stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    name_reduced(tally.reduced, extractor.max_megapixels)
    if out is None:
        print(explanation(probe, scale), file=sys.stderr)
    listing.left_out.say()
    if sys.stderr.isatty():
        print(tally.summary(probe, scale), file=sys.stderr)
    elif out or tally.broken:
        where = f": {out}" if out else ""
        unread = f"; {tally.broken} of {counted(len(paths), 'image')} could not be read" if tally.broken else ""
        print(f"{counted(tally.scored, 'image')} scored{where}{unread}", file=sys.stderr)
    if listing.named & tally.unread:
        raise SomeUnread


def _opened_model(flags: argparse.Namespace, meter: Meter, paths: Sequence[Path]) -> Any:
    """An extractor, for a few images without jax."""
    sizes = {"max_megapixels": flags.max_megapixels, "shorter_side": meter.probe.shorter_side}
    windows = flags.map is not None
    few = None if flags.reference or flags.memory else few_images(meter.model, paths, windows=windows, **sizes)
    if few is not None:
        return few
    from contrique_jax.inference.any_recipe import open_extractor

    use_compilation_cache()
    return open_extractor(meter.model, memory=flags.memory, windows=windows, **sizes)


def _write_all(out: Path | None, scores: Iterable[Score], tally: Tally, meter: Meter, with_why: bool) -> None:
    """Writes scores as they come. Raises UserError, and leaves no file, if there is none among them."""
    with _opened(out) as stream:
        writer = Writer(stream, meter.probe, out.suffix.lower() if out else ".csv", meter.scale, with_why)
        for score in scores:
            if score.broken:
                print(f"broken image: {score.broken}", file=sys.stderr)
            tally.add(score)
            writer.write(score)
        if not tally.scored:
            raise none_read(tally.broken, tally.first_broken)


if __name__ == "__main__":
    sys.exit(run_verb(main))
