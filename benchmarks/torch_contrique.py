"""A plain PyTorch CONTRIQUE step, the thing ours is timed against: torchvision-layout ResNet-50, projector, dense NT-Xent.

torchvision has no CPU build everywhere, so the bottleneck ResNet is written out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class TorchContrique(nn.Module):
    """Views [N, 3, H, W] in [0, 1] -> projections [N x 4, 128]."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(3, 2, 1))
        inputs = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = 4 * width
        self.encoder = nn.Sequential(*layers)
        self.projector = nn.Sequential(
            nn.Linear(2048, 2048, bias=False),
            nn.BatchNorm1d(2048),
            nn.ReLU(),
            nn.Linear(2048, 128, bias=False),
            nn.BatchNorm1d(128),
        )

    def forward(self, x):
        h = F.adaptive_avg_pool2d(self.encoder(x), (2, 2)).flatten(2).transpose(1, 2).reshape(-1, 2048)
        return self.projector(F.normalize(h, dim=1))


def dense_loss(z, classes, temperature: float = 0.1):
    """Multi-positive NT-Xent with its masks on the device; `classes` [N]."""
    z = F.normalize(z.float(), dim=1)
    similarity = z @ z.T / temperature
    same = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positives = (classes[:, None] == classes[None, :]) & ~same
    denominator = torch.logsumexp(similarity.masked_fill(same, -torch.inf), dim=1)
    return (denominator - (similarity * positives).sum(1) / positives.sum(1)).mean()
