"""What recipes on opinions share whose network is a token mixer on the last two maps of one frozen encoder. Their models have
`widths` of the mixer."""

from __future__ import annotations

from typing import Any

from contrique_jax.data.pipeline import Tree
from contrique_jax.networks import encoder, token_mixer
from contrique_jax.networks.trunk import trunk_of
from contrique_jax.recipes import on_trunk
from contrique_jax.recipes.opinions import judge
from contrique_jax.recipes.recipe import Variables

constants, check = on_trunk.constants, on_trunk.check


def init(config: Any, seed: int) -> Variables:
    return judge.begun(config, token_mixer.init(config.model.widths, seed))


def variable_shapes(config: Any) -> Variables:
    mixer, trunk = token_mixer.shapes(config.model.widths), encoder.variable_shapes(config.model.of_trunk)
    return {part: trunk_of(trunk)[part] | mixer[part] for part in mixer}


def take_over(config: Any, drawn: Variables, model: Any, theirs: Variables) -> tuple[Variables, str]:
    """The transformer and what judges, of the same widths on the same encoder."""
    network = {part: drawn[part] for part in ("params", "batch_stats")}
    taken = on_trunk.taken_over(config, network, model, theirs, type(config.model), lambda model: model.widths)
    return judge.begun(config, taken), f"its transformer and head{'s' * config.model.widths.compares}"


def decays(config: Any, variables: Variables) -> Tree:
    return token_mixer.decays(config.model.widths)


def finished(config: Any, variables: Variables, constants: Tree) -> tuple[Any, Variables]:
    return on_trunk.finished(*judge.with_line(config, variables), constants)
