"""Flags that the commands about distortions share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from contrique_jax.distort import bank
from contrique_jax.errors import UserError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """--type, --seed, --minmax."""
    parser.add_argument(
        "--type", action="append", metavar="N[,N...]", help="1 to 25; may be repeated, e.g. --type 1,2 --type 10"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn; default 0")
    parser.add_argument(
        "--minmax",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stretch values to the whole range before and after, as KADIS-700k does (default), or clip",
    )


def numbers(flag: str, given: Sequence[str], most: int) -> tuple[int, ...]:
    """Lists such as "1,2,10" -> the numbers, ascending. Raises UserError if one is not a number from 1 to `most`."""
    words = [word.strip() for text in given for word in text.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= most):
            raise UserError(f"{flag} {word or repr(word)}: give numbers from 1 to {most}, e.g. {flag} 1,2.")
    return tuple(sorted({int(word) for word in words}))


def types(given: Sequence[str] | None) -> tuple[int, ...]:
    """The types that --type names, all of them if it is not given. Raises UserError for one that there is not."""
    if not given:
        return bank.TYPES
    return numbers("--type", given, bank.NUM_TYPES)
