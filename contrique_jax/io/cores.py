"""How many cores this process may use: a task of a cluster or a container may have a few of the machine's."""

from __future__ import annotations

import os


def available_cores() -> int:
    """At least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
