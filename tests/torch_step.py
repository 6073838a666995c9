"""A training step in PyTorch and float64, two views in two forward passes as in the original.

python -m tests.torch_step    writes tests/data_reference/train_step.npz
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tests.reference_weights import SMALL_MODEL, SMALL_STEP, small_batch, small_state_dict
from tests.torch_resnet import Original


def float64_step(model: Original, state: dict[str, np.ndarray], views: np.ndarray, classes: np.ndarray) -> dict:
    """`views` [images, 2, h, w, 3], `classes` [images] -> "loss", "norms" of the gradients by name, "running" by name."""
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    model = model.double().train()
    projections = []
    for view in views.swapaxes(0, 1):
        maps = torch.tensor(view).permute(0, 3, 1, 2).double() / 255
        for part in model.encoder:  # computed again on the way back, for a fraction of the memory
            maps = checkpoint(part, maps, use_reentrant=False)
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
