"""Systems on opinions, trained on the maps of their frozen network: what opinions.py and student.py share.

Network, loss, optimiser, averaging and order are the recipe's under its `:small` config. Other than there the windows of an
image are a fixed number, whose maps are computed once, in place of new windows each step. Pairs, maps and results are kept in a
folder: an interrupted start goes on where it was.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from contrique_jax.data.bank_pairs import PAIRS, BankPairs
from contrique_jax.data.ms_ssim import ms_ssim
from contrique_jax.data.order import records
from contrique_jax.data.sources import open_source
from contrique_jax.evaluation.splits import short_hash
from contrique_jax.io.outputs import atomic_write
from contrique_jax.networks import ahiq, conformer, encoder, token_mixer
from contrique_jax.networks.layers import RUNNING, Statistics
from contrique_jax.networks.skeleton import moved, skeleton
from contrique_jax.recipes import recipe_of
from contrique_jax.recipes.ahiq import frozen as under_ahiq
from contrique_jax.recipes.conformer import frozen as under_conformer
from contrique_jax.recipes.opinions import judge
from contrique_jax.recipes.opinions.rows import Rows, crop
from contrique_jax.recipes.opinions.scale import fitted
from contrique_jax.recipes.recipe import Variables, row_keys
from contrique_jax.training import optim
from contrique_jax.training.flags import parse_flags

TAUGHT, JUDGED = 600, 300  # steps on a teacher's scores, and on opinions
CHUNK = 40  # images or pairs of one file
THROUGH, TOGETHER = 16, 32  # windows that go through the frozen network at once, and whose maps are judged at once

Maps = tuple[np.ndarray, ...]  # each [n, windows, h, w, c], float16
CORNERS = np.array([(0.0, 0.0), (0.0, 0.999), (0.999, 0.0), (0.999, 0.999)])  # test crops: a grid of 2 x 2


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of a file, which is made if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **made)
    with np.load(path) as arrays:
        return dict(arrays)


def windows(stack: np.ndarray, side: int, drawn: int, seed: Sequence[int], tested: bool) -> np.ndarray:
    """Of [k, h, w, 3] the same windows of all, [k, drawn (+ 4), s, s, 3]: so many anywhere, half of them mirrored, and then, if
    `tested`, the test crops of the `:small` configs."""
    generator = np.random.default_rng(seed)
    corners = [*generator.random((drawn, 2)), *(CORNERS if tested else [])]
    crops = np.stack([crop(stack, corner, side) for corner in corners], axis=1)
    for i in np.flatnonzero(generator.random(drawn) < 0.5):
        crops[:, i] = crops[:, i, :, ::-1]
    return crops


def kept_tree(path: Path, make: Callable[[], Any], like: Any) -> Any:
    """A tree of arrays of the structure of `like`, kept in a file."""

    def leaves() -> dict[str, Any]:
        return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(make()))}

    found = kept(path, leaves)
    return jax.tree.unflatten(jax.tree.structure(like), [found[str(i)] for i in range(len(found))])


class Bank:
    """Pairs [2, 256, 256, 3], distorted and as it was, of so many clean photographs, and MS-SSIM's `scores` of them."""

    def __init__(self, photographs: str, count: int, folder: Path):
        self._source = BankPairs(open_source(photographs, role="pristine", field="--photographs"), 0)
        chosen = np.random.default_rng(0).permutation(len(self._source) // PAIRS)[:count]
        self._numbers = [PAIRS * int(p) + k for p in chosen for k in range(PAIRS)]
        self.name = f"bank {short_hash([self._source.item_name(i) for i in range(0, len(self._source), PAIRS)])}"
        self._folder = folder / self.name
        self._chunk = functools.lru_cache(maxsize=2)(self._of_file)
        files = range(-(-len(self) // CHUNK))
        self.scores = np.concatenate([self._of_file(at)["scores"] for at in tqdm(files, desc="pairs, 40 each")])

    def __len__(self) -> int:
        return len(self._numbers)

    def pair(self, i: int) -> np.ndarray:
        return self._chunk(i // CHUNK)["pairs"][i % CHUNK]

    def _of_file(self, at: int) -> dict[str, np.ndarray]:
        def make() -> dict[str, Any]:
            pairs = np.stack([self._source.load(i) for i in self._numbers[CHUNK * at : CHUNK * (at + 1)]])
            return {"pairs": pairs, "scores": ms_ssim(pairs[:, 0], pairs[:, 1])}

        return kept(self._folder / f"{at:03d}.npz", make)


def _wide(maps: Any) -> Any:
    return None if maps is None else tuple(x.astype(jnp.float32) for x in maps)


class Halves(NamedTuple):
    """A recipe's network, cut where its frozen part ends."""

    maps: Callable[[Any, Any], tuple[Any, ...]]  # constants, images -> maps
    judge: Callable[
        ..., tuple[Any, Variables]
    ]  # variables, maps, the references', keys -> outputs, moved; keys None: no noise


def halves(config: Any) -> Halves:
    model = config.model
    if config.recipe == "ahiq":
        compares = skeleton(ahiq.Ahiq, model.widths, jnp.dtype(model.compute_dtype))
        return Halves(
            lambda frozen, images: tuple(under_ahiq.maps(model, frozen, images)),
            lambda variables, own, theirs, keys: (
                compares.bind(variables)(ahiq.Pair(*own), ahiq.Pair(*theirs)).score,
                {},
            ),
        )
    if config.recipe == "conformer":
        blocks = skeleton(conformer.Conformer, model.widths, jnp.dtype(model.compute_dtype))

        def of_blocks(variables: Variables, own: Any, theirs: Any, keys: Any) -> tuple[Any, Variables]:
            network = blocks.bind(variables)
            outputs = network(own[0], theirs[0], RUNNING if keys is None else Statistics(1), keys)
            return outputs, {"batch_stats": moved(network)}

        return Halves(lambda frozen, images: (under_conformer.maps(model, frozen, images),), of_blocks)

    def of_tokens(variables: Variables, own: Any, theirs: Any, keys: Any) -> tuple[Any, Variables]:
        found = token_mixer.judge(model.widths, variables, own, theirs, keys)
        if config.recipe == "student":
            return found.alone, {}
        return (found.beside if keys is None else found), {}

    return Halves(lambda frozen, images: encoder.last_two_maps(model.of_trunk, frozen, images), of_tokens)


class System:
    """A recipe under its `:small` config, whose maps and results are kept under `folder`."""

    def __init__(self, name: str, folder: Path, changed: Sequence[str] = ()):
        """`changed`: flags of a training, as --config.train.average=0.95."""
        self.config: Any = parse_flags(["--config", f"{name}.py:small", *changed, "--print_config"]).config
        self.recipe, self.name = recipe_of(self.config), name
        self.halves, self.side = halves(self.config), self.config.data.view_size
        self.folder = folder / f"{name} {short_hash([repr(self.config.model), repr(self.config.data), THROUGH])}"
        frozen = self.recipe.constants(self.config)
        self._through = functools.partial(jax.jit(self.halves.maps), frozen)
        self._judged = jax.jit(lambda variables, *maps: self.halves.judge(variables, *map(_wide, maps), None)[0])
        self._step = functools.lru_cache(maxsize=4)(self._compiled)

    def maps(self, name: str, windows: Callable[[int], np.ndarray], count: int) -> Maps:
        """Of `count` images; `windows(i)`: uint8 [w, s, s, 3], as many of each."""

        def of_chunk(at: int) -> dict[str, Any]:
            crops = np.stack([windows(i) for i in range(at, min(at + CHUNK, count))])
            flat = crops.reshape(-1, *crops.shape[2:])
            full = np.resize(flat, (-(-len(flat) // THROUGH) * THROUGH, *flat.shape[1:]))  # one shape for all
            found = [
                [np.asarray(x, np.float16) for x in self._through(full[i : i + THROUGH])]
                for i in range(0, len(full), THROUGH)
            ]
            whole = (np.concatenate(part)[: len(flat)] for part in zip(*found, strict=True))
            return {str(i): x.reshape(*crops.shape[:2], *x.shape[1:]) for i, x in enumerate(whole)}

        starts = tqdm(range(0, count, CHUNK), desc=f"{self.name}: maps of {name}, {CHUNK} each")
        files = [kept(self.folder / name / f"{at:05d}.npz", functools.partial(of_chunk, at)) for at in starts]
        return tuple(np.concatenate([file[part] for file in files]) for part in files[0])

    def fresh(self, seed: int) -> Variables:
        return self.recipe.init(self.config, seed)

    def targets(self, scores: np.ndarray, higher_is_better: bool) -> np.ndarray:
        return fitted(scores, higher_is_better, self.config.data.scaling, self.name).targets(scores)

    def trained(
        self, start: Variables, own: Maps, theirs: Maps | None, targets: np.ndarray, steps: int, seed: int,
        rows: Sequence[int] | np.ndarray | None = None,
    ) -> Variables:  # fmt: skip
        """What a run of so many steps from `start` gives; each step draws one window of each of its images, of all or of
        these `rows`, to which `targets` belong."""
        rule, step = self._step(steps)
        rows = np.arange(len(own[0])) if rows is None else np.asarray(rows)
        batch, generator = self.config.data.batch_size, np.random.default_rng(seed)
        variables, state = start, rule.init(start["params"])
        for number in range(steps):
            drawn = records(seed, number, 0, len(rows), batch)
            at = rows[drawn], generator.integers(0, own[0].shape[1], batch)
            maps, reference = (None if x is None else tuple(part[at] for part in x) for x in (own, theirs))
            variables, state = step(
                variables, state, number, maps, reference, targets[drawn].astype(np.float32), np.uint32(seed)
            )
        network = {"params": variables.get("average", variables["params"]), "batch_stats": variables["batch_stats"]}
        return judge.begun(self.config, jax.tree.map(np.asarray, network))

    def outputs(self, variables: Variables, own: Maps, theirs: Maps | None, rows: Any = None) -> np.ndarray:
        """Means over the windows of all images, or of these `rows`; higher is better."""
        rows = np.arange(len(own[0])) if rows is None else np.asarray(rows)
        windows = own[0].shape[1]
        image, window = np.repeat(rows, windows), np.tile(np.arange(windows), len(rows))
        full = np.resize(np.arange(len(image)), -(-len(image) // TOGETHER) * TOGETHER)  # one shape for all
        found = []
        for i in range(0, len(full), TOGETHER):
            at = image[full[i : i + TOGETHER]], window[full[i : i + TOGETHER]]
            maps, reference = (None if x is None else tuple(part[at] for part in x) for x in (own, theirs))
            found.append(np.asarray(self._judged(variables, maps, reference)))
        return np.concatenate(found)[: len(image)].reshape(len(rows), windows).mean(1)

    def _compiled(self, steps: int) -> tuple[Any, Any]:
        """The optimiser, and a step: (variables, its state, number, maps, references', targets, seed) -> (variables, state)."""
        config, recipe = self.config, self.recipe
        rule = optim.optimiser(config.optim, steps, recipe.decays(config, self.fresh(0)))

        @jax.jit
        def step(variables: Any, state: Any, number: Any, own: Any, theirs: Any, target: Any, seed: Any) -> Any:
            rows = len(target)
            paired = jnp.full(rows, float(theirs is not None))
            batch = Rows(target, target, paired, target, jnp.zeros((rows, 4)))  # of its images nothing is read
            keys = row_keys(seed, number, rows)

            def loss(params: Any) -> Any:
                maps = map(_wide, (own, theirs))
                outputs, changed = self.halves.judge(variables | {"params": params}, *maps, keys)
                one = jax.tree.map(lambda x: x[None], (outputs, batch))  # one device, as the loss's sums want a mesh
                found = jax.vmap(lambda o, b: recipe.objective(config, variables, o, b, "all")[0], axis_name="all")
                return found(*one)[0], changed

            gradient, changed = jax.grad(loss, has_aux=True)(variables["params"])
            updates, state = rule.update(gradient, state, variables["params"])
            variables = variables | changed | {"params": optax.apply_updates(variables["params"], updates)}
            return recipe.after_update(config, variables), state

        return rule, step
