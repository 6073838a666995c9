"""Training steps in PyTorch and float64: CONTRIQUE's, two views in two forward passes as in the original, and Re-IQA's.

python -m tests.torch_step SHARED    writes train_step.npz and both files of norms into tests/data_reference; takes 5 GB
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.reference_weights import (
    FLOAT64_NORMS,
    REIQA_NORMS,
    SMALL_MODEL,
    SMALL_STEP,
    reference_batch,
    reference_state_dict,
    reiqa_state_dict,
    small_batch,
    small_state_dict,
)  # fmt: skip
from tests.torch_resnet import Original, ResNet


def float64_step(model: Original, state: dict[str, np.ndarray], views: np.ndarray, classes: np.ndarray) -> dict:
    """`views` [images, 2, h, w, 3], `classes` [images] -> "loss", "norms" of the gradients by name, "running" by name."""
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    model = model.double().train()
    projections = []
    for view in views.swapaxes(0, 1):
        maps = model.encoder(torch.tensor(view).permute(0, 3, 1, 2).double() / 255)
        patches = functional.adaptive_avg_pool2d(maps, 2).flatten(2).transpose(1, 2).flatten(0, 1)
        projections.append(model.projector(functional.normalize(patches, dim=1)))
    z, labels = (
        functional.normalize(torch.cat(projections), dim=1),
        torch.tensor(classes).repeat_interleave(4).repeat(2),
    )
    similarity, same = z @ z.T / 0.1, torch.eye(len(z), dtype=torch.bool)
    positives = (labels[:, None] == labels[None]) & ~same
    denominators = torch.logsumexp(similarity.masked_fill(same, -torch.inf), 1)
    loss = (denominators - (similarity * positives).sum(1) / positives.sum(1)).mean()
    running = {name: value.numpy().copy() for name, value in model.state_dict().items() if ".running_" in name}
    loss.backward()
    norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
    return {"loss": loss.item(), "norms": norms, "running": running}


def small_step() -> dict[str, np.ndarray]:
    """What is stored: names of parameters and their gradients' norms, the loss, the first layer's statistics."""
    model = Original(SMALL_MODEL.encoder, SMALL_MODEL.base_width, SMALL_MODEL.projection_dim)
    step = float64_step(model, small_state_dict(), *small_batch())
    return {
        "loss": np.float64(step["loss"]),
        "grad_names": np.array(list(step["norms"])),
        "grad_norms": np.array(list(step["norms"].values())),
        **{f"running/{name}": value for name, value in step["running"].items() if name.startswith("encoder.1.")},
    }


def reiqa_norms(shared: Path) -> dict[str, float]:
    """Norms of the gradients of the loss of `step/` in the reference's reiqa.npz, whose momentum encoder is a copy."""
    with np.load(shared / "systems" / "reference" / "reiqa.npz") as stored:
        pairs, queue = [stored["step/x1"], stored["step/x2"]], torch.tensor(stored["step/memory0"]).double()
    model = nn.ModuleDict(
        {"encoder": ResNet("resnet50"), "head": nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))}
    )
    model["encoder"].fc = nn.Identity()
    model.load_state_dict({name: torch.tensor(value) for name, value in reiqa_state_dict(shared).items()})
    model = model.double().train()
    q, k = (
        functional.normalize(model["head"](model["encoder"](torch.tensor(x).permute(0, 3, 1, 2).double())), dim=1)
        for x in pairs
    )
    k = k.detach()
    similarity = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
    functional.cross_entropy(similarity, torch.zeros(len(q), dtype=torch.long)).backward()
    return {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}


def save_norms(path: Path, norms: dict[str, float]) -> None:
    np.savez_compressed(path, names=np.array(list(norms)), norms=np.array(list(norms.values())))


if __name__ == "__main__":
    np.savez_compressed(SMALL_STEP, **small_step())
    shared = Path(sys.argv[1])
    step = float64_step(Original("resnet50"), reference_state_dict(shared), *reference_batch(shared))
    save_norms(FLOAT64_NORMS, step["norms"])
    save_norms(REIQA_NORMS, reiqa_norms(shared))
