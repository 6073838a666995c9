"""Processes that tests start: what they find in their environment, and a call that has one to itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

# without the suite's eight devices
ONE_DEVICE = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns or raises in a new process, so that the worker does not keep its gigabytes. There programs are
    compiled as a user's are: where values nearly tie, the compiler's rounding decides on gradients that references hold."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XLA_FLAGS", "")
        return _in_a_new_process(function, *arguments)


def _in_a_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
