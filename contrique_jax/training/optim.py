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
    time over `restart_growth` times as many (torch's CosineAnnealingWarmRestarts, stepped every iteration). "cosine_wave" falls
    to 0 over `restart_steps` steps and rises over as many (torch's CosineAnnealingLR beyond its T_max). "constant" stays.
    "cosine_by_epoch" changes `schedule_epochs` times in the run, to the cosine at the end of the part that begins, and ends at
    `final_share` of the peak; its warm-up rises every step from `warmup_rate` to the rate at which it ends.
    """
    warmup = round(optim.warmup_share * steps)
    if optim.schedule == "cosine_by_epoch":
        return _by_epoch(optim, steps, warmup, jnp.asarray(step, jnp.int32))
    step = jnp.asarray(step, jnp.float32)
    rising = (step + 1) / max(warmup, 1)
    if optim.schedule == "constant":
        falling = jnp.ones(())
    elif optim.schedule == "cosine_restarts":
        position, length = _within_cycle(step - warmup, optim.restart_steps, optim.restart_growth)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * position / length))
    elif optim.schedule == "cosine_wave":
        position, _ = _within_cycle(step - warmup, 2 * optim.restart_steps, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * position / optim.restart_steps))
    elif optim.schedule != "cosine":
        raise ValueError(optim.schedule)
    else:
        falling = 0.5 * (1 + jnp.cos(jnp.pi * (step - warmup) / max(steps - warmup, 1)))
    return optim.learning_rate * jnp.where(step < warmup, rising, falling)


def _by_epoch(optim: OptimConfig, steps: int, warmup: int, step: Int[Array, ""]) -> Float[Array, ""]:
    epochs = optim.schedule_epochs

    def cosine(epoch: Any) -> Any:
        low = optim.final_share
        return optim.learning_rate * (low + (1 - low) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs)))

    epoch = jnp.minimum(step // max(steps // epochs, 1) + 1, epochs)
    target = cosine(max(round(optim.warmup_share * epochs), 1))
    rising = optim.warmup_rate + (target - optim.warmup_rate) * step / max(warmup, 1)
    return jnp.where(step < warmup, rising, cosine(epoch))


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

    "sgd" is torch.optim.SGD's rule: g + decay x w, then the momentum buffer, then the rate of the step. "lars" (arXiv
    1708.03888) is the same, but that sum is scaled, of each array that is decayed, by .001 |w| / |g + decay x w|.
    "adamw" decays apart from the gradient's moments (arXiv 1711.05101), `momentum` and `momentum_square` their decay rates;
    "adam" has g + decay x w in the moments, as torch.optim.Adam.
    """

    def rate(step: Any) -> Any:
        return learning_rate(optim, steps, step)

    if optim.optimiser == "adamw":
        rule = optax.adamw(rate, optim.momentum, optim.momentum_square, weight_decay=optim.weight_decay, mask=decays)
        return optax.chain(optax.scale(optim.gradient_scale), rule)
    if optim.optimiser not in ("sgd", "adam", "lars"):
        raise ValueError(optim.optimiser)
    rules = [optax.scale(optim.gradient_scale), optax.add_decayed_weights(optim.weight_decay, mask=decays)]
    if optim.optimiser == "adam":
        return optax.chain(*rules, optax.adam(rate, optim.momentum, optim.momentum_square))
    if optim.optimiser == "lars":  # not optax.lars, whose buffer holds gradients times the rate of their step
        rules.append(optax.masked(optax.scale_by_trust_ratio(trust_coefficient=0.001), decays))
    return optax.chain(*rules, optax.sgd(rate, momentum=optim.momentum))
