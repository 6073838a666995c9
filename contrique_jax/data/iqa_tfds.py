"""TensorFlow Datasets builders of the public data sets with opinion scores, from the same table of layouts.

python -m contrique_jax.data.iqa_tfds kadid10k --manual-dir downloads/kadid10k --data-dir ~/tensorflow_datasets

prepares one from the folder that its authors' archives unpacked to; afterwards `tfds:iqa_kadid10k/whole` is a source.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrique_jax.data.iqa_sets import ScoredImages, read_set
from contrique_jax.data.iqa_sets.layouts import LAYOUTS, Layout, layout_of
from contrique_jax.errors import Parser, UserError, run_verb

VERSION = "1.0.0"
WHOLE = "whole"  # the one split of a data set whose authors give none


def builder_class(name: str) -> type:
    """The GeneratorBasedBuilder `iqa_NAME` of a data set in iqa_layouts.LAYOUTS. Imports TensorFlow.

    Splits: the authors' own, or `whole`. Features: `image`, the authors' file byte for byte; `score` float32; `group` and
    `subset` text (`subset` empty if there is none); `name`, the path within the data set; `reference`, the pristine
    image, if there is one. `metadata` of the info has range, direction and the shorter side that images are meant to
    be scaled to. `manual_dir` is the folder of the data set. Raises UserError for an unknown name or folder.
    """
    return _builder_class(_key(layout_of(name, "data set")))


@functools.cache  # TensorFlow Datasets registers a class by its name, once
def _builder_class(key: str) -> type:
    layout = LAYOUTS[key]
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"data set {key!r} needs tensorflow and tensorflow-datasets ({error}).") from error
    features: dict[str, Any] = {
        "image": tfds.features.Image(),
        "score": tfds.features.Scalar(np.float32),
        "group": tfds.features.Text(),
        "subset": tfds.features.Text(),
        "name": tfds.features.Text(),
    }
    if layout.references:
        features["reference"] = tfds.features.Image()

    def info(self: Any) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{layout.name}: {layout.images} images with opinion scores.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(facts(layout)),
        )

    def split_generators(self: Any, dl_manager: Any) -> dict[str, Any]:
        folder = Path(dl_manager.manual_dir)
        images = read_set(key, folder, with_references=bool(layout.references), field="manual_dir")
        parts = images.official_split or [WHOLE] * len(images)
        return {
            part: examples(images.subset([i for i, of in enumerate(parts) if of == part]))
            for part in dict.fromkeys(parts)
        }

    members = {
        "VERSION": tfds.core.Version(VERSION),
        "MANUAL_DOWNLOAD_INSTRUCTIONS": f"manual_dir is the folder that the archives of {layout.name} unpacked to.",
        "pkg_dir_path": Path(__file__).parent,
        "code_path": Path(__file__),  # where it looks for lists of downloads; left to itself it needs one more package
        "name": f"iqa_{key}",
        "__module__": __name__,
        "_info": info,
        "_split_generators": split_generators,
        "_generate_examples": lambda self, images: examples(images),
    }
    return type(f"Iqa{key.capitalize()}", (tfds.core.GeneratorBasedBuilder,), members)


def examples(images: ScoredImages) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, example) of every image."""
    for i, path in enumerate(images.paths):
        name = path.relative_to(images.folder).as_posix()
        example = {
            "image": str(path),
            "score": float(images.scores[i]),
            "group": images.groups[i],
            "subset": images.subsets[i] if images.subsets else "",
            "name": name,
        }
        if images.references is not None:
            example["reference"] = str(images.references[i])
        yield name, example


def facts(layout: Layout) -> dict[str, Any]:
    """What the scores mean, as plain values."""
    return {
        "higher_is_better": layout.higher_is_better,
        "score_range": None if layout.score_range is None else list(layout.score_range),
        "grouping": layout.grouping,
        "shorter_side": layout.shorter_side,
    }


def prepare(name: str, manual_dir: str | Path, data_dir: str | Path) -> Any:
    """Writes the data set under `data_dir` and returns its builder. Raises UserError as `read_set` does."""
    builder = builder_class(name)(data_dir=str(Path(data_dir).expanduser()))
    import tensorflow_datasets as tfds

    folder = str(Path(manual_dir).expanduser().resolve())
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
    return builder


def _key(layout: Layout) -> str:
    return next(key for key, value in LAYOUTS.items() if value is layout)


def main(argv: Sequence[str]) -> None:
    """The command `python -m contrique_jax.data.iqa_tfds`."""
    parser = Parser(
        prog="python -m contrique_jax.data.iqa_tfds",
        description="Prepares a public data set with opinion scores for TensorFlow Datasets; downloads nothing.",
        epilog="Example: python -m contrique_jax.data.iqa_tfds koniq10k --manual-dir koniq10k --data-dir tfds",
    )
    parser.add_argument("name", help=", ".join(LAYOUTS))
    parser.add_argument("--manual-dir", required=True, metavar="DIR", help="where the authors' archives unpacked to")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="where prepared data sets are kept")
    flags = parser.parse_args(argv)
    if not Path(flags.manual_dir).expanduser().is_dir():
        raise UserError(f"--manual-dir: there is no folder {flags.manual_dir}.")
    builder = prepare(flags.name, flags.manual_dir, flags.data_dir)
    for split, found in builder.info.splits.items():
        print(f"{builder.info.full_name}/{split}: {found.num_examples} images")


if __name__ == "__main__":
    sys.exit(run_verb(main))
