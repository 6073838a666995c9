"""Arrays from files, read by several threads at once."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import jax  # noqa: F401 (it runs Python in the collector of garbage, which makes threads change in the middle of a header)
import numpy as np
import pytest

from contrique_jax.io.npz import map_npy, read_npy


@pytest.mark.parametrize("read", [read_npy, map_npy])
def test_good_files_are_read_whatever_other_threads_read(read, tmp_path):
    array = np.arange(24, dtype=np.float16).reshape(3, 2, 4)
    np.save(tmp_path / "a.npy", array)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(read, [tmp_path / "a.npy"] * 8000):
                np.testing.assert_array_equal(found, array)
    finally:
        sys.setswitchinterval(interval)


def test_a_map_is_of_the_whole_array_or_none(tmp_path):
    array = np.asfortranarray(np.arange(600.0).reshape(20, 30))
    np.save(tmp_path / "a.npy", array)
    found = map_npy(tmp_path / "a.npy")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, array)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match="promises another size"):
        map_npy(tmp_path / "a.npy")
