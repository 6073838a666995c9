"""Whole networks that recipes trained from one start, beside it: opinions with all labels and with few, severity and type.

Each model's encoder is read out in the same ways, whatever its recipe takes: the means of its last map; the means and
deviations of the last maps of its stages; and these beside the start's own stages. Full size and half.

  python benchmarks/encoders.py --start models/lite0_imagenet --models CONTRIQUE=runs/contrique ARNIQA=runs/arniqa \\
      --unseen PHOTOS/unseen --scores biq2021/scores.csv
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import heads_views as views
import jax.numpy as jnp
import numpy as np
from heads_measures import COLUMNS, over_splits, split_by_split

from contrique_jax.config import ModelConfig
from contrique_jax.data.image_files import list_images
from contrique_jax.data.iqa_sets import read_scores
from contrique_jax.evaluation.comparison import Contender, extract_all
from contrique_jax.evaluation.intervals import compare_over_splits
from contrique_jax.inference.extractor import Extractor
from contrique_jax.inference.runner import Runner
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import user_cache
from contrique_jax.networks import encoder
from contrique_jax.networks.efficientnet import relu6
from contrique_jax.networks.layers import inside
from contrique_jax.networks.pooling import global_mean, global_statistics, normalise
from contrique_jax.training.load import load_any

START = "the start"
TESTED = 2 / 7  # images, or photographs, tested for each that a ridge is fitted on


class BothReadouts(Extractor):
    """Of one pass the statistics of the stages and, behind them, the means of the last map."""

    def __init__(self, model: ModelConfig, variables: Any):
        super().__init__(model, variables)
        width = sum(encoder.feature_width(dataclasses.replace(model, features=kind)) for kind in ("stages", "pooled"))
        self.width, self.model_hash = 2 * width, f"both-{self.model_hash}"
        about = repr((dataclasses.astuple(self.model), self.model_hash))
        encode = functools.partial(both, self.model)
        self._runner = Runner(encode, self.variables, width, about, None, windows=False, memory=1 << 32)


def both(model: ModelConfig, variables: Any, images: Any, valid: Any) -> tuple[Any, None]:
    network = encoder._bind(model, variables).encoder
    maps = network.stages(encoder.scaled(model, images), encoder.RUNNING, valid)
    last, place = maps[-1]
    last = inside(relu6(network.bn2(network.conv_head(last), encoder.RUNNING)), place)  # as in the network's own call
    return jnp.concatenate([global_statistics(maps), normalise(global_mean(last, place))], axis=1), None


def network_of(spec: str) -> tuple[ModelConfig, Any]:
    """The encoder alone, of a model of any recipe."""
    config, variables = load_any(spec)
    kept = {field.name: getattr(config.model, field.name) for field in dataclasses.fields(ModelConfig)}
    model = ModelConfig(**kept | {"features": "stages", "projection_dim": 0})
    return model, {kind: {"encoder": variables[kind]["encoder"]} for kind in ("params", "batch_stats")}


def readouts(found: np.ndarray) -> dict[str, np.ndarray]:
    """Of both sizes side by side those that have one name."""
    stages = 2 * sum(encoder.STAGE_WIDTHS)
    sizes = np.split(found, 2, axis=1)
    return {
        "stages": np.hstack([size[:, :stages] for size in sizes]),
        "last map": np.hstack([size[:, stages:] for size in sizes]),
    }


def said(first: np.ndarray, second: np.ndarray) -> str:
    """Of each column the mean of first less second and its interval; bold where that leaves out 0."""
    cells = []
    for a, b in zip(first.T, second.T, strict=True):
        found = compare_over_splits(a, b, TESTED)
        text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
        cells.append(f"**{text}**" if found.low > 0 or found.high < 0 else text)
    return " | ".join(cells)


def tables(title: str, rows: dict[str, np.ndarray], bases: Sequence[str]) -> None:
    """Medians over splits of opinions and means of severity and type; then what each has less `bases`."""
    print(f"\n| {title} | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, found in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in over_splits(found))} |")
    for base in bases:
        print(f"\n| {title}, less {base} | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
        for name, found in rows.items():
            if name != base:
                print(f"| {name} | {said(found, rows[base])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", required=True, help="the model that all of them started from")
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL", help="the first is compared with")
    parser.add_argument("--unseen", nargs="+", required=True, help="clean photographs that no model has seen")
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group")
    options = parser.parse_args()
    use_compilation_cache()
    named = {START: options.start} | dict(each.split("=", 1) for each in options.models)
    images, rated, told = read_scores(options.scores), {}, None
    distorted: dict[str, dict[str, np.ndarray]] = {}
    for name, spec in named.items():
        extractor = BothReadouts(*network_of(spec))
        contender = Contender(name, lambda side, extractor=extractor: extractor)  # type: ignore[misc]
        (found,) = extract_all([contender], images, user_cache("features"))
        rated[name], kept = readouts(found.features), found.images
        told, features = views.unseen(list_images(options.unseen), extractor)
        distorted[name] = readouts(features)
        print(f"{name}: {spec}, {extractor.model_hash}", flush=True)
    assert told is not None
    together: dict[str, dict[str, np.ndarray]] = {}
    for kind in ("last map", "stages", "stages beside the start's"):
        together[kind] = {}
        for name in named:
            if kind in rated[name]:
                x, y = rated[name][kind], distorted[name][kind]
            elif name == START:
                together[kind][name] = together["stages"][name]
                continue
            else:
                x, y = (np.hstack([each[START]["stages"], each[name]["stages"]]) for each in (rated, distorted))
            together[kind][name] = split_by_split(x, kept.scores, kept.groups, y, told, 0)
        tables(kind, together[kind], list(named)[:2])


if __name__ == "__main__":
    main()
