"""The views of heads.py: what the frozen network says of each recipe's crops, computed once and kept in the user's cache."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from head import EACH, distorted
from jaxtyping import Float16
from tqdm import tqdm

from contrique_jax.data.broken import BrokenLog
from contrique_jax.data.sources import Source
from contrique_jax.demo_unseen import Unseen
from contrique_jax.distort.bank import PRISTINE
from contrique_jax.inference.extractor import Extractor
from contrique_jax.io.machine import ONE_THREAD
from contrique_jax.networks import encoder
from contrique_jax.networks.model_folder import content_hash
from contrique_jax.recipes.arniqa import recipe as arniqa
from contrique_jax.recipes.arniqa.config import ArniqaConfig
from contrique_jax.recipes.contrique_head import recipe as contrique_head
from contrique_jax.recipes.contrique_head.config import HeadConfig
from contrique_jax.recipes.contrique_head.statistics import Described
from contrique_jax.recipes.kept_vectors import KeptVectors, as_halves
from contrique_jax.recipes.reiqa import recipe as reiqa
from contrique_jax.recipes.reiqa.config import ReiqaConfig

SIDE = 160  # of every crop [pixels], Re-IQA's
VIEWS = 8  # of a photograph under CONTRIQUE and SaTQA, each at two sizes; and records that ARNIQA has of it
COPIES = 4  # of a photograph under Re-IQA, itself among them
TOGETHER = 8  # crops that go through the network at once
AT_A_TIME = 20  # records to a file in the cache

Vectors = Float16[np.ndarray, "n *views d"]


def head_config(**data: float) -> HeadConfig:
    config = HeadConfig()
    config.data.view_size, config.data.views, config.data.batch_size, config.data.workers = SIDE, VIEWS, 256, 1
    config.data = dataclasses.replace(config.data, **data)
    return config


def arniqa_config() -> ArniqaConfig:
    config = ArniqaConfig()
    config.data.view_size, config.data.batch_size = SIDE, AT_A_TIME
    return config


def reiqa_config(momentum: float = 0.999, width: int = 128) -> ReiqaConfig:
    """A queue of four steps' keys, as in the paper."""
    config = ReiqaConfig()
    config.data.view_size, config.data.batch_size, config.data.copies = SIDE, AT_A_TIME, COPIES
    config.model.projection_dim, config.loss.queue, config.loss.momentum = width, 1024, momentum
    return config


def contrique_views(clean: Source, other: Source, broken: BrokenLog) -> tuple[Described, Described, Described]:
    """Distorted views of the clean photographs, undistorted ones of others, and undistorted ones of the clean ones, brought to
    the canvas as the distorted ones are."""
    sources = {"pristine": clean, "authentic": other}
    distorted_views, others = contrique_head.prepared(head_config(), sources, broken).values()
    undistorted = contrique_head.prepared(head_config(pristine_share=1.0), sources, broken)["pristine"]
    assert isinstance(undistorted, Described) and undistorted.classes is not None
    assert (undistorted.classes == PRISTINE).all()
    # view n of both is of one place: the next one's is another
    own = np.roll(undistorted.vectors.reshape(-1, VIEWS, *undistorted.vectors.shape[1:]), 1, axis=1)
    return distorted_views, others, Described(clean, own, None)  # type: ignore[return-value]


def arniqa_views(clean: Source, broken: BrokenLog) -> Float16[np.ndarray, "n 4 d"]:
    """Of each record both photographs at both sizes, as `recipes/arniqa` orders them."""
    return _made(arniqa, arniqa_config(), clean, VIEWS, broken)


def reiqa_views(photographs: Source, passes: int, broken: BrokenLog) -> Float16[np.ndarray, "n p 2 d"]:
    """Of each pass and photograph the pairs of crops that `recipes/reiqa` makes: copies at full size, then at half."""
    found = _made(reiqa, reiqa_config(), photographs, passes, broken)
    return found.reshape(len(found), -1, 2, found.shape[-1])


def _made(recipe: Any, config: Any, source: Source, passes: int, broken: BrokenLog) -> Vectors:
    """Of each record of `passes` passes through the source the statistics of all its crops, by the recipe's own rows."""
    model, trunk = HeadConfig().model, contrique_head.constants(HeadConfig())
    width, (role,) = encoder.feature_width(model.of_trunk), recipe.roles
    about = [recipe.name, dataclasses.asdict(config.data), [source.item_name(i) for i in range(len(source))]]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    store = KeptVectors(
        f"views/{content_hash(model.of_trunk, trunk)}-{name}", lambda kept: kept.shape[::2] == (AT_A_TIME, width)
    )
    finish = jax.jit(functools.partial(recipe.finish_row, config, 0), compiler_options=ONE_THREAD)
    encode = jax.jit(functools.partial(encoder.encode, model.of_trunk))
    trunk, found = jax.device_put(trunk), []
    for step in tqdm(range(passes * (len(source) // AT_A_TIME)), desc=f"{recipe.name} of {source.name}", disable=None):
        kept = store.get(f"{step:05}")
        if kept is None:
            (draws,) = recipe.draw(config, {role: source}, step, range(AT_A_TIME))
            rows = [recipe.load(config, {role: source}, 0, draws, row, broken) for row in range(AT_A_TIME)]
            crops = np.concatenate([np.asarray(finish(row)["views"]).reshape(-1, SIDE, SIDE, 3) for row in rows])
            vectors = [encode(trunk, crops[i : i + TOGETHER]) for i in range(0, len(crops), TOGETHER)]
            kept = as_halves(np.concatenate(vectors), model.trunk).reshape(AT_A_TIME, -1, width)
            store.put(f"{step:05}", kept)
        found.append(kept)
    return np.concatenate(found)


def unseen(paths: list[Path], network: Extractor) -> tuple[Unseen, np.ndarray]:
    """What is to be told of distorted photographs that no head has seen, and the network's features of them."""
    told = distorted(paths, with_images=False)
    name = hashlib.sha256(json.dumps([EACH, *map(str, paths)]).encode()).hexdigest()[:12]
    store = KeptVectors(
        f"views/{network.model_hash}-unseen", lambda kept: kept.shape == (len(told.scenes), 1, network.width)
    )
    kept = store.get(name)
    if kept is None:
        kept = as_halves(network.features(list(distorted(paths).images)), "lite0")[:, None]
        store.put(name, kept)
    return told, kept[:, 0].astype(np.float32)
