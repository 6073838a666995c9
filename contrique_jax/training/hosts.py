"""Several processes that train together: joining, agreeing on what to do, stopping at one step.

One process for each host (TPU) or for each GPU. A process alone goes through the same calls, which then do nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from contrique_jax import signals
from contrique_jax.errors import UserError

MODES = ("auto", "on", "off")


def join(mode: str, coordinator: str, processes: int, process: int, wait_seconds: int) -> None:
    """Joins the job's other processes; must come before anything that looks for devices.

    `coordinator` is host:port of process 0, with the number of `processes` and this `process`'s own, from 0; without it
    the cluster is asked (Cloud TPU, GKE, SLURM, MPI). `mode` "auto": a process that no cluster knows trains alone; "on":
    that is an error; "off": alone whatever there is. Raises UserError if no cluster is found or process 0 does not answer
    within `wait_seconds`; if the others do not come, it ends the process with one sentence and exit code 2.
    """
    if mode == "off" or jax.distributed.is_initialized():
        return
    given: dict[str, Any] = {}
    if coordinator:
        if not 0 <= process < processes:
            raise UserError(
                f"--process_id={process}: with --coordinator give --processes and a --process_id from 0 to one less."
            )
        port = _port(coordinator)
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        if process:
            _await(coordinator, wait_seconds)
        else:
            _check_free(coordinator, port)
    elif processes >= 0 or process >= 0:
        raise UserError(
            "--processes and --process_id need --coordinator: give all three, or none if a cluster manager provides them."
        )
    if "jax_cpu_collectives_implementation" in jax.config.values:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # jax aborts with a stack trace when its own time is up, so ours ends first
    limit = threading.Timer(wait_seconds, _give_up, [wait_seconds])
    limit.start()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=2 * wait_seconds + 60,
            heartbeat_timeout_seconds=max(wait_seconds // 3, 10),
            shutdown_timeout_seconds=wait_seconds,
        )
    except ValueError as error:  # no cluster that jax knows
        if mode == "on" or coordinator:
            raise UserError(
                f"--distributed={mode}: no cluster was found ({error}); start by srun, on a TPU pod or in a JobSet, or give "
                "--coordinator, --processes and --process_id."
            ) from error
    except jax.errors.JaxRuntimeError:  # a RuntimeError too: what went wrong between the processes
        raise
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise UserError(
                f"--distributed={mode}: {' '.join(str(error).split())[:300]}; see the cluster's logs."
            ) from error
        raise UserError(  # its devices are already chosen, as in a notebook that has computed something
            f"--distributed={mode}: this process has already used jax, which can join others only before that; start a new "
            "process, or train alone with --distributed=off."
        ) from error
    finally:
        limit.cancel()


def _give_up(wait_seconds: int) -> None:
    print(
        f"error: the other processes did not come within config.train.wait_seconds = {wait_seconds}; check that all of "
        "them are started, with the same --coordinator and --processes and each its own --process_id.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)  # the main thread waits inside jax, where no exception reaches it


def _port(coordinator: str) -> int:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={coordinator}: give host:port of process 0, e.g. 10.0.0.2:8476.")
    return int(port)


def _check_free(coordinator: str, port: int) -> None:
    """jax would end the process by a segmentation fault if another one listens at `port` of this machine."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"--coordinator={coordinator}: another program listens at port {port}; choose another port."
                ) from error


def _await(coordinator: str, wait_seconds: int) -> None:
    """Returns once something listens there: jax itself would end the process with a trace when nothing ever does."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + wait_seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"--coordinator={coordinator}: no answer within config.train.wait_seconds = {wait_seconds} "
                    f"({error.strerror or error}); start process 0 there, or check the address and the firewall."
                ) from error
            time.sleep(0.5)


def is_first() -> bool:
    """Whether this process is the one that writes what there is one of."""
    return jax.process_index() == 0


def is_distributed() -> bool:
    """Whether other processes train with this one; starts no device."""
    return jax.distributed.is_initialized() and _state().num_processes > 1


def number() -> int:
    """Of this process among the joined ones, from 0; starts no device."""
    return int(_state().process_id or 0)


class SharedError(UserError):
    """A mistake that every process raises, at the same place."""


def barrier(name: str, wait_seconds: int) -> None:
    """Waits until every process is here, without a collective: the first one of those gives up after half a minute.

    Each `name` serves once. Raises UserError if one does not come within `wait_seconds`.
    """
    if not is_distributed():
        return
    try:
        _service().wait_at_barrier(f"contrique_jax/{name}", wait_seconds * 1000)
    except RuntimeError as error:
        raise UserError(
            f"a process did not come to {name!r} within config.train.wait_seconds = {wait_seconds}; look at the other "
            "processes' output."
        ) from error


def agree(name: str, error: UserError | None, wait_seconds: int, *, same: Mapping[str, str] | None = None) -> None:
    """Waits for all processes, as `barrier`. Raises SharedError on all of them if one brings an error, or if a value of
    `same` differs, which its key names."""
    if not is_distributed():
        if error:
            raise error
        return
    place = f"contrique_jax/said/{name}"
    publish(f"{place}/{number()}", json.dumps([str(error or ""), dict(same or {})]))
    barrier(name, wait_seconds)
    if error:
        raise SharedError(str(error)) from error
    said = {int(key.rsplit("/", 1)[1]): json.loads(text) for key, text in _service().key_value_dir_get(f"{place}/")}
    for process, (sentence, _) in sorted(said.items()):
        if sentence:
            raise SharedError(f"process {process}: {sentence}")
    for process, (_, values) in sorted(said.items()):
        for what in {**said[0][1], **values}:  # one may have a value that others do not ask for
            value, first = (each.get(what, "none") for each in (values, said[0][1]))
            if value != first:
                raise SharedError(
                    f"process {process} has another {what} than process 0 ({value} and {first}); start every "
                    "process with the same command, and let all see the same files."
                )


def publish(key: str, text: str) -> None:
    """Shows `text` to all processes under `key`, whose first text stays."""
    with suppress(RuntimeError):
        _service().key_value_set(key, text)


def published(key: str) -> str | None:
    """What some process has published under `key`, None if nobody has, or if the first process has gone."""
    with suppress(RuntimeError):
        return str(_service().key_value_try_get(key))
    return None


def _service() -> Any:
    """jax's coordination service."""
    return _state().client


def _state() -> Any:
    """What jax knows of the joined processes, for which it has no public functions."""
    from jax._src import distributed

    return distributed.global_state


def total(count: int) -> int:
    """The sum over all processes; all of them call it together."""
    if not is_distributed():
        return count
    return int(np.sum(multihost_utils.process_allgather(np.asarray(count))))


class StopOnTerminate:
    """Context: SIGTERM and Ctrl-C ask the loop to save and leave instead of ending the process; a second one ends it.

    Where there are several processes, a signal to any of them asks all, at one step on which they agree (jax's preemption
    service, which listens for SIGTERM by itself).
    """

    def __enter__(self) -> StopOnTerminate:
        self._together = is_distributed()
        self._leaving = ExitStack()
        self._signals = signals.current() or self._leaving.enter_context(signals.Signals())
        self._signals.deferred = True
        if self._together:
            _share_with_preemption(self._signals)
            self._signals.leaving_seconds = 600.0  # jax ends them together, and the first must outlast the others
        return self

    def asked(self, step: int) -> bool:
        """Whether to leave after this step; every process calls it once a step."""
        return multihost_utils.reached_preemption_sync_point(step) if self._together else self.asked_now()

    def asked_now(self) -> bool:
        """Whether a process alone is to leave; several only leave together."""
        return not self._together and self._signals.first is not None

    def __exit__(self, *details: Any) -> None:
        self._signals.deferred = False
        self._leaving.close()


def _share_with_preemption(ours: signals.Signals) -> None:
    """Signals go to us and, from us, to jax's preemption service, which else would have SIGTERM to itself, and know neither
    a second one nor Ctrl-C."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p

    def handler() -> int | None:
        """The C function that gets SIGTERM now."""
        found: int | None = libc.signal(signal.SIGTERM, None)
        ours.listen(signal.SIGTERM)
        return found

    theirs = handler()
    if theirs and theirs != handler():
        note = ctypes.CFUNCTYPE(None, ctypes.c_int)(theirs)  # it sets a flag
        ours.told.append(lambda number: note(signal.SIGTERM))


def environment() -> tuple[str, int, int]:
    """(coordinator, processes, this process) from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."""
    numbers = []
    for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        text = os.environ.get(name, "-1")
        if not text.lstrip("-").isdigit():
            raise UserError(f"{name}={text}: give a whole number.")
        numbers.append(int(text))
    return os.environ.get("JAX_COORDINATOR_ADDRESS", ""), numbers[0], numbers[1]
