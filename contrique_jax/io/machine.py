"""This machine: its cores, the CPU as a device of jax, and where compiled programs are kept."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING

from contrique_jax.errors import UserError
from contrique_jax.io.outputs import user_cache

if TYPE_CHECKING:  # jax takes a second to import, and the functions that need it bring it
    import jax

# For functions that several threads run at a time on the CPU. In jaxlib 0.11 a Fourier transform waits in the pool's threads
# for the pool: with as many of them at once as threads it waits for ever.
ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}
NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "bad_alloc")  # what XLA says


def available_cores() -> int:
    """How many cores this process may use, at least 1: a task of a cluster or a container may have a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_device() -> jax.Device:
    """This process's CPU device, on which the pipeline's functions run. Raises UserError if jax may not use it."""
    import jax

    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX_PLATFORMS={platforms}: the input pipeline needs the CPU too; add it, e.g. cuda,cpu."
        ) from error


def no_memory(error: BaseException) -> bool:
    """Whether it says that memory does not suffice, the machine's or a device's."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY)


def free_memory() -> int:
    """Bytes that this process may still take: of the machine's, its control group's and its own limit the least."""
    found = [
        _number("/proc/meminfo", "MemAvailable:") * 1024
        or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    ]
    group = _number("/sys/fs/cgroup/memory.max")
    if group:
        found.append(group - _number("/sys/fs/cgroup/memory.current"))
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            found.append(limit - 1024 * _number("/proc/self/status", "VmSize:"))
    except ImportError:  # Windows
        pass
    return max(min(found), 0)


def trim_heap() -> None:
    """Gives freed memory back to the system, which glibc else keeps in a heap of each thread; elsewhere nothing."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows
        return None


def _number(file: str, name: str = "") -> int:
    """The number in a file of the kernel's, after `name` at the start of a line; 0 if there is none."""
    try:
        with open(file, encoding="ascii") as stream:
            line = next((line for line in stream if line.startswith(name)), "")
        return int(line.removeprefix(name).split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def use_compilation_cache() -> None:
    """Compiled networks are kept in the user's cache, so that the next start is quick (CONTRIQUE_CACHE=off: no)."""
    import jax

    folder = user_cache("compiled")
    if folder is not None and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
