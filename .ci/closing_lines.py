"""Fails if pytest's closing lines name skips that nobody expects, or a process that has grown too large."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument(
        "--may-skip", default="(?!)", help="expression that the reason of a skip must hold; default: none may"
    )
    parser.add_argument("--gigabytes", type=float, required=True, help="resident memory that no process may exceed")
    arguments = parser.parse_args()
    text = arguments.log.read_text(encoding="utf-8")
    (peaks,) = re.findall(r"^peak resident memory: (.+)$", text, re.M)
    wrong = [
        f"unexpected skip: {reason}"
        for reason in re.findall(r"^SKIPPED (.+)$", text, re.M)
        if not re.search(arguments.may_skip, reason.partition(": ")[2])
    ]
    wrong += [
        f"too large: {name} with {size} GB"
        for name, size in re.findall(r"(\S+) ([\d.]+) GB", peaks)
        if float(size) > arguments.gigabytes
    ]
    closing = re.findall(r"^.*\d+ passed.*$", text, re.M)
    print("\n".join([*(wrong or [f"no unexpected skip; {peaks}"]), *closing[-1:]]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
