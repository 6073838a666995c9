"""The command `contrique-jax evaluate`: a ridge on the features against opinion scores, beside controls."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from contrique_jax.errors import run_verb
from contrique_jax.evaluation.flags import parse_flags
from contrique_jax.evaluation.report import write_report
from contrique_jax.evaluation.run import evaluate, save_json
from contrique_jax.io.machine import use_compilation_cache
from contrique_jax.io.outputs import output_path


def main(argv: Sequence[str]) -> None:
    """The command `contrique-jax evaluate`."""
    flags = parse_flags(argv)
    out = output_path("--out", flags.out, (".json",)) if flags.out else None
    probe_path = output_path("--probe", flags.probe, (".npz",)) if flags.probe else None
    page = output_path("--report", flags.report, (".html",)) if flags.report else None
    use_compilation_cache()
    outcome = evaluate(flags, with_curves=bool(page or flags.learning_curve))
    found = outcome.findings
    if probe_path:
        probe = outcome.probe()
        probe.save(probe_path)
        print(f"{probe_path}: probe fitted on all {len(found.images)} images, deviation {probe.deviation:.4g}")
    if out:
        save_json(out, found)
        print(f"{out}: written")
    if page:
        write_report(page, found)
        print(f"{page}: written")


if __name__ == "__main__":
    sys.exit(run_verb(main))
