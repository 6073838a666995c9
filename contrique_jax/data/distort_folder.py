"""The command `contrique-jax distort`: a folder of photographs -> a set of distorted images like KADIS-700k."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import re
import sys
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
from PIL import Image
from tqdm import tqdm

from contrique_jax import distort
from contrique_jax.augment.host_views import to_canvas
from contrique_jax.data.decode import read
from contrique_jax.data.distorted_set import (
    MANIFEST,
    Photograph,
    Plan,
    check_settings,
    photographs,
    root_of,
    seed_of,
    write_manifest,
)
from contrique_jax.data.image_files import LeftOut
from contrique_jax.distort import bank
from contrique_jax.distort.flags import add_flags, numbers, types
from contrique_jax.distort.on_arrays import SMALLEST_SIDE
from contrique_jax.errors import BrokenImage, Parser, UserError, run_verb
from contrique_jax.io.machine import available_cores, no_memory, use_compilation_cache
from contrique_jax.io.outputs import atomic_write, only_writer
from contrique_jax.io.regular import open_regular

MANY_SIZES = 8  # that are worth a word
WAITING = 4  # photographs handed out ahead, for each worker


def make(plan: Plan, photograph: Photograph, stop: threading.Event) -> int:
    """Writes what is missing of a photograph's results, each whole or not at all, until `stop` -> how many files that
    were.

    Raises BrokenImage if the photograph cannot be read or is too small.
    """
    missing = [which for which in plan.classes if not plan.file(photograph, *which).exists()]
    if not missing:
        return 0
    image = read(photograph.path)
    if plan.size is not None:
        image = to_canvas(image, *plan.size)
    if min(image.shape[:2]) < SMALLEST_SIDE:
        least = f"at least {SMALLEST_SIDE} pixels a side are needed"
        raise BrokenImage(str(photograph.path), f"{image.shape[1]} x {image.shape[0]} pixels, but {least}")
    written = 0
    for type, level in missing:
        if stop.is_set():
            break
        done = image
        if type:
            seed = seed_of(plan.seed, photograph.name, type, level)
            done = distort.apply(image, type, level, seed=seed, minmax=plan.minmax)
        with atomic_write(plan.file(photograph, type, level)) as temporary:
            Image.fromarray(done).save(
                temporary, "PNG", compress_level=1
            )  # a third of the time for a tenth of the space
        written += 1
    return written


def by_size(photographs: Sequence[Photograph]) -> tuple[list[Photograph], int]:
    """Photographs of one size after each other, so that what is compiled serves them all, and the number of sizes.

    Sizes are those that the files' headers promise; photographs without such a header come last.
    """

    def size(photograph: Photograph) -> tuple[int, ...]:
        try:
            with open_regular(photograph.path) as stream, Image.open(stream) as image:
                return tuple(sorted(image.size)) + image.size
        except Exception:  # whatever is wrong with it is said when it is read
            return (sys.maxsize,)

    sizes = {photograph: size(photograph) for photograph in photographs}
    return sorted(photographs, key=lambda each: sizes[each]), len(set(sizes.values()))


def make_all(
    plan: Plan, photographs: Sequence[Photograph], workers: int
) -> Generator[tuple[Photograph, int, BrokenImage | None]]:
    """Each photograph, how many files were written for it, and what is wrong with it."""

    def one(photograph: Photograph) -> tuple[Photograph, int, BrokenImage | None]:
        try:
            return photograph, make(plan, photograph, stop), None
        except BrokenImage as broken:
            return photograph, 0, broken
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not no_memory(error):
                raise
            return photograph, 0, BrokenImage(str(photograph.path), "too large for this machine's memory")

    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="distort")
    waiting: collections.deque[Future[tuple[Photograph, int, BrokenImage | None]]] = collections.deque()
    try:
        for photograph in photographs:
            waiting.append(pool.submit(one, photograph))
            if len(waiting) > WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _folder(name: str) -> Path:
    out = Path(name).expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUT: the folder {out} cannot be made ({error.strerror}); name another.") from error
    if not os.access(out, os.W_OK):
        raise UserError(f"OUT: the folder {out} cannot be written to; name another.")
    return out


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or min(size := (int(match[1]), int(match[2]))) < SMALLEST_SIDE:
        raise UserError(
            f"--size {text}: give height x width, both at least {SMALLEST_SIDE} pixels, e.g. --size 384x512."
        )
    return size


def _plan(flags: argparse.Namespace) -> Plan:
    if flags.all == bool(flags.type):
        raise UserError("say which distortions: either --all, or --type with their numbers, e.g. --type 1,2,10.")
    if flags.workers < 1:
        raise UserError(f"--workers {flags.workers}: give at least 1.")
    levels = numbers("--level", flags.level or ["1,2,3,4,5"], bank.NUM_LEVELS)
    classes = [(type, level) for type in types(flags.type) for level in levels]
    classes = [(0, 0), *classes] if flags.pristine else classes
    size = _size(flags.size)
    out = Path(flags.out).expanduser()
    return Plan(out, tuple(classes), flags.seed, flags.minmax, size, root_of(flags.source))


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax distort`."""
    parser = Parser(
        prog="contrique-jax distort",
        description="Writes distorted images: OUT/STEM_TYPE_LEVEL.png for each photograph, and OUT/manifest.csv with their "
        "classes, from which training can read them (--config.data.pristine=OUT/manifest.csv). The same command again "
        "makes only what is missing.",
        epilog="Example: contrique-jax distort photos set --all --pristine --size 384x512",
    )
    parser.add_argument("source", metavar="SRC", help="a folder (with its subfolders), a file or a glob in quotes")
    parser.add_argument("out", metavar="OUT", help="a folder; made if it is missing")
    add_flags(parser)
    parser.add_argument("--all", action="store_true", help="every type")
    parser.add_argument("--level", action="append", metavar="N[,N...]", help="1 to 5; default: all five")
    parser.add_argument("--pristine", action="store_true", help="the photographs too, as STEM_00_00.png of class 125")
    parser.add_argument(
        "--size",
        metavar="HxW",
        help="bring every photograph to this height and width first: turned upright or across as the size is, scaled to "
        "cover, cropped (KADIS-700k: 384x512); default: each at its own size, which must be compiled for each size",
    )
    parser.add_argument("--workers", type=int, default=available_cores(), help="threads; default: one a core")
    flags = parser.parse_args(argv)
    plan = _plan(flags)
    left_out = LeftOut()
    given = photographs(flags.source, plan.out, left_out)
    with only_writer(_folder(flags.out)):
        _write(plan, given, flags.workers)
    left_out.say()


def _write(plan: Plan, given: Sequence[Photograph], workers: int) -> None:
    check_settings(plan)
    use_compilation_cache()
    ordered, sizes = by_size(given) if plan.size is None else (given, 1)
    if sizes > MANY_SIZES:
        print(
            f"note: {len(given)} photographs of {sizes} sizes; for each size every distortion is compiled anew, which can "
            "take longer than the images themselves; --size 384x512 brings all to one",
            file=sys.stderr,
        )
    print(f"{len(given)} photographs, up to {len(given) * len(plan.classes)} images in {plan.out}", file=sys.stderr)
    for cut_off in plan.out.glob(".*.part"):  # of a command that was killed; nobody else is at work here
        cut_off.unlink(missing_ok=True)
    written, unreadable = 0, []
    results = make_all(plan, ordered, workers)
    try:
        for photograph, count, broken in tqdm(
            results, total=len(ordered), unit="photo", disable=None, dynamic_ncols=True
        ):
            written += count
            if broken:
                unreadable.append(photograph)
                tqdm.write(f"broken image: {broken}", file=sys.stderr)
                last = broken
    except BaseException:
        results.close()
        with contextlib.suppress(UserError, OSError):  # a full disk has no room for it either
            rows = write_manifest(plan, given)
            print(f"{plan.out}: {rows} images so far are kept; the same command goes on from there", file=sys.stderr)
        raise
    if len(unreadable) == len(given):
        raise UserError(f"none of the {len(given)} images could be read; the last is {last}.")
    rows = write_manifest(plan, given)
    print(
        f"{written} images written, {rows} in {plan.out / MANIFEST}; {len(unreadable)} of {len(given)} photographs broken"
    )


if __name__ == "__main__":
    sys.exit(run_verb(main))
