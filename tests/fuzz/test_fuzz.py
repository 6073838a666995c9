"""Every reader of files that come from others, given files that began as right ones: a UserError or a right value, never
another exception, in under 2 seconds and 200 MB. The same files every time; the counts are printed at the end.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrique_jax.errors import UserError, printable
from contrique_jax.probe import load_probe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

SECONDS, MEGABYTES = 2.0, 200
READERS = {  # functions of a module beside this one, imported when it is their turn
    "tables": (
        "scores",
        "manifest",
        "paths_of_a_table",
        "array",
        "csv_of_the_original",
        "workbook",
        "matlab",
        "splits",
    ),
    "regressors": (
        "probe",
        "why",
        "faults",
        "pickled_regressor",
        "regressor_as_json",
        "regressor_of_skops",
        "scripted_regressor",
    ),
    "models": ("description", "config_of_a_run", "weights", "checkpoint", "pytorch"),
}


def _hypothesis() -> tuple[Any, Any, Any]:
    from hypothesis import HealthCheck, given, settings  # which takes a second, also where these tests are left out

    return settings, given, list(HealthCheck)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in READERS.items() for name in names])
def test_a_foreign_file_is_read_right_or_refused(module, name, tmp_path, record_property):
    settings, given, every_check = _hypothesis()
    subject = getattr(importlib.import_module(f"tests.fuzz.{module}"), name)(tmp_path)
    counts = {"cases": 0, "refused": 0, "read": 0}
    slowest = most = 0.0

    @settings(
        max_examples=subject.cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=every_check,
    )
    @given(subject.files)
    def one(data: bytes) -> None:
        nonlocal slowest, most
        subject.path.write_bytes(data)
        before, begun = _memory(), time.process_time()
        counts["cases"] += 1
        try:
            subject.read(subject.path)
            counts["read"] += 1
        except UserError as error:
            counts["refused"] += 1
            assert printable(str(error)) == str(error) and subject.path.name in str(error), str(error)
        spent, taken = time.process_time() - begun, _memory(peak=True) - before
        slowest, most = max(slowest, spent), max(most, taken)
        assert spent < SECONDS and taken < MEGABYTES, f"{spent:.1f} s, {taken:.0f} MB"

    with contextlib.redirect_stderr(io.StringIO()):
        one()
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    record_property("counts", f"{name}: {said}; at most {slowest:.2f} s of CPU and {max(most, 0):.0f} MB")
    assert counts["refused"] and counts["read"], said  # else it shows nothing


def _memory(peak: bool = False) -> float:
    """Resident memory of this process, or its peak since the last call for it as it is [MB]; 0 where there is no /proc."""
    if sys.platform != "linux":
        return 0.0
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is measured anew
    wanted = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(wanted))


def test_an_archive_that_would_unpack_to_much_is_refused(tmp_path):
    """Zeros of 300 MB in 300 kB."""
    with (
        zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("coefficients.npy", "w") as part,
    ):
        np.lib.format.write_array(part, np.zeros(40_000_000))
    with pytest.raises(UserError, match="more than 64 MiB"):
        load_probe(tmp_path / "p.npz")
