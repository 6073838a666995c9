"""`contrique-jax bulk` from its flags to its counts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

from tqdm import tqdm

from contrique_jax.errors import UserError
from contrique_jax.io import buckets
from contrique_jax.io.machine import available_cores
from contrique_jax.shards import parquet, plan
from contrique_jax.shards.listing import find
from contrique_jax.shards.place import Place
from contrique_jax.shards.plan import Counts
from contrique_jax.shards.scoring import Job
from contrique_jax.shards.workers import Settings, close_all, workers_of


@dataclass(frozen=True)
class Run:
    """What is to be done, beside the job."""

    paths: Sequence[str]
    path_column: str | None
    shard_images: int
    workers: int  # 0: one a core
    runner: str
    options: Sequence[str]


def check_installed() -> None:
    """Raises UserError if Beam is not."""
    if find_spec("apache_beam") is None:
        raise UserError("bulk: it needs apache-beam: pip install 'contrique-jax[beam]'.")


@contextmanager
def _quietly() -> Iterator[None]:
    """Context: Beam does not say which of its optional packages are missing."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def score_all(job: Job, run: Run) -> str:
    """Scores whatever is missing -> a sentence with the counts. Raises UserError."""
    check_installed()
    with _quietly():
        from contrique_jax.shards import pipeline

    if job.kind == "parquet":
        parquet.pyarrow()
    pipeline.check_runner(run.runner, run.options)
    local = pipeline.is_local(run.runner)
    place = Place(job.out)
    if "dataflow" in run.runner.lower() and not buckets.is_address(job.out):
        raise UserError(
            f"--out {job.out}: Dataflow's workers do not see this machine's folders; give gs://BUCKET/FOLDER."
        )
    known = Place(job.known) if job.known else None
    if known is not None and known.where == place.where:
        raise UserError(f"--out {place}: the features are there; name another folder for the new scores.")
    found = find(run.paths, run.path_column, run.shard_images) if known is None else None
    count = run.workers or available_cores()
    with ExitStack() as stack:
        stack.callback(close_all)
        settings = Settings(job, count, count if local else 1)
        about, device = workers_of(settings).about()
        if device != "cpu" and not run.workers and local:  # processes would only share it
            settings = Settings(job, 1, 1)
        if not local or settings.count < count:
            close_all()
        stack.enter_context(place.alone())
        sources = {"PATH": list(run.paths), "--path-column": run.path_column, "--shard-images": run.shard_images}
        plan.begin(place, about | sources | {"--features-of": job.known})
        if found is not None:
            plan.add(place, found, run.shard_images)
        elif known is not None:
            _copy_plan(known, place)
        before = plan.done(place)
        shards = plan.planned(place)
        missing = [number for number in shards if number not in before]
        expected = sum(_expected(plan.read_part(place, number)) for number in missing) if sys.stderr.isatty() else 0
        with tqdm(total=expected, unit="image", disable=None if expected else True, dynamic_ncols=True) as bar:
            workers = workers_of(settings)
            if missing:
                pipeline.run(
                    missing, settings, run.runner, run.options, lambda: bar.update(workers.found - bar.n) and None
                )
        after = plan.done(place)
        if found is not None:
            found.left_out.say()
        if workers.died:
            print(f"note: processes that died, their shards done again: {workers.died}", file=sys.stderr)
        return _summary(place, shards, before, after)


def _expected(part: plan.Part) -> int:
    return len(part["files"]) if "files" in part else int(part.get("rows", 0))


def _copy_plan(known: Place, place: Place) -> None:
    """The same shards as those whose features are known. Raises UserError if some are not."""
    about, numbers = plan.about_of(known), plan.planned(known)
    if not about.get("--features"):
        raise UserError(f"--features-of {known}: no features were kept there; give `bulk --features` to that run.")
    if set(numbers) - plan.done(known).keys():
        raise UserError(
            f"--features-of {known}: some of its shards are not done yet; run the command that makes it again."
        )
    for number in range(len(plan.planned(place)), len(numbers)):
        plan.write_part(place, number, plan.read_part(known, number))


def _summary(place: Place, shards: Sequence[int], before: dict[int, Counts], after: dict[int, Counts]) -> str:
    """Raises UserError if a shard is missing, or all images are broken."""
    left = [number for number in shards if number not in after]
    if left:
        raise UserError(
            f"{place}: {len(left)} of {len(shards)} shards are not done, the first is {left[0]}; run the same command again."
        )
    now = sum((counts for number, counts in after.items() if number not in before), Counts())
    skipped = sum((counts for number, counts in after.items() if number in before), Counts())
    total = now + skipped
    if not total.found:
        raise UserError(f"{place}: no image was found in what PATH names; check what the tar files hold.")
    if not total.scored:
        raise UserError(f"none of the {total.found} images could be read; {place}/broken-*.csv have the reasons.")
    lines = [
        f"{place}: {total.found} images found = {now.scored} scored + {now.broken} broken + {skipped.found} skipped "
        f"(done before: {skipped.scored} scored, {skipped.broken} broken), in {len(shards)} shards"
    ]
    if total.broken:
        lines.append(f"reasons of broken images: {place}/broken-*.csv")
    return "\n".join(lines)
