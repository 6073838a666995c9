"""SGD with momentum, a warm-up and cosine learning rate, and the mask of what weight decay touches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from contrique_jax.config import OptimConfig


def learning_rate(optim: OptimConfig, steps: int, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """The rate of 0-based `step`: linear up to the peak over the first `warmup_share` of `steps`, then cosine to 0."""
    warmup = round(optim.warmup_share * steps)
    step = jnp.asarray(step, jnp.float32)
    rising = (step + 1) / max(warmup, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * (step - warmup) / max(steps - warmup, 1)))
    return optim.learning_rate * jnp.where(step < warmup, rising, falling)


def is_norm(path: tuple[str, ...], mask: str) -> bool:
    """Whether weight decay leaves this parameter alone, by its torchvision name.

    "no_norm" spares every BatchNorm. "original" spares what the original's rule (a name that contains "bn") meets once its
    encoder is wrapped in a Sequential: the BatchNorms inside blocks; the stem's, the downsamplings' and the projector's
    have lost their names there and are decayed. "all" spares nothing.
    """
    module, parent = path[-2], path[-3] if len(path) > 2 else ""
    named = module.startswith("bn")
    if mask == "all":
        return False
    if mask == "original":
        return named and parent != "encoder"
    return named or (parent, module) in {("downsample", "1"), ("projector", "1"), ("projector", "4")}


def decayed(params: Any, mask: str) -> Any:
    """A tree of booleans like `params`: which parameters weight decay touches."""

    def touched(path: tuple[jax.tree_util.DictKey, ...], _: Array) -> bool:
        return not is_norm(tuple(str(part.key) for part in path), mask)

    return jax.tree_util.tree_map_with_path(touched, params)


def sgd(optim: OptimConfig, steps: int) -> optax.GradientTransformation:
    """torch.optim.SGD's rule: g x scale + decay x w, then the momentum buffer, then the rate of the step."""
    return optax.chain(
        optax.scale(optim.gradient_scale),
        optax.add_decayed_weights(optim.weight_decay, mask=lambda params: decayed(params, optim.decay_mask)),
        optax.sgd(lambda step: learning_rate(optim, steps, step), momentum=optim.momentum),
    )
