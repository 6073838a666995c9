"""Optimisers and schedules of the learning rate."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from contrique_jax.config import OptimConfig


def learning_rate(optim: OptimConfig, steps: int, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """The rate of 0-based `step`: linear up to the peak over the first `warmup_share` of `steps`, then by `schedule`.

    "cosine" falls to 0 at the end. "cosine_restarts" falls to 0 over `restart_steps` steps and begins anew at the peak, each
    time over `restart_growth` times as many (torch's CosineAnnealingWarmRestarts, stepped every iteration). "constant" stays.
    """
    warmup = round(optim.warmup_share * steps)
    step = jnp.asarray(step, jnp.float32)
    rising = (step + 1) / max(warmup, 1)
    if optim.schedule == "constant":
        falling = jnp.ones(())
    elif optim.schedule == "cosine_restarts":
        position, length = _within_cycle(step - warmup, optim.restart_steps, optim.restart_growth)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * position / length))
    elif optim.schedule != "cosine":
        raise ValueError(optim.schedule)
    else:
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (step - warmup) / max(steps - warmup, 1)))
    return optim.learning_rate * jnp.where(step < warmup, rising, falling)


def _within_cycle(step: Float[Array, ""], first: int, growth: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Steps since the last restart, and steps of the cycle that began there."""
    step = jnp.maximum(step, 0)
    if growth == 1:
        return step % first, jnp.asarray(float(first))
    done = jnp.floor(jnp.log1p(step * (growth - 1) / first) / math.log(growth) + 1e-6)  # whole cycles before it
    length = first * growth**done
    return step - first * (growth**done - 1) / (growth - 1), length


def optimiser(optim: OptimConfig, steps: int, decays: Any) -> optax.GradientTransformation:
    """Of the gradient x `gradient_scale`; `decays`: a tree of booleans like the parameters, which weight decay touches.

    "sgd" is torch.optim.SGD's rule: g + decay x w, then the momentum buffer, then the rate of the step. "lars" scales that
    sum, of each array that is decayed, by .001 |w| / |g + decay x w| before the rate and the buffer (arXiv 1708.03888).
    "adamw" decays apart from the gradient's moments (arXiv 1711.05101), `momentum` and `momentum_square` their decay rates.
    """

    def rate(step: Any) -> Any:
        return learning_rate(optim, steps, step)

    if optim.optimiser == "adamw":
        rule = optax.adamw(rate, optim.momentum, optim.momentum_square, weight_decay=optim.weight_decay, mask=decays)
        return optax.chain(optax.scale(optim.gradient_scale), rule)
    if optim.optimiser == "lars":
        rule = optax.lars(rate, optim.weight_decay, decays, trust_ratio_mask=decays, momentum=optim.momentum)
        return optax.chain(optax.scale(optim.gradient_scale), rule)
    if optim.optimiser != "sgd":
        raise ValueError(optim.optimiser)
    return optax.chain(
        optax.scale(optim.gradient_scale),
        optax.add_decayed_weights(optim.weight_decay, mask=decays),
        optax.sgd(rate, momentum=optim.momentum),
    )
