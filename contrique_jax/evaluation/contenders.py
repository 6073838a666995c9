"""What an evaluation compares: the network that --model names, those of --against, and controls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from contrique_jax.config import Config, ModelConfig
from contrique_jax.errors import UserError
from contrique_jax.evaluation.brisque import NaturalStatistics
from contrique_jax.evaluation.comparison import Contender
from contrique_jax.inference.any_recipe import EnsembleExtractor, open_extractor
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.recipe_extractor import RecipeExtractor
from contrique_jax.networks.encoder import Variables
from contrique_jax.training.load import is_ensemble, load_network, random_weights, recipe_behind

RANDOM, STATISTICS = "random weights", "hand-made statistics"


def contenders_of(flags: argparse.Namespace) -> list[Contender]:
    """The network that --model names, those of --against, and the controls. Raises UserError if one is no network."""
    limit, memory = flags.max_megapixels, flags.memory

    def network(name: str, model: ModelConfig, weights: Variables) -> Contender:
        return Contender(
            name, lambda side: Extractor(model, weights, max_megapixels=limit, shorter_side=side, memory=memory)
        )

    found: list[Contender] = []
    control: list[Contender] = []
    for name in dict.fromkeys((flags.model, *flags.against)):
        if is_ensemble(name) or recipe_behind(name) != Config.recipe:
            extractor = open_extractor(name, max_megapixels=limit, memory=memory)
            assert isinstance(extractor, RecipeExtractor | EnsembleExtractor)
            found.append(_of_another_recipe(name, extractor))
            continue
        model, weights = load_network(name)
        found.append(network(name, model, weights))
        if name == flags.model and not name.startswith("random:"):
            control = [network(RANDOM, model, random_weights(model))]
    if flags.no_control:
        return found
    made = Contender(
        STATISTICS, lambda side: NaturalStatistics(max_megapixels=limit, shorter_side=side), standardise=True
    )
    return [*found, *control, made]


def check_references(contenders: Sequence[Contender], with_references: bool) -> None:
    """Raises UserError if a meter judges images alone and there are references, or it needs them and there are none."""
    for contender in contenders:
        if contender.gives_scores and contender.takes_reference == "never" and with_references:
            raise UserError(
                f"--full-reference: {contender.name} judges an image alone; leave that and --reference-column out."
            )
        if contender.takes_reference == "needed" and not with_references:
            raise UserError(f"--model {contender.name}: it judges an image beside its reference; add --full-reference.")


def _of_another_recipe(name: str, extractor: RecipeExtractor | EnsembleExtractor) -> Contender:
    """Scores are turned round if the lower ones are better."""
    scores = extractor.gives_scores
    own = extractor.probe() if isinstance(extractor, RecipeExtractor) and scores else None
    sign = -1 if own and not own.higher_is_better else 1
    return Contender(
        name,
        lambda side: extractor.with_sign(sign, side),
        gives_scores=scores,
        takes_reference=extractor.takes_reference,
    )
