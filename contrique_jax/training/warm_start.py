"""The weights that a run starts from: drawn from its seed, or those of another model (`train.init_from`)."""

from __future__ import annotations

import sys

import jax

from contrique_jax.config import Config
from contrique_jax.errors import UserError
from contrique_jax.networks.encoder import Variables, init_model
from contrique_jax.training import hosts
from contrique_jax.training.load import load_network


def starting_weights(config: Config) -> Variables:
    """Weights before the first step, on the host.

    With `train.init_from` the encoder is that model's, the projector too if all its arrays have the shapes of this config's;
    otherwise it is drawn from the seed. Says on stderr which. Raises UserError if there is no such model, or it has
    another encoder or expects other pixels.
    """
    drawn = init_model(config.model, config.train.seed)
    spec = config.train.init_from
    if not spec:
        return drawn
    try:
        model, theirs = load_network(spec)
    except UserError as error:
        raise UserError(f"config.train.init_from: {error}") from error
    for name in ("encoder", "base_width", "input_scaling"):
        ours, other = getattr(config.model, name), getattr(model, name)
        if ours != other:
            raise UserError(
                f"config.train.init_from={spec}: its model.{name} is {other!r} and this run's is {ours!r}; "
                f"name another model or set --config.model.{name}={other}."
            )
    fits = all(
        "projector" in theirs[part] and _shapes(theirs[part]["projector"]) == _shapes(drawn[part]["projector"])
        for part in drawn
    )
    if hosts.is_first():
        projector = "projector" if fits else "a projector of fresh weights"
        print(f"starting from {spec}: its encoder and {'its ' if fits else ''}{projector}", file=sys.stderr)
    kept = ("encoder", "projector") if fits else ("encoder",)
    return {part: drawn[part] | {name: theirs[part][name] for name in kept} for part in drawn}


def _shapes(tree: object) -> object:
    return jax.tree.map(lambda leaf: leaf.shape, tree)
