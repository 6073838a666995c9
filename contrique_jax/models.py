"""The command `contrique-jax models`: what is inside this package and may be named as --model."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from contrique_jax.errors import Parser, UserError, run_verb
from contrique_jax.inference.pretrained import named_models, size
from contrique_jax.networks.weights_file import DEFAULT

# of a model's provenance, in this order
TOLD = ("start", "data", "steps", "probe", "maps", "measured", "weak", "commit")


def main(argv: Sequence[str]) -> None:
    """Raises UserError if this installation has no models."""
    parser = Parser(
        prog="contrique-jax models",
        description="The models inside this package: name, size, what they come from, what they were measured on, licences.",
        epilog=f"Example: contrique-jax models; contrique-jax score --model {DEFAULT} PHOTOS",
    )
    parser.parse_args(argv)
    models = named_models()
    if not models:
        raise UserError("models: this installation lacks its package data; install contrique-jax again.")
    for name, description in models.items():
        default = ", used if no model is named" if name == DEFAULT else ""
        encoder = description["architecture"]["encoder"]
        print(f"{name}: {encoder}, {size(name) / 1e6:.1f} MB with its probes{default}")
        told = {key: description["provenance"].get(key) for key in TOLD} | {"licence": description["licence"]}
        for key, value in told.items():
            for line in value if isinstance(value, list) else [value]:
                if line not in (None, ""):
                    print(textwrap.fill(f"{key}: {line}", 110, initial_indent="  ", subsequent_indent="    "))


if __name__ == "__main__":
    sys.exit(run_verb(main))
