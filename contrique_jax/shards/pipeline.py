"""The same few lines on every runner of Apache Beam: numbers of shards, spread over workers, each scored. Beam is imported
here alone.

No image, name or result goes through Beam: a worker finds its shard's list, and leaves its files, in the results' place.
"""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from contrique_jax.errors import UserError
from contrique_jax.shards.workers import Settings, workers_of

LOCAL = ("direct", "directrunner", "fnapirunner")
_CHOICE = "direct, DataflowRunner, FlinkRunner, SparkRunner or PortableRunner"
_SENTENCE = re.compile("\u27e6(.*?)\u27e7", re.DOTALL)  # in whatever a runner makes of an exception's text
LOOK_SECONDS = 0.2


class Score(beam.DoFn):
    """Shards by number -> nothing: what comes of them is in files."""

    def __init__(self, settings: Settings, local: bool):
        """`local`: a failure is left with the workers, for the command that is in this process: Beam would print it with its
        trace."""
        self.settings, self.local = settings, local

    def process(self, number: int) -> Iterable[Any]:
        workers = workers_of(self.settings)
        if workers.failure is not None:
            return ()
        try:
            counts = workers.score(number)
        except Exception as error:
            if self.local:
                workers.failure = workers.failure or error
                return ()
            if isinstance(error, UserError):
                raise RuntimeError(f"\u27e6{error}\u27e7") from None
            raise
        for name in ("found", "scored", "broken"):  # for the runner's own page; what is printed is counted from files
            beam.metrics.Metrics.counter("contrique_jax", name).inc(getattr(counts, name))
        return ()


def is_local(runner: str) -> bool:
    return runner.lower() in LOCAL


def check_runner(runner: str, options: Sequence[str]) -> None:
    """Raises UserError if Beam knows no such runner, or cannot read its options."""
    _options(runner, options, 1)
    if is_local(runner):
        return
    try:
        beam.runners.create_runner(runner)
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"--runner {runner}: Beam knows no such runner; choose {_CHOICE}.") from error
    except ImportError as error:
        raise UserError(
            f"--runner {runner}: Beam lacks what it needs ({error}); install that, or choose {_CHOICE}."
        ) from error


def run(
    numbers: Iterable[int], settings: Settings, runner: str, options: Sequence[str], look: Callable[[], None]
) -> None:
    """Scores those shards; `look` is called a few times a second meanwhile. Raises UserError if one cannot be done."""
    local = is_local(runner)
    if local:
        logging.disable(logging.CRITICAL)  # tracebacks, of which we say one sentence
    failed: list[BaseException] = []

    def work() -> None:
        try:
            pipeline = beam.Pipeline(options=_options(runner, options, settings.count))
            (
                pipeline
                | beam.Create(list(_runs(numbers)))
                | beam.FlatMap(lambda run: range(*run))
                | beam.Reshuffle()
                | beam.ParDo(Score(settings, local))
            )
            pipeline.run().wait_until_finish()
        except BaseException as error:
            failed.append(error)

    # in a thread of its own, since Beam's waits hear of no Ctrl-C
    thread = threading.Thread(target=work, name="pipeline", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            look()
    except BaseException:
        workers_of(settings).close()
        raise
    finally:
        if local:
            logging.disable(logging.NOTSET)
    failure = workers_of(settings).failure
    if failure is not None:
        raise failure
    for error in failed:
        said = _SENTENCE.search(str(error))
        if said:
            raise UserError(said[1]) from None
        if local:
            raise error
        why = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(
            f"--runner {runner}: the job failed ({why:.300}); its log has more, and the same command goes on."
        ) from error


def _options(runner: str, options: Sequence[str], workers: int) -> PipelineOptions:
    flags = [f"--{option}" for option in options]
    if is_local(runner):
        # not DirectRunner, which would first look for another runner's program on the network; and threads, since of its
        # own processes it waits for ever for one that was killed: each has a process of ours, which may die
        flags += ["--runner=FnApiRunner", f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"]
    else:
        flags += [f"--runner={runner}"]
    try:
        with redirect_stderr(io.StringIO()):  # pages of its usage
            found = PipelineOptions(flags)
            found.get_all_options()
        return found
    except SystemExit as error:
        raise UserError(f"--option: Beam cannot read {' '.join(options)}; give each as NAME=VALUE.") from error


def _runs(numbers: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Numbers in order as ranges, first and one behind the last: a pipeline that holds millions one by one is refused."""
    begun: tuple[int, int] | None = None
    for number in numbers:
        if begun is not None and number == begun[1]:
            begun = begun[0], number + 1
            continue
        if begun is not None:
            yield begun
        begun = number, number + 1
    if begun is not None:
        yield begun
