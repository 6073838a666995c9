"""What the package does, start to end, in minutes on two cores and with nothing to fetch.

  make demo                             everything, into demo_out/
  contrique-jax demo --out demo_out     the same if contrique_jax[demo] is installed
  contrique-jax demo --short            every stage in about a minute, with too little training to learn anything

First the model inside the package, as it is: it scores procedural scenes under graded faults, shows where in an image a
fault lies, and names it. Then a head is trained on it, on other scenes: what the head knows of severity and kind of
distortions on scenes that it has never seen is set beside the same network without it, beside random weights, and beside
sharpness and noise measured by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from contrique_jax import demo_picture, demo_unseen
from contrique_jax.demo_picture import Graded, Local
from contrique_jax.errors import Parser, UserError, run_verb

if TYPE_CHECKING:
    from contrique_jax.demo_unseen import Unseen
    from contrique_jax.inference.meter import Model

SIDES = 384, 512
FAULTS = (1, 9, 10, 11)  # of the bank: Gaussian blur, JPEG2000, JPEG, white noise; a scene each
GRADES = (0, 3, 5)
LOCAL = ((1, (0, 256)), (10, (256, 512)))  # type, and the columns that have it


class Extent(NamedTuple):
    scenes: int  # unseen ones
    each: int  # distortions of each of these
    splits: int
    flags: tuple[str, ...] = ()  # of the training


EXTENT = Extent(60, 10, 10)
SHORT = Extent(
    20, 25, 2,
    (
        "--config.data.pristine=scenes:16", "--config.data.authentic=scenes:16", "--config.data.views=4",
        "--config.data.batch_size=32", "--config.train.steps=6", "--config.train.checkpoint_every=3",
    ),
)  # fmt: skip


def graded(model: Model) -> list[Graded]:
    """Scenes under faults in three grades, the best score first."""
    from contrique_jax import distort
    from contrique_jax.data.scenes import pristine_scene
    from contrique_jax.distort import bank

    images, told = [], []
    for number, kind in enumerate(FAULTS):
        scene = pristine_scene(demo_unseen.SEED, number, *SIDES)
        for grade in GRADES:
            images.append(np.asarray(distort.apply(scene, type=kind, level=grade, seed=number)) if grade else scene)
            told.append((bank.get(kind).name, grade))
    rows = zip(images, told, model.score(images), model.why(images), strict=True)
    found = [Graded(image, *what, float(score), reasons) for image, what, score, reasons in rows]
    return sorted(found, key=lambda one: -one.score)


def local(model: Model) -> list[Local]:
    from contrique_jax import distort
    from contrique_jax.data.scenes import pristine_scene
    from contrique_jax.distort import bank
    from contrique_jax.inference.quality_map import overlay

    found = []
    for number, (kind, (first, last)) in enumerate(LOCAL, start=len(FAULTS)):
        image = pristine_scene(demo_unseen.SEED, number, *SIDES).copy()
        image[:, first:last] = np.asarray(distort.apply(image, type=kind, level=5, seed=number))[:, first:last]
        scores = model.map(image)
        centre = (np.argmin(scores) % scores.shape[1] + 2) / 16 * SIDES[1]  # of the worst window
        assert model.probe is not None
        drawn = np.asarray(overlay(image, scores, model.probe, model.scale))
        found.append(Local(image, bank.get(kind).name, scores, drawn, bool(first <= centre <= last)))
    return found


def train(run: Path, *flags: str) -> None:
    """Trains the demo's head, or goes on where it was."""
    from contrique_jax import main as training

    line = [f"--config={Path(demo_unseen.__file__)}", f"--workdir={run}", "--distributed=off", *flags]
    print(f"contrique-jax train {' '.join(line)}", flush=True)
    training.main(line)


def frozen(told: Unseen) -> dict[str, Float[np.ndarray, "n d"]]:
    """Features of the unseen scenes that need no training, by name."""
    from contrique_jax.inference.extractor import Extractor
    from contrique_jax.training.load import load_network

    images = list(told.images)
    return {
        "frozen stages": Extractor(*load_network("lite0")).features(images),
        "random weights": Extractor(*load_network("random:lite0")).features(images),
        "sharpness and noise": demo_unseen.sharpness_and_noise(told.images),
    }


def of_head(run: Path, stages: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """The trained head's features from those of the network that it stands on, at both sizes."""
    import jax.numpy as jnp

    from contrique_jax.recipes.contrique_head.config import HeadModel
    from contrique_jax.recipes.contrique_head.recipe import of_statistics
    from contrique_jax.training.load import load_any

    config, variables = load_any(str(run))
    assert isinstance(config.model, HeadModel)
    model = dataclasses.replace(config.model, features="head")  # by default a run gives the stages beside it
    found = [of_statistics(model, variables, jnp.asarray(half)) for half in np.split(stages, 2, axis=1)]
    return np.concatenate([np.asarray(each) for each in found], axis=1)


def print_table(found: dict[str, dict[str, float]]) -> None:
    print(f"\n{'':20}{'severity within a kind':>24}{'kind, first of 25':>20}   of unseen scenes")
    for name, row in found.items():
        print(f"{name:20}{row['severity']:>24.3f}{row['kind']:>20.3f}")
    print("(severity: SROCC, mean of 25 kinds; kind: share named right at levels 3 to 5; ridges on frozen features)")
    print(
        "over five seeds: far above the last two; beside the stages level in severity, behind in kind (docs/results.md)"
    )


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax demo`."""
    parser = Parser(
        prog="contrique-jax demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: contrique-jax demo --short --out demo_out/short",
    )  # fmt: skip
    parser.add_argument("--out", default="demo_out", help="folder for everything (default: demo_out)")
    parser.add_argument("--short", action="store_true", help="every stage, with too little training to learn anything")
    flags = parser.parse_args(argv)
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "demo: its picture needs matplotlib, which is not installed; pip install 'contrique-jax[demo]'."
        )
    out, extent = Path(flags.out), SHORT if flags.short else EXTENT
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}; choose another folder.") from error
    start = time.monotonic()

    from contrique_jax.inference.meter import load
    from contrique_jax.io.machine import use_compilation_cache

    use_compilation_cache()
    print("== the model inside the package scores scenes under graded faults (0..100, higher is better)", flush=True)
    model = load()
    ordered, maps = graded(model), local(model)
    for one in ordered:
        said = "untouched" if not one.grade else f"{one.fault}, level {one.grade}"
        print(f"{one.score:5.1f}  {said:26} why: {', '.join(map(str, one.reasons[:2]))}")
    print("(what it names on untouched scenes means little: they are drawn, and it was fitted on photographs)")
    for place in maps:
        found = "in it" if place.found else "not in it"
        print(f"map of a scene with {place.fault} in one half: the worst window is {found}")

    print(f"\n== a head is trained on that model's frozen network ({time.monotonic() - start:.0f} s)", flush=True)
    run = out / "run"
    try:
        train(run, *extent.flags)
    except UserError as error:
        raise UserError(f"{error} (To start the demo afresh: rm -r {run})") from error
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    print(
        f"\n== {extent.scenes} unseen scenes under {extent.each} distortions each ({time.monotonic() - start:.0f} s)",
        flush=True,
    )
    told = demo_unseen.unseen(extent.scenes, extent.each)
    features = frozen(told)
    features = {"trained head": of_head(run, features["frozen stages"]), **features}
    numbers = {name: demo_unseen.measured(values, told, extent.splits) for name, values in features.items()}
    print_table(numbers)
    (out / "unseen.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    demo_picture.draw(out / "demo.png", ordered, maps, losses, numbers)
    print(f"\nthe picture: {out / 'demo.png'}   ({time.monotonic() - start:.0f} s in all)")
    if flags.short:
        print("this was the short form: every stage has run, and what the head has learnt means nothing")


if __name__ == "__main__":
    sys.exit(run_verb(main))
