"""Fixtures shared by the tests, and what keeps a worker small."""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

# PyTorch's compiler for GPUs, which no test needs: loaded after TensorFlow it brings the process down
sys.modules["triton"] = None  # type: ignore[assignment]
# Set before jax starts. Eight CPU devices, so that sharding is tested wherever the suite runs; and code that LLVM does not
# optimise, for most of the suite's time is the compiler's: the same program in a third less time.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# a worker a core: more threads would wait for each other, and in NumPy they do so at full speed
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# what one test, worker or child process has compiled, the others and the next run take
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import pytest  # noqa: E402

if TYPE_CHECKING:
    from tests.gcs_server import Server

# A file goes to one worker whole: begun last, these would keep one at work alone.
LONGEST = ("test_contract.py", "test_train.py", "test_hosts.py", "test_quality_map.py", "test_docs.py")
PEAKS = pytest.StashKey[dict[str, str]]()  # process -> its peak of resident memory, for the summary


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and photographs beside the checkout; CONTRIQUE_SHARED names another place."""
    folder = Path(os.environ.get("CONTRIQUE_SHARED", Path(__file__).parents[2] / "shared"))
    if folder.is_dir():
        return folder
    if os.environ.get("CONTRIQUE_REQUIRE_SHARED") == "1":
        pytest.fail(f"{folder} is missing and CONTRIQUE_REQUIRE_SHARED=1 asks for it")
    pytest.skip(f"{folder} is absent: photographs and large reference numbers are not part of the project")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def gcs() -> Iterator[Server]:
    """Google Cloud Storage on localhost, for this process and those it starts: `bucket`, and `secret` without access."""
    pytest.importorskip("google_crc32c")
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    with pytest.MonkeyPatch.context() as environment:
        from tests.gcs_server import Server

        with Server("bucket", private=("secret",)) as server:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            yield server


@pytest.fixture(scope="module", autouse=True)
def compiled_programs_are_released() -> Iterator[None]:
    """After each module: a worker would otherwise hold everything that it has ever compiled, some gigabytes."""
    yield
    release_memory()


def release_memory() -> None:
    """Compiled programs and what else nobody holds."""
    if "jax" in sys.modules:
        from contrique_jax.io.machine import trim_heap

        sys.modules["jax"].clear_caches()
        gc.collect()
        trim_heap()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what `make test` cannot run everywhere, by the fixtures that it takes, for `make test-full`. Longest first."""
    for item in items:
        for name in {"shared", "torch"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(name)
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_sessionfinish(session: pytest.Session) -> None:
    unit = 2**30 if sys.platform == "darwin" else 2**20  # macOS counts bytes, Linux kilobytes
    peak = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.2f} GB"
    worker = getattr(session.config, "workeroutput", None)
    if worker is not None:
        worker["peak"] = peak
    else:
        session.config.stash.setdefault(PEAKS, {})["main"] = peak


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    peaks = node.config.stash.setdefault(PEAKS, {})  # type: ignore[attr-defined]
    output = getattr(node, "workeroutput", {})  # a worker that was killed has left none
    peaks[node.gateway.id] = output.get("peak", "unknown")  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("passed", []):
        for what in (value for name, value in report.user_properties if name == "counts"):
            terminalreporter.write_line(f"foreign files, {what}")
    peaks = terminalreporter.config.stash.get(PEAKS, {})
    said = ", ".join(f"{name} {peak}" for name, peak in sorted(peaks.items()))
    terminalreporter.write_line(f"peak resident memory: {said}")
