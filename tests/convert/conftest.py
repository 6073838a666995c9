"""What the tests of conversions share: no cache of compiled programs, and a network of PyTorch's."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setenv("CONTRIQUE_CACHE", "off")


@pytest.fixture(scope="module")
def original(torch):
    from tests.convert.torch_files import BASE
    from tests.torch_resnet import Original, stirred

    torch.manual_seed(0)
    return stirred(Original("resnet18", BASE, 16))
