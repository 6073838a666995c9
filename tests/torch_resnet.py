"""ResNets in PyTorch with torchvision's names (torchvision has no build for every platform), and the original's model
class around one, written from its facts (docs/protocol.md)."""

from __future__ import annotations

import torch
from torch import nn

DEPTHS = {
    "resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3),
}  # fmt: skip


class Block(nn.Module):
    """Convolutions of the given kernel sizes; the first 3x3 takes the stride."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, sizes: tuple[int, ...]):
        super().__init__()
        widths = [inputs, *[width] * (len(sizes) - 1), outputs]
        self.count, first = len(sizes), sizes.index(3)
        for i, size in enumerate(sizes):
            step = stride if i == first else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], size, step, size // 2, bias=False)
            setattr(self, f"conv{i + 1}", conv)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = x
        for i in range(1, self.count + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = self.relu(out) if i < self.count else out
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, name: str, base: int = 64, classes: int = 1000):
        super().__init__()
        wide = name not in ("resnet10", "resnet18", "resnet34")
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, base, 7, 2, 3, bias=False), nn.BatchNorm2d(base), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = base
        for stage, depth in enumerate(DEPTHS[name]):
            width = base << stage
            blocks = []
            for i in range(depth):
                outputs = 4 * width if wide else width
                blocks.append(Block(inputs, width, outputs, 2 if stage and not i else 1, (1, 3, 1) if wide else (3, 3)))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1))


class Original(nn.Module):
    """CONTRIQUE's model class: the ResNet without pooling and classifier, and a projector."""

    def __init__(self, name: str, base: int = 64, outputs: int = 128):
        super().__init__()
        resnet = ResNet(name, base)
        width = resnet.fc.in_features
        self.encoder = nn.Sequential(*list(resnet.children())[:-2])
        self.projector = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, outputs, bias=False),
            nn.BatchNorm1d(outputs),
        )

    def features(self, images):
        return nn.functional.normalize(self.encoder(images).mean((2, 3)), dim=1)


class Arniqa(nn.Module):
    """ARNIQA's encoder: the ResNet without classifier under `model`, a projector with biases and without BatchNorm."""

    def __init__(self, name: str, base: int = 64, outputs: int = 128):
        super().__init__()
        resnet = ResNet(name, base)
        width = resnet.fc.in_features
        self.model = nn.Sequential(*list(resnet.children())[:-1])
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


class ReIQA(nn.Module):
    """Re-IQA's: the ResNet under `encoder` by torchvision's names, a head of two layers."""

    def __init__(self, name: str, base: int = 64, outputs: int = 128):
        super().__init__()
        self.encoder = ResNet(name, base)
        width = self.encoder.fc.in_features
        del self.encoder.fc
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with BatchNorm's parameters, statistics and counters away from where they start, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.2, 0.2), (module.running_mean, -0.2, 0.2),
                                      (module.running_var, 0.5, 1.5)):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
            module.num_batches_tracked.fill_(7)
    return model.eval()
