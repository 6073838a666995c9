"""`contrique-jax convert WHAT IN OUT`: models and probes to and from other programs, several models in one folder. The
sub-verb from-torch, say, is the function `from_torch(args)` with `from_torch_arguments(parser)`, in the module named below."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from contrique_jax.errors import Parser, UserError, run_verb

SUBVERBS = {
    "from-torch": (
        "from_torch",
        "a PyTorch checkpoint (CONTRIQUE, ARNIQA, Re-IQA, CONVIQT, AHIQ, timm ...) -> a model folder",
    ),
    "ensemble": ("ensemble", "models side by side -> one model folder"),
    "to-torch": ("to_torch", "a model -> a state dict for the original program or for torchvision"),
    "to-onnx": ("to_onnx", "a model -> an ONNX graph of the encoder"),
    "probe-from-sklearn": ("sklearn_probe", "a linear regressor of scikit-learn's -> a probe; a pickle is not run"),
    "probe-from-torch": ("torch_probe", "a regressor of ARNIQA's release -> a probe; it is not run"),
    "probe-to-sklearn": ("sklearn_probe", "a probe -> a scikit-learn Ridge"),
    "csv-from-original": ("original_csv", "the original's list of training images -> a manifest"),
    "csv-to-original": ("original_csv", "a manifest -> the original's list of training images"),
}


def usage() -> str:
    return "\n".join(
        [
            "usage: contrique-jax convert WHAT IN OUT   (contrique-jax convert WHAT --help has an example)",
            "",
            *(f"  {name:<20}{says}" for name, (_, says) in SUBVERBS.items()),
            "",
            "Example: contrique-jax convert from-torch checkpoint_25.tar models/original",
        ]
    )


def main(argv: Sequence[str]) -> None:
    """Hands the rest of the command line to the sub-verb named first."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return
    name, *rest = argv
    if name not in SUBVERBS:
        raise UserError(f"convert: unknown command {name!r}; choose from {', '.join(SUBVERBS)}.")
    module = importlib.import_module(f"contrique_jax.convert.{SUBVERBS[name][0]}")
    parser = Parser(prog=f"contrique-jax convert {name}")
    function = name.replace("-", "_")
    getattr(module, f"{function}_arguments")(parser)
    getattr(module, function)(parser.parse_args(rest))


if __name__ == "__main__":
    sys.exit(run_verb(main))
