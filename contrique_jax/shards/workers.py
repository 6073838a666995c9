"""The processes that score, of one host: each with its share of the cores, and another in the place of one that died."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import contrique_jax
from contrique_jax.errors import UserError
from contrique_jax.io.machine import available_cores, free_memory
from contrique_jax.shards.plan import PLAN, Counts, shard_name
from contrique_jax.shards.scoring import Job

DEATHS = 2  # of a shard's workers while one image was at work, after which it counts as broken
MOST_DEATHS = 12  # of one shard's workers
ACCELERATOR_SHARE = 0.9  # of a GPU's memory, for all of a host's workers


@dataclass(frozen=True)
class Settings:
    """`count` of a host's processes, of which this one runs `here`."""

    job: Job
    count: int
    here: int


class Workers:
    """`here` processes, begun when they are needed. Threads may share it. `found`: images so far; `died`: processes;
    `failure`: why no more shards are to be begun."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.found = self.died = 0
        self.failure: BaseException | None = None
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(settings.here):
            self._idle.put(None)
        self._all: set[_Process] = set()
        self._lock, self._closed = threading.Lock(), False

    def about(self) -> tuple[dict[str, Any], str]:
        """What results depend on, and the kind of device. Raises UserError if the model cannot be used."""
        process = self._started(self._idle.get())
        self._idle.put(process)
        return process.about, process.device

    def score(self, number: int) -> Counts:
        """A shard, done again when a process dies of it: then image by image, and one that brings down several is a broken
        one. Raises UserError if it cannot be done."""
        deaths: dict[str, int] = {}
        skip: dict[str, str] = {}
        for attempt in range(MOST_DEATHS):
            process = self._idle.get()
            try:
                process = self._started(process)
                counts = process.score(number, skip, one_by_one=attempt > 0)
            except _Died as error:
                with self._lock:
                    self.died += 1
                if error.at is not None:
                    deaths[error.at] = deaths.get(error.at, 0) + 1
                    if deaths[error.at] >= DEATHS:
                        skip[error.at] = (
                            f"the process that read it was brought down by it, {DEATHS} times ({error.how})"
                        )
                process = None
                continue
            finally:
                self._idle.put(process)
            with self._lock:
                self.found += counts.found
            return counts
        raise UserError(
            f"shard {number}: {MOST_DEATHS} processes that scored it have died; is memory short (--workers, --memory)? "
            f"{self.settings.job.out}/{PLAN}/{shard_name(number)}.json names its images."
        )

    def close(self) -> None:
        """Ends all of them at once; whoever waits for one gets `Closed`."""
        with self._lock:
            self._closed = True
            processes = list(self._all)
        for process in processes:
            process.end()

    def _started(self, process: _Process | None) -> _Process:
        if process is not None and not process.ended:
            return process
        with self._lock:
            if self._closed:
                raise Closed
            process = _Process(self.settings)
            self._all = {other for other in self._all if not other.ended} | {process}
        process.begin()
        return process


class Closed(Exception):
    """The command is ending."""


class _Died(Exception):
    """How, and at which image if that is known."""

    def __init__(self, how: str, at: str | None):
        super().__init__(how)
        self.how, self.at = how, at


class _Process:
    def __init__(self, settings: Settings):
        threads = max(available_cores() // settings.count, 1)
        job = settings.job
        if job.memory is None:
            job = replace(job, memory=max(free_memory() / 2 / settings.count / 1e9, 0.1))
        self._job = {"job": asdict(job), "threads": threads}
        self.about: dict[str, Any] = {}
        self.device = ""
        self._ending = False
        places = [str(Path(contrique_jax.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = dict(os.environ)
        # XLA has as many threads as this says, OpenBLAS too: else each process would have one a core, and wait for the others'
        environment |= {
            "PJRT_NPROC": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
        }
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{ACCELERATOR_SHARE / settings.count:.3f}")
        environment["PYTHONPATH"] = os.pathsep.join(places)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contrique_jax.shards.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment, start_new_session=True,  # Ctrl-C is for the command alone
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def begin(self) -> None:
        """Raises UserError if the model cannot be used."""
        answer = self._ask(self._job)
        self.about, self.device = answer["about"], answer["device"]

    def score(self, number: int, skip: Mapping[str, str], one_by_one: bool) -> Counts:
        return Counts(**self._ask({"shard": number, "skip": skip, "one_by_one": one_by_one})["counts"])

    def end(self) -> None:
        self._ending = True
        self._process.kill()
        self._process.wait()

    def _ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """Raises _Died, Closed, and UserError for what it says is wrong."""
        assert self._process.stdin is not None and self._process.stdout is not None
        at = None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(task).encode() + b"\n")
            self._process.stdin.flush()
        while line := self._process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise UserError(answer["error"])
            if "fault" in answer:
                raise RuntimeError(answer["fault"])
            if "at" not in answer:
                return answer
            at = answer["at"]
        code = self._process.wait()
        if self._ending:
            raise Closed
        raise _Died(f"signal {-code}" if code < 0 else f"exit code {code}", at)


_shared: dict[Settings, Workers] = {}
_sharing = threading.Lock()


def workers_of(settings: Settings) -> Workers:
    """Those of this process with such settings."""
    with _sharing:
        if settings not in _shared:
            _shared[settings] = Workers(settings)
        return _shared[settings]


def close_all() -> None:
    with _sharing:
        for workers in _shared.values():
            workers.close()
        _shared.clear()
