"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# PyTorch's compiler for GPUs, which no test needs: loaded after TensorFlow it brings the process down
sys.modules["triton"] = None  # type: ignore[assignment]
# eight CPU devices, so that sharding is tested wherever the suite runs; set before jax starts
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# what one test, worker or child process has compiled, the others and the next run take
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import pytest  # noqa: E402

if TYPE_CHECKING:
    from tests.gcs_server import Server


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and photographs beside the checkout; CONTRIQUE_SHARED names another place."""
    folder = Path(os.environ.get("CONTRIQUE_SHARED", Path(__file__).parents[2] / "shared"))
    if folder.is_dir():
        return folder
    if os.environ.get("CONTRIQUE_REQUIRE_SHARED") == "1":
        pytest.fail(f"{folder} is missing and CONTRIQUE_REQUIRE_SHARED=1 asks for it")
    pytest.skip(f"{folder} is absent: reference numbers and photographs are not part of the project")


@pytest.fixture(scope="session")
def gcs() -> Iterator[Server]:
    """Google Cloud Storage on localhost, for this process and those it starts: `bucket`, and `secret` without access."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip("gcsfs is not installed")
    with pytest.MonkeyPatch.context() as environment:
        from tests.gcs_server import Server

        with Server("bucket", private=("secret",)) as server:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            yield server
