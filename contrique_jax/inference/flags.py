"""Flags of every command that takes images through a network."""

from __future__ import annotations

import argparse

from contrique_jax.data.sizes import MAX_MEGAPIXELS
from contrique_jax.networks.weights_file import DEFAULT


def add_model_flags(parser: argparse.ArgumentParser, default: str | None = DEFAULT) -> None:
    """--model, --max-megapixels and --memory."""
    parser.add_argument(
        "--model", default=default, metavar="M",
        help="a model folder, a run's workdir, a checkpoint in it, or a name of `contrique-jax models`; random:M has random "
        f"weights (default: {DEFAULT}, which is inside this package)",
    )  # fmt: skip
    parser.add_argument(
        "--max-megapixels", type=float, default=MAX_MEGAPIXELS, metavar="X",
        help="scale larger images down to this (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=float, metavar="GB",
        help="for the maps of one image: computed in tiles above that, scaled down where tiles are not enough (default: half "
        "of what is free)",
    )  # fmt: skip
