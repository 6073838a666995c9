"""What a trained GRU over frames knows of the quality of videos beside the mean of the same frames and a GRU that has learned
nothing: the same trunk, the same videos, the same grouped splits.

  python -m contrique_jax.main --config configs/conviqt.py:small --workdir runs/conviqt ...
  python benchmarks/videos.py --run runs/conviqt --scores videos/scores.csv --frames FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy import stats

from contrique_jax.data.clips import blocks, frames
from contrique_jax.data.iqa_sets import ScoredImages, read_scores
from contrique_jax.data.sizes import to_shorter_side
from contrique_jax.evaluation.comparison import ModelResult, compare_models, median_intervals, standardised
from contrique_jax.evaluation.protocol import evaluate_features, make_splits
from contrique_jax.evaluation.tables import comparison_line, interval_text
from contrique_jax.inference.pretrained import choose_meter
from contrique_jax.inference.recipe_extractor import ClipExtractor
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import atomic_write
from contrique_jax.recipes.conviqt import recipe
from contrique_jax.training.load import load_any

SEEDS, SPLITS = 5, 20


def vectors_of(extractor: ClipExtractor, path: Path, folder: Path) -> np.ndarray:
    """[frames, 2 x inputs] of the trunk, kept in `folder`."""
    kept = folder / f"{path.stem}.{extractor.shorter_side}.npy"
    if not kept.exists():
        images = (to_shorter_side(frame.image, extractor.shorter_side or 1 << 30) for frame in frames(path))
        rows = [extractor.frames.of_frames(block) for block in blocks(images, extractor.block_frames)]
        with atomic_write(kept) as temporary, open(temporary, "wb") as stream:
            np.save(stream, np.concatenate(rows))
    return np.load(kept)


def of_clips(extractor: ClipExtractor, clips: list[np.ndarray]) -> np.ndarray:
    """As `score` pools a clip: the mean over blocks, weighted by their frames."""
    found = []
    for vectors in clips:
        parts = [vectors[i : i + extractor.block_frames] for i in range(0, len(vectors), extractor.block_frames)]
        found.append(np.average([extractor.of_vectors(part) for part in parts], 0, list(map(len, parts))))
    return np.stack(found)


def judged(name: str, features: np.ndarray, images: ScoredImages, base: ModelResult | None) -> ModelResult:
    """The protocol, a line of its medians with intervals, and what it is ahead of `base` on the same splits."""
    x = standardised(features) / np.sqrt(1000)  # for which the protocol's penalties are made
    splits = make_splits(images.groups, SPLITS, 0)
    found = evaluate_features(x, images.scores, splits, choose_alpha_by="leave-one-out", groups=images.groups)
    model = ModelResult(name, "", x, found)
    medians = median_intervals(model, images)
    print(
        f"{name}: " + ", ".join(f"{key.upper()} {interval_text(medians[key])}" for key in ("srocc", "plcc")), flush=True
    )
    if base is not None:
        print(f"  {comparison_line(compare_models(model, base, images))}", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="workdir or model folder of a CONVIQT model; without it only frames are computed")
    parser.add_argument("--scores", type=Path, required=True, help="csv: path, mos, group")
    parser.add_argument("--frames", type=Path, required=True, help="folder in which frames' vectors are kept")
    parser.add_argument("--shorter-side", type=int, default=180, help="of the frames [pixels] (default: %(default)s)")
    options = parser.parse_args()
    use_compilation_cache()
    options.frames.mkdir(parents=True, exist_ok=True)
    images, start = read_scores(options.scores), time.monotonic()
    config = recipe.Config()
    if options.run:
        config, variables = load_any(options.run)
    else:
        config.model.frame_features = "stages"
        config.model, variables = recipe.finished(config, recipe.init(config, 0), recipe.constants(config))
    trained = ClipExtractor(config, variables, shorter_side=options.shorter_side)
    clips = [vectors_of(trained, path, options.frames) for path in images.paths]
    print(f"{sum(map(len, clips))} frames of {len(clips)} clips, {time.monotonic() - start:.0f} s", flush=True)
    if not options.run:
        return
    base = judged("mean of frames", np.stack([vectors.mean(0) for vectors in clips]), images, None)
    judged("trained GRU", of_clips(trained, clips), images, base)
    for seed in range(SEEDS):
        drawn = recipe.init(config, seed)
        mixed = variables | {"params": variables["params"] | {"gru": drawn["params"]["gru"]}}
        random = ClipExtractor(config, mixed, shorter_side=options.shorter_side)
        judged(f"random GRU, seed {seed}", of_clips(random, clips), images, base)
    meter = choose_meter(None, None)
    scores = [float(np.mean(meter.probe.predict(vectors))) for vectors in clips]
    found = stats.spearmanr(scores, images.scores).statistic
    print(f"mean of the embedded model's frame scores, nothing fitted: SROCC {found:.3f} on all {len(clips)}")


if __name__ == "__main__":
    main()
