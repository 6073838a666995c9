"""What the fuzz test knows of a reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

CASES = 2000


@dataclass
class Reader:
    """`read` takes the path of a file, in which bytes of `files` stand, and asserts that what it gives is right."""

    path: Path
    files: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    cases: int = CASES
