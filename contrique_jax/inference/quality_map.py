"""Where in an image the quality is good and where it is not: the probe on overlapping windows of the network's maps.

One pass of the network gives the image's features and those of 13 x 13 windows, each a quarter of the height and of the
width (`pooling.window_means`). The embedded model knows what faults look like in a window (`probe.faults`). A probe of one's
own judges each window as it would an image, and finds a sharp subject better than the sky behind it. Either way the map is
shifted to have the image's score as its mean: it says how windows compare, the score how good the whole is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from contrique_jax.errors import UserError
from contrique_jax.inference.pretrained import Scale
from contrique_jax.io.outputs import atomic_write
from contrique_jax.networks.host_pooling import WINDOW, WINDOWS
from contrique_jax.probe import Probe
from contrique_jax.probe.faults import Faults

Map = Float[np.ndarray, "g g"]

SHOWN_SIDE = 1024  # of an overlay: the longer side at most [pixels]
SPAN = 0.12  # of the probe's range: that far from the image's score the colour is full
OPACITY = 0.65
# bytes of an image's name that its map has; file systems take 255, with what is added while it is written
LONGEST_NAME = 200
WORSE, BETTER = (214, 39, 20), (30, 96, 200)


def window_scores(probe: Probe, windows: Float[np.ndarray, "g g d"]) -> Map:
    """What the probe's coefficients say of each window, in its own units."""
    return probe.linear(windows.reshape(-1, windows.shape[-1])).reshape(windows.shape[:2])


def quality_map(
    probe: Probe,
    features: Float[np.ndarray, " d"],
    windows: Float[np.ndarray, "g g d"],
    scale: Scale | None = None,
    faults: Faults | None = None,
) -> Map:
    """The score of each window, float32, row by row from the top left: the mean is the image's own score.

    `faults` tells what windows lose; without, `probe` judges them. In the probe's units, or on `scale`, not cut off at its
    ends. Window (i, j) begins at i / 16 of the height and j / 16 of the width.
    """
    scores = faults.losses(windows, probe.higher_is_better) if faults else window_scores(probe, windows)
    scores += probe.predict(features[None])[0] - scores.mean()
    return (scores if scale is None else scale.unbounded(scores)).astype(np.float32)


def overlay(image: UInt8[np.ndarray, "h w 3"], scores: Map, probe: Probe, scale: Scale | None) -> Image.Image:
    """The image under its map, at most 1,024 pixels long: red for worse than the image's mean, blue for better, full
    colour at `SPAN` of the range."""
    ratio = min(SHOWN_SIDE / max(image.shape[:2]), 1)
    size = (max(round(image.shape[1] * ratio), 1), max(round(image.shape[0] * ratio), 1))
    shown = np.asarray(Image.fromarray(image).resize(size, reducing_gap=3.0), np.float32)
    span = SPAN * (100 if scale else max(abs(probe.score_high - probe.score_low), 1e-12))
    better = (scores - scores.mean()) / span * (1 if scale or probe.higher_is_better else -1)
    spread = _spread(np.clip(better, -1, 1), *size)[..., None]
    colour = np.where(spread < 0, np.array(WORSE, np.float32), np.array(BETTER, np.float32))
    opacity = OPACITY * np.abs(spread)
    return Image.fromarray(np.round(shown * (1 - opacity) + colour * opacity).astype(np.uint8))


def _spread(values: Map, width: int, height: int) -> Float[np.ndarray, "h w"]:
    """Values of windows between their centres, linearly; beyond the outermost centres they stay."""
    spacing = (1 - WINDOW) / (WINDOWS - 1)

    def weights(side: int) -> Float[np.ndarray, "side g"]:
        at = np.clip(((np.arange(side) + 0.5) / side - WINDOW / 2) / spacing, 0, WINDOWS - 1)
        return np.maximum(1 - np.abs(at[:, None] - np.arange(WINDOWS)), 0)

    return (weights(height) @ values @ weights(width).T).astype(np.float32)


class MapFolder:
    """The folder that `--map` names: NAME.map.png and NAME.map.npy for each image, both whole or not there."""

    def __init__(self, folder: str, paths: Sequence[Path]):
        """Makes the folder if need be. `paths`: of all images, whether or not they get a map now: those of one name have
        -2, -3, ... after it, in their order. Raises UserError if the folder cannot be made or written to."""
        self.folder = Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise UserError(f"--map: {folder} cannot be written to ({error.strerror}); name another folder.") from error
        self._names = dict(zip(paths, _distinct(_short(path.name) for path in paths), strict=True))

    def write(self, path: Path, scores: Map, picture: Image.Image) -> None:
        """Raises UserError if the disk is full."""
        name = self._names[path]
        with atomic_write(self.folder / f"{name}.map.png") as temporary, open(temporary, "wb") as stream:
            picture.save(stream, format="PNG")
        with atomic_write(self.folder / f"{name}.map.npy") as temporary, open(temporary, "wb") as stream:
            np.save(stream, scores)


def _short(name: str) -> str:
    """A file's name, without its middle if a longer one that has it would be no name."""
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2 - 2
    return f"{data[:half].decode(errors='ignore')}...{data[-half:].decode(errors='ignore')}"


def _distinct(names: Iterable[str]) -> Iterator[str]:
    taken: set[str] = set()
    counts: dict[str, int] = {}
    for name in names:
        found = name
        while found in taken:
            counts[name] = counts.get(name, 1) + 1
            found = f"{name}-{counts[name]}"
        taken.add(found)
        yield found
