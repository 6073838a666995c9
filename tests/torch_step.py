"""A training step in PyTorch and float64, two views in two forward passes as in the original.

python -m tests.torch_step SHARED    writes tests/data_reference/train_step.npz and float64_norms.npz; takes 5 GB
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from tests.reference_weights import (
    FLOAT64_NORMS,
    SMALL_MODEL,
    SMALL_STEP,
    reference_batch,
    reference_state_dict,
    small_batch,
    small_state_dict,
)  # fmt: skip
from tests.torch_resnet import Original


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


if __name__ == "__main__":
    np.savez_compressed(SMALL_STEP, **small_step())
    shared = Path(sys.argv[1])
    norms = float64_step(Original("resnet50"), reference_state_dict(shared), *reference_batch(shared))["norms"]
    np.savez_compressed(FLOAT64_NORMS, names=np.array(list(norms)), norms=np.array(list(norms.values())))
