"""`contrique-jax convert probe-from-torch regressor_SET.pth OUT.npz`: ARNIQA's regressor as a probe."""

from __future__ import annotations

import argparse
from pathlib import Path

from contrique_jax.convert.script_regressor import read_script
from contrique_jax.convert.sklearn_probe import StoredRidge, probe_arguments, save_probe
from contrique_jax.io.outputs import output_path

# by the names of the original's files: the scale of the scores, and whether more is better [ARNIQA hubconf.py:14-35]
SCALES = {
    "live": (1.0, 100.0, False), "csiq": (0.0, 1.0, False), "tid2013": (0.0, 9.0, True), "kadid10k": (1.0, 5.0, True),
    "flive": (1.0, 100.0, True), "spaq": (1.0, 100.0, True), "clive": (1.0, 100.0, True), "koniq10k": (1.0, 100.0, True),
}  # fmt: skip


def probe_from_torch_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "A regressor of ARNIQA's release (a TorchScript program with weights and biases) as a probe for contrique-jax score. "
        "Nothing in the file is run, and PyTorch is not needed. Scores come out on the data set's own scale, which is known "
        f"for regressor_SET.pth of {', '.join(SCALES)}; the original then maps it to 0..1, higher is better."
    )
    parser.epilog = (
        "Example: contrique-jax convert probe-from-torch regressor_koniq10k.pth koniq.npz --model models/arniqa"
    )
    parser.add_argument("ridge", metavar="REGRESSOR.pth")
    probe_arguments(parser)


def probe_from_torch(args: argparse.Namespace) -> None:
    """Raises UserError for a file that is no such regressor, and if neither its name nor flags tell range and direction."""
    out, path = output_path("OUT", args.out, (".npz",)), Path(args.ridge).expanduser()
    held = read_script(path)
    data_set = path.stem.removeprefix("regressor_")
    names = ("score_low", "score_high", "higher_is_better")
    told = dict(zip(names, SCALES.get(data_set, ()), strict=False)) | {"data_set": data_set}
    save_probe(args, out, path, StoredRidge(held["coef_"], held["intercept_"], held["alpha"], told))
