"""Heads on a frozen network by the objectives of CONTRIQUE, ARNIQA, Re-IQA and SaTQA's pre-training, at equal cost.

The same for all: EfficientNet-Lite0's stage statistics, computed once; the head and projector of `contrique_head`; AdamW
with its rate and decay; the number of steps; 512 crops a step; the number of crops in all, 16 of each photograph, or 32
where there are only the clean ones; their side, 160 pixels, half of them at half size. What is compared with what, classes,
temperatures, queue and negatives are the recipes' own, and so are the losses and the program that makes a row.

What differs, because the recipes do:
- CONTRIQUE: clean photographs under one of the bank's distortions each, and as many others as they are, each photograph
  a class of its own. Without a word all other arms see the clean photographs alone.
- CONTRIQUE, clean alone: undistorted views of the clean photographs in place of the others'.
- SaTQA: the very same crops as that; undistorted ones are one class, and lone anchors are left out. (Its recipe has crops
  of one size, flipped at random; here they are CONTRIQUE's.)
- ARNIQA: two photographs under one chain of one to four distortions; crops of photographs at their own size.
- Re-IQA: two overlapping crops of a copy, of four copies of a photograph, three under a distortion each; a momentum head,
  and a queue of four steps' keys. Half of a step's crops are keys, which have no gradient. Its windows are wider than half
  a photograph, so its crops at half size have black borders, as in its recipe. The momentum is .99 for so few steps; "Re-IQA,
  momentum .999" has its recipe's. "Re-IQA, clean and other" sees photographs of both kinds, as its authors have it.

Beside them are the frozen statistics themselves, and heads of random weights behind the inputs' mean and variance. Seeds
differ in the heads' weights, batches and splits; the crops are the same for all seeds.

  python benchmarks/heads.py --clean PHOTOS/clean --other PHOTOS/mine --unseen PHOTOS/unseen --scores biq2021/scores.csv \
      --rows rows.jsonl
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import heads_views as views
import jax
import numpy as np
import optax
from heads_measures import COLUMNS, measures
from jax.sharding import PartitionSpec as P

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.data.order import records
from contrique_jax.data.sources import open_source
from contrique_jax.distort.bank import NUM_CLASSES
from contrique_jax.evaluation.comparison import Contender, extract_all
from contrique_jax.inference.extractor import Extractor
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks import encoder, head
from contrique_jax.networks.pooling import normalise
from contrique_jax.networks.skeleton import skeleton
from contrique_jax.recipes.arniqa import recipe as arniqa
from contrique_jax.recipes.contrique_head import recipe as contrique_head
from contrique_jax.recipes.contrique_head.config import HeadConfig
from contrique_jax.recipes.contrique_head.statistics import Described
from contrique_jax.recipes.reiqa import recipe as reiqa
from contrique_jax.recipes.satqa import pretrain
from contrique_jax.recipes.satqa.config import PretrainConfig
from contrique_jax.training.load import load_network
from contrique_jax.training.mesh import DATA_AXIS, start
from contrique_jax.training.optim import optimiser

BASE, CROPS = "CONTRIQUE", 512  # a step
MODEL = HeadConfig().model
WIDTHS = head.Widths(encoder.feature_width(MODEL.of_trunk), MODEL.hidden_width, MODEL.head_width, MODEL.projection_dim)

Batch = tuple[
    np.ndarray, Any
]  # statistics [n, v, d], of Re-IQA [n, pairs, 2, d], and what the objective is told of them


class Arm(NamedTuple):
    recipe: Any
    config: Any
    batch: Callable[[int, int], Batch]  # of a seed and a step


def own_classes(vectors: Described, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Undistorted views, each of its photograph's class."""
    chosen = records(seed, step, 1, len(vectors), CROPS // 4)
    _, first, which = np.unique(chosen // vectors.views, return_index=True, return_inverse=True)
    return vectors.vectors[chosen], NUM_CLASSES + first[which]


def by_contrique(distorted: Described, others: Described, seed: int, step: int) -> Batch:
    chosen = records(seed, step, 0, len(distorted), CROPS // 4)
    undistorted, classes = own_classes(others, seed, step)
    assert distorted.classes is not None
    every = np.concatenate([distorted.classes[chosen], classes]).astype(np.int32)
    vectors = np.concatenate([distorted.vectors[chosen], undistorted])
    return vectors, contrique_head.Rows(vectors[:, :, :0], every)  # type: ignore[arg-type]


def by_satqa(distorted: Described, originals: Described, seed: int, step: int) -> Batch:
    chosen = records(seed, step, 0, len(distorted), CROPS // 4)
    assert distorted.classes is not None
    both = np.stack([distorted.vectors[chosen], originals.vectors[chosen]], axis=2)  # [n, sizes, 2, d]
    classes = np.repeat(distorted.classes[chosen], 2).astype(np.int32)
    return both.reshape(-1, *both.shape[2:]), {"classes": classes}


def by_rows(vectors: np.ndarray, seed: int, step: int) -> Batch:
    """Whole records of ARNIQA or Re-IQA."""
    chosen = records(seed, step, 0, len(vectors), CROPS // int(np.prod(vectors.shape[1:-1])))
    return vectors[chosen], {}


def arms(clean_spec: str, other_spec: str) -> dict[str, Arm]:
    broken = BrokenLog()
    clean = open_source(clean_spec, role="pristine", field="--clean")
    other = open_source(other_spec, role="authentic", field="--other")
    distorted, others, originals = views.contrique_views(clean, other, broken)
    chains = views.arniqa_views(clean, broken)
    pairs = views.reiqa_views(clean, 2, broken)
    both = np.concatenate([pairs[: len(pairs) // 2], views.reiqa_views(other, 1, broken)])
    for kind, crops in (
        ("CONTRIQUE", 2 * (len(distorted) + len(others))), ("clean alone and SaTQA", 2 * (len(distorted) + len(originals))),
        ("ARNIQA", chains[..., 0].size), ("Re-IQA", pairs[..., 0].size), ("Re-IQA, all", both[..., 0].size),
    ):  # fmt: skip
        print(f"{kind}: {crops:,} crops", flush=True)
    width, plain, quick = WIDTHS.projections, views.head_config(), views.reiqa_config(0.99, WIDTHS.projections)
    partial = functools.partial
    return {
        BASE: Arm(contrique_head, plain, partial(by_contrique, distorted, others)),
        "CONTRIQUE, clean alone": Arm(contrique_head, plain, partial(by_contrique, distorted, originals)),
        "SaTQA": Arm(pretrain, PretrainConfig(), partial(by_satqa, distorted, originals)),
        "ARNIQA": Arm(arniqa, views.arniqa_config(), partial(by_rows, chains)),
        "Re-IQA, momentum .999": Arm(reiqa, views.reiqa_config(width=width), partial(by_rows, pairs)),
        "Re-IQA": Arm(reiqa, quick, partial(by_rows, pairs)),
        "Re-IQA, clean and other": Arm(reiqa, quick, partial(by_rows, both)),
    }


def fresh(arm: Arm, seed: int) -> Any:
    """A head's variables; of Re-IQA with the momentum head, its copy, and a queue of random unit rows."""
    variables = skeleton(head.Head, WIDTHS).init(seed)
    if arm.recipe is not reiqa:
        return variables
    rows = np.random.default_rng(seed).standard_normal((arm.config.loss.queue, WIDTHS.projections), np.float32)
    queue = {"keys": rows / np.linalg.norm(rows, axis=1, keepdims=True), "pointer": np.zeros((), np.int32)}
    slow = {"momentum": variables["params"], "momentum_stats": variables["batch_stats"]}
    return variables | jax.tree.map(np.copy, slow) | {"queue": queue}


def projected(arm: Arm, variables: Any, vectors: jax.Array) -> Any:
    """Projections as the recipe's objective takes them, and the running statistics moved on."""
    if arm.recipe is not reiqa:
        z, stats = head.project(WIDTHS, variables, vectors, None)
        return z, {"batch_stats": stats}
    q, stats = head.project(WIDTHS, variables, vectors[:, :, 0], None)
    slow = jax.lax.stop_gradient({"params": variables["momentum"], "batch_stats": variables["momentum_stats"]})
    k, slow_stats = head.project(WIDTHS, slow, vectors[:, :, 1], None)
    return {"q": normalise(q), "k": normalise(k)}, {"batch_stats": stats, "momentum_stats": slow_stats}


def stepped(arm: Arm, steps: int) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimiser, and a step of it: variables, optimiser state and a batch -> the first two moved on, and the loss."""
    recipe, split = arm.recipe, P(DATA_AXIS)
    rule = optimiser(HeadConfig().optim, steps, skeleton(head.Head, WIDTHS).decays())
    objective = jax.shard_map(
        lambda *given: recipe.objective(arm.config, *given, DATA_AXIS)[:2],
        mesh=start(1, 1, 1).mesh, in_specs=(P(), split, split), out_specs=P(),
    )  # fmt: skip

    def step(variables: Any, state: Any, vectors: jax.Array, told: Any) -> Any:
        def loss(params: Any) -> Any:
            outputs, moved = projected(arm, variables | {"params": params}, vectors)
            value, changed = objective(variables, outputs, told)
            return value, moved | changed

        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = rule.update(gradient, state, variables["params"])
        after = variables | changed | {"params": optax.apply_updates(variables["params"], updates)}
        return recipe.after_update(arm.config, after), state, value

    return rule, jax.jit(step)


def trained(arm: Arm, rule: optax.GradientTransformation, step: Callable[..., Any], seed: int, steps: int) -> Any:
    """The variables after `steps` steps, and the mean loss of the last ten."""
    variables, losses = fresh(arm, seed), []
    state = rule.init(variables["params"])
    for number in range(steps):
        variables, state, value = step(variables, state, *arm.batch(seed, number))
        losses.append(float(value))
    return variables, float(np.mean(losses[-10:]))


def untrained(arm: Arm, seed: int) -> Any:
    """Random weights behind the mean and variance of ten batches."""
    variables = skeleton(head.Head, WIDTHS).init(seed)
    inputs = np.concatenate([arm.batch(seed, number)[0].reshape(-1, WIDTHS.inputs) for number in range(10)])
    standardised = variables["batch_stats"]["head"]["0"]
    standardised["running_mean"], standardised["running_var"] = (
        part(inputs.astype(np.float32), axis=0) for part in (np.mean, np.var)
    )
    return variables


def said(name: str, found: np.ndarray, sign: str = "") -> str:
    parts = [f"{mean:{sign}.3f} ± {sd:.3f}" for mean, sd in zip(found.mean(0), found.std(0, ddof=1), strict=True)]
    return f"| {name} | {' | '.join(parts)} |"


def tables(rows: dict[str, dict[int, list[float]]]) -> None:
    """Means and deviations over seeds; then differences to CONTRIQUE, seed by seed."""
    print(f"\n| features | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    found = {name: np.array([by_seed[seed] for seed in sorted(by_seed)]) for name, by_seed in rows.items()}
    for name, values in found.items():
        print(said(name, values))
    print(f"\n| less {BASE} | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, values in found.items():
        if name != BASE:
            apart = values - found[BASE]
            ahead = ", ".join(str(count) for count in (apart > 0).sum(0))
            print(f"{said(name, apart, '+')} ahead in {ahead} of {len(values)}")


def kept_rows(path: Path, settings: dict[str, Any]) -> dict[tuple[str, int], list[float]]:
    """What an interrupted run has measured; a new file begins with the settings."""
    if not path.exists():
        path.write_text(json.dumps(settings) + "\n")
    first, *lines = path.read_text().splitlines()
    if json.loads(first) != settings:
        raise SystemExit(
            f"{path} was measured with {first}, and this run has {json.dumps(settings)}; name another file."
        )
    return {(line["arm"], line["seed"]): line["found"] for line in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", required=True, help="source of clean photographs")
    parser.add_argument("--other", required=True, help="source of as many others, none of them rated")
    parser.add_argument("--unseen", nargs="+", required=True, help="clean photographs that no head has seen")
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group, subset")
    parser.add_argument("--rows", type=Path, required=True, help="a line for each head; a run goes on where it ended")
    parser.add_argument("--arms", nargs="*", help="those to train beside CONTRIQUE (default: all)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    use_compilation_cache()
    kept = kept_rows(options.rows, {"steps": options.steps, "clean": options.clean, "other": options.other,
                                    "unseen": options.unseen, "scores": str(options.scores)})  # fmt: skip
    every = arms(options.clean, options.other)
    model, weights = load_network("lite0")
    contender = Contender("stages", lambda side: Extractor(model, weights, shorter_side=side))
    (opinions,) = extract_all([contender], read_scores(options.scores), user_cache("features"))
    images = opinions.images
    told, distorted = views.unseen(list_images(options.unseen), Extractor(model, weights))
    chosen = [BASE, *(name for name in every if name != BASE and name in (options.arms or every))]
    steps = {name: stepped(every[name], options.steps) for name in chosen}
    apply = jax.jit(functools.partial(contrique_head.of_statistics, MODEL))
    rows: dict[str, dict[int, list[float]]] = {}
    for seed in range(options.seeds):
        for name in ("frozen stages", "random head", *chosen):
            if (name, seed) not in kept:
                started, loss, found = time.process_time(), float("nan"), [opinions.features, distorted]
                if name == "random head":
                    variables = untrained(every[BASE], seed)
                elif name != "frozen stages":
                    variables, loss = trained(every[name], *steps[name], seed, options.steps)
                if name != "frozen stages":  # full size and half, side by side
                    found = [
                        np.hstack([np.asarray(apply(variables, x)) for x in np.split(y, 2, axis=1)]) for y in found
                    ]
                trained_in = time.process_time() - started
                kept[name, seed] = measures(found[0], images.scores, images.groups, found[1], told, seed)
                with options.rows.open("a") as stream:
                    line = {"arm": name, "seed": seed, "found": kept[name, seed], "loss": loss}
                    stream.write(json.dumps(line) + "\n")
                said_now = " ".join(f"{value:.3f}" for value in kept[name, seed])
                print(f"seed {seed}: {name}: {said_now}; loss {loss:.3f}, {trained_in:.0f} s of CPU", flush=True)
            rows.setdefault(name, {})[seed] = kept[name, seed]
        if seed:
            tables(rows)


if __name__ == "__main__":
    main()
