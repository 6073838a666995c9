"""SaTQA's pre-training against CONTRIQUE's at equal cost: heads on a frozen network's statistics, which are computed once.

Both see the same distorted views of the same photographs, as many undistorted views beside them, the same head, steps and rate.
CONTRIQUE's undistorted views are each photograph a class of its own, here once of other photographs, once of the same ones;
SaTQA's are the views' own originals, all one class, and anchors alone in their class are left out.

  python benchmarks/satqa_pretraining.py --pristine PHOTOS/clean --authentic PHOTOS/mine --scores biq2021/scores.csv \
      --unseen OTHER_PHOTOS
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from head import distorted, standard

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.order import records
from contrique_jax.data.sources import open_source
from contrique_jax.demo_unseen import measured
from contrique_jax.distort.bank import NUM_CLASSES, PRISTINE
from contrique_jax.evaluation.comparison import Contender, extract_all
from contrique_jax.evaluation.protocol import evaluate_features, make_splits
from contrique_jax.inference.extractor import Extractor
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.losses.nt_xent import nt_xent
from contrique_jax.networks import encoder, head
from contrique_jax.recipes.contrique_head import recipe
from contrique_jax.recipes.contrique_head.config import HeadConfig
from contrique_jax.recipes.contrique_head.statistics import Described
from contrique_jax.training.load import load_network
from contrique_jax.training.optim import optimiser

ARMS = ("CONTRIQUE", "CONTRIQUE, same photographs", "SaTQA")


def views(config: HeadConfig, pristine: str, other: str) -> tuple[Described, Described]:
    """Statistics of the distorted views of the clean photographs, and of undistorted views of others."""
    sources = {
        role: open_source(place, role=role, field=f"--{role}", canvas=recipe.canvas(config))
        for role, place in zip(recipe.roles, (pristine, other), strict=True)
    }
    found = recipe.prepared(config, sources, BrokenLog())
    return found["pristine"], found["authentic"]  # type: ignore[return-value]


def batches(arm: str, distorted: Described, others: Described, seed: int, steps: int, rows: int) -> Any:
    """Of each step the statistics [rows, 2, d] and classes [rows]: half distorted views, half undistorted ones."""
    for step in range(steps):
        own = records(seed, step, 0, len(distorted), rows // 2)
        if arm == "SaTQA":
            beside, classes = own, np.full(len(own), PRISTINE)
        else:
            beside = records(seed, step, 1, len(others), rows // 2)
            _, first, which = np.unique(beside // others.views, return_index=True, return_inverse=True)
            classes = NUM_CLASSES + first[which]
        assert distorted.classes is not None
        yield (
            np.concatenate([distorted.vectors[own], others.vectors[beside]]),
            np.concatenate([distorted.classes[own], classes]).astype(np.int32),
        )


def trained(arm: str, config: HeadConfig, distorted: Described, others: Described, seed: int, steps: int) -> Any:
    """A head's variables, and its last loss."""
    model, rows = config.model, config.data.batch_size
    inputs = encoder.feature_width(model.of_trunk)
    widths = head.Widths(inputs, model.hidden_width, model.head_width, model.projection_dim)
    variables = head.init(widths, seed)
    rule = optimiser(config.optim, steps, head.decays(widths))
    state = rule.init(variables["params"])

    @jax.jit
    def step(variables: Any, state: Any, vectors: jax.Array, classes: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            z, stats = head.project(widths, variables | {"params": params}, vectors, None)
            value = nt_xent(
                z.reshape(-1, z.shape[-1]), jnp.repeat(classes, 2), num_classes=NUM_CLASSES + rows // 2,
                temperature=config.loss.temperature, block_size=config.loss.block_size, skip_lone=arm == "SaTQA",
            )  # fmt: skip
            return value, stats

        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        moves, state = rule.update(gradient, state, variables["params"])
        return {"params": optax.apply_updates(variables["params"], moves), "batch_stats": stats}, state, value

    value = np.nan
    for vectors, classes in batches(arm, distorted, others, seed, steps, rows):
        variables, state, value = step(variables, state, vectors, classes)
    return variables, float(value)


def features(config: HeadConfig, variables: Any, stages: np.ndarray) -> np.ndarray:
    """The head's, of statistics at full and half size side by side."""
    of = jax.jit(functools.partial(recipe.of_statistics, config.model, variables))
    return np.hstack([np.asarray(of(part)) for part in np.split(stages, 2, axis=1)])


def measures(images: Any, told: Any, stages: dict[str, np.ndarray], of: Callable[[np.ndarray], np.ndarray], seed: int):
    """SROCC on opinions (median of ten grouped splits), severity within a kind and kind of unseen photographs."""
    result = evaluate_features(
        standard(of(stages["opinions"])), images.scores, make_splits(images.groups, 10, 0), images.subsets,
        groups=images.groups,
    )  # fmt: skip
    row = measured(standard(of(stages["unseen"])), told, 10, seed)
    return float(np.median(result.values("srocc"))), row["severity"], row["kind"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, says in (("pristine", "clean photographs"), ("authentic", "others, for CONTRIQUE")):
        parser.add_argument(f"--{name}", required=True, help=f"source of {says}")
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group, subset")
    parser.add_argument("--unseen", nargs="+", required=True, help="folders of photographs that no head has seen")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    options = parser.parse_args()
    use_compilation_cache()
    config = HeadConfig()
    config.data.batch_size, config.data.workers = 256, 1
    distorted_views, same = views(config, options.pristine, options.pristine)
    _, others = views(config, options.pristine, options.authentic)
    model, weights = load_network("lite0")
    contender = Contender("stages", lambda side: Extractor(model, weights, shorter_side=side))
    (found,) = extract_all([contender], read_scores(options.scores), user_cache("features"))
    told = distorted(list_images(options.unseen))
    stages = {"opinions": found.features, "unseen": Extractor(model, weights).features(list(told.images))}
    print("| features | SROCC on opinions | severity within a kind | kind | last loss |", flush=True)

    def said(name: str, rows: list[tuple[float, ...]]) -> None:
        parts = [f"{np.mean(part):.3f} +- {np.std(part, ddof=1):.3f}" for part in zip(*rows, strict=True)]
        print(f"| {name} | {' | '.join(parts)} |", flush=True)

    by_seed = range(options.seeds)
    said("frozen stages", [measures(found.images, told, stages, lambda x: x, seed) for seed in by_seed])
    rows: dict[str, list[tuple[float, ...]]] = {arm: [] for arm in ARMS}
    for seed in by_seed:
        for arm in ARMS:
            beside = others if arm == "CONTRIQUE" else same
            variables, loss = trained(arm, config, distorted_views, beside, seed, options.steps)
            of = functools.partial(features, config, variables)
            rows[arm].append((*measures(found.images, told, stages, of, seed), loss))
            print(f"seed {seed}: {arm} {rows[arm][-1]}", flush=True)
    for arm in ARMS:
        said(arm, rows[arm])
    for arm in ARMS[:2]:
        apart = np.array(rows["SaTQA"])[:, :3] - np.array(rows[arm])[:, :3]
        parts = [f"{mean:+.3f} +- {sd:.3f}" for mean, sd in zip(apart.mean(0), apart.std(0, ddof=1), strict=True)]
        print(f"SaTQA less {arm}, seed by seed: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
