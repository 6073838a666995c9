"""`contrique-jax VERB ...`: every verb also runs as `python -m contrique_jax.VERB` (train: `contrique_jax.main`)."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from contrique_jax.errors import UserError, run_verb

VERBS = {
    "train": ("main", "train an encoder from a config; the same command again resumes"),
    "plan": ("plan", "what a step would cost on a TPU slice you do not have yet: memory, time, exchanges"),
    "configs": ("configs", "the config files inside this package, listed or copied"),
    "features": ("features", "two-scale features of images -> F.npz"),
    "evaluate": ("evaluate", "how well a ridge on the features predicts opinion scores; saves the probe"),
    "score": ("score", "quality scores of files and folders"),
    "bulk": ("bulk", "scores of a million images, in shards, on all cores or on a cluster (Apache Beam)"),
    "serve": ("serve", "a page to drop images on for their scores, and the same as JSON"),
    "models": ("models", "the models inside this package: size, what they were measured on, licences"),
    "gallery": ("gallery", "one image under every distortion at every level, on a sheet"),
    "demo": ("demo", "trains, probes, scores and draws on procedural scenes; minutes on two cores"),
    "distort": ("data.distort_folder", "a set of distorted images from a folder of photographs"),
    "convert": ("convert.__main__", "models and probes to and from PyTorch, ONNX, scikit-learn"),
}


def usage() -> str:
    lines = [f"  {verb:<10}{says}" for verb, (_, says) in VERBS.items()]
    return "\n".join(
        [
            "usage: contrique-jax VERB ...   (contrique-jax VERB --help has an example; --version)",
            "",
            *lines,
            "",
            "Example: contrique-jax score ~/photos --out scores.csv",
        ]
    )


def main(argv: Sequence[str]) -> None:
    """Hands the rest of the command line to the verb named first."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return
    if argv[0] == "--version":
        print(f"contrique-jax {importlib.metadata.version('contrique-jax')}")
        return
    verb, *rest = argv[1:] if argv[0] == "--" and len(argv) > 1 else argv
    if verb not in VERBS:
        raise UserError(f"unknown command {verb!r}; choose from {', '.join(VERBS)}.")
    importlib.import_module(f"contrique_jax.{VERBS[verb][0]}").main(rest)


def entry() -> None:
    """The console script."""
    sys.exit(run_verb(main))


if __name__ == "__main__":
    entry()
