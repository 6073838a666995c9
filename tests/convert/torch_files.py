"""What the tests of PyTorch checkpoints share."""

from __future__ import annotations

import torch

BASE = 8  # channels of the first convolution


def saved(path, stored):
    torch.save(stored, path)
    return path
