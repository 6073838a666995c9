"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and photographs beside the checkout; CONTRIQUE_SHARED names another place."""
    folder = Path(os.environ.get("CONTRIQUE_SHARED", Path(__file__).parents[2] / "shared"))
    if folder.is_dir():
        return folder
    if os.environ.get("CONTRIQUE_REQUIRE_SHARED") == "1":
        pytest.fail(f"{folder} is missing and CONTRIQUE_REQUIRE_SHARED=1 asks for it")
    pytest.skip(f"{folder} is absent: reference numbers and photographs are not part of the project")
