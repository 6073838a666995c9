"""Pickles whose tuples hold tuples that hold tuples: a few bytes, whose hash, as a key of a dict, takes hours."""

from __future__ import annotations

import pickletools
from typing import IO, Any

MOST_PARTS = 100_000


def endless_tuples(stream: IO[bytes]) -> bool:
    """Whether a pickle makes a tuple that has more than MOST_PARTS parts, those of its tuples counted each time they are
    named. Nothing is made of it; damage is not looked for."""
    stack: list[int | None] = []  # how many parts each value has; None: a mark
    memo: dict[Any, int] = {}
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "MARK":
                stack.append(None)
            elif name.endswith("GET"):
                stack.append(memo[argument])
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1] or 1
            elif name.endswith("PUT"):
                memo[argument] = stack[-1] or 1
            elif name == "DUP":
                stack.append(stack[-1])
            else:
                parts = _taken(stack, opcode.stack_before)
                size = 1 + sum(parts) if "TUPLE" in name else 1
                if size > MOST_PARTS:
                    return True
                stack += [size] * len(opcode.stack_after)
    except Exception:  # whoever reads it says so
        return False
    return False


def _taken(stack: list[int | None], before: list[Any]) -> list[int]:
    """Takes off the stack what an opcode takes; its parts."""
    parts: list[int] = []
    if pickletools.markobject in before:
        while (part := stack.pop()) is not None:
            parts.append(part)
    for _ in range(before.index(pickletools.markobject) if pickletools.markobject in before else len(before)):
        parts.append(stack.pop() or 1)
    return parts
