"""Reading compiled text: which collectives a step has, and what its loops cost when every turn counts.

XLA's own cost analysis counts the body of a loop once. Here each instruction is met with the number of times it runs: the
product of the turns of the loops around it, as far as the text says how many they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f8e4m3fn": 8, "f8e5m2": 8, "c64": 64, "c128": 128, "token": 0}
# a product of float32 matrices is made of this many of bfloat16 ones on a matrix unit
PASSES = {"highest": 6, "high": 3}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+)(?: \(.*-> .*)? \{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
# instructions whose result is (what goes in, what comes out, counters)
_STARTS = ("slice-start", "all-gather-start", "collective-permute-start", "all-to-all-start")
# instructions that move nothing
FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "async-start",
    "call-start",
)


class Shape(NamedTuple):
    """One array of a result."""

    dtype: str
    sizes: tuple[int, ...]
    on_chip: bool  # kept in the chip's own memory, beside the main one

    @property
    def bytes(self) -> int:
        return math.prod(self.sizes) * (BITS.get(self.dtype) or int("0" + re.sub(r"\D", "", self.dtype))) // 8


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # what stands between the parentheses
    attributes: str

    @property
    def results(self) -> tuple[Shape, ...]:
        """The arrays that come out; the start of a copy or an exchange lists what goes in, and counters, beside them."""
        count = len(self.operands)
        if self.opcode == "copy-start":
            return self.shapes[:count]
        if self.opcode in _STARTS:
            return self.shapes[count : 2 * count]
        return self.shapes

    @property
    def source(self) -> str:
        """The JAX operation it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found.group(1) if found else ""


class Met(NamedTuple):
    """An instruction as the whole program runs it."""

    instruction: Instruction
    shapes: dict[str, tuple[Shape, ...]]  # of the names around it
    times: int
    fused: bool  # inside a fusion: what it reads and writes stays within


@dataclass(frozen=True)
class Collective:
    """Devices exchanging data; `bytes` is what one device has at the end of one exchange, of a reduce-scatter at its start."""

    kind: str
    bytes: int
    arrays: int
    largest: tuple[int, ...]  # shape of the largest array
    times: int  # a step
    source: str


class Module:
    """A compiled program."""

    def __init__(self, text: str):
        """`text` is what `compiled.as_text()` gives."""
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        self.unknown_loops = 0  # loops whose number of turns the text does not say; met once
        current: list[Instruction] = []
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                current = self.computations.setdefault(header.group(2), [])
                self.entry = header.group(2) if header.group(1) else self.entry
            elif " = " in line and line.startswith(" "):
                current.append(_instruction(line))
        self.met = list(self._walk(self.entry, 1, False))

    def collectives(self) -> list[Collective]:
        """In the order of the program; an exchange that starts and ends in two instructions counts once."""
        found = []
        for instruction, around, times, _ in self.met:
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                shapes = instruction.results
                if kind == "reduce-scatter":
                    shapes = tuple(shape for name in instruction.operands for shape in around.get(name, ()))
                size = sum(shape.bytes for shape in shapes)
                largest = max(shapes, key=lambda shape: shape.bytes).sizes
                found.append(Collective(kind, size, len(shapes), largest, times, instruction.source))
        return found

    def repeated_flops(self) -> int:
        """Operations of matrix products and convolutions in loops, beyond the first turn."""
        return sum((met.times - 1) * product_flops(met) for met in self.met if met.times > 1)

    def main_memory_bytes(self) -> int:
        """Bytes read from and written to the main memory, every turn counted; what stays in a chip's own memory is not."""
        return sum(met.times * self.moved_bytes(met) for met in self.met if not met.fused)

    def further_passes(self) -> int:
        """Operations that a matrix unit adds for float32 precision, every turn counted."""
        return sum(met.times * product_flops(met) * (_passes(met) - 1) for met in self.met)

    def moved_bytes(self, met: Met) -> int:
        """What an instruction reads and writes in the main memory; of an array of which it takes or sets a slice, the slice."""
        instruction = met.instruction
        if instruction.opcode in FREE or instruction.opcode.endswith("-done"):
            return 0
        moved = 0
        for place, name in enumerate(instruction.operands):
            whole = sum(shape.bytes for shape in met.shapes.get(name, ()) if not shape.on_chip)
            touched = self._touched(instruction, place, met.shapes) if whole else 0
            moved += whole if touched is None else min(whole, touched)
        called = _called(instruction) if instruction.opcode == "fusion" else []
        last = self._root(called[0]) if called else instruction
        if last.opcode == "dynamic-update-slice":
            inside = self._shapes(called[0]) if called else met.shapes
            written = _bytes(inside.get(last.operands[1], ()))
            return moved + (0 if instruction.shapes[0].on_chip else written)
        return moved + sum(shape.bytes for shape in instruction.results if not shape.on_chip)

    def _root(self, computation: str) -> Instruction:
        """What a computation ends with, whatever shape it is then given."""
        named = {instruction.name: instruction for instruction in self.computations[computation]}
        last = self.computations[computation][-1]
        while last.opcode == "bitcast" and last.operands[0] in named:
            last = named[last.operands[0]]
        return last

    def _touched(self, instruction: Instruction, place: int, shapes: dict[str, tuple[Shape, ...]]) -> int | None:
        """Bytes that `instruction` needs of its operand at `place`, or None if it needs the whole of it."""
        if instruction.opcode in ("dynamic-slice", "slice", "gather"):
            return _bytes(instruction.shapes) if place == 0 else 0
        if instruction.opcode == "slice-start":
            return _bytes(instruction.results)
        if instruction.opcode == "dynamic-update-slice" and place == 0:
            return 0  # the rest stays as it is
        if instruction.opcode != "fusion":
            return None
        called = _called(instruction)[0]
        inside, total = self.computations[called], 0
        names = {i.name for i in inside if i.opcode == "parameter" and i.arguments == str(place)}
        for user in inside:
            if user.opcode == "bitcast" and names & set(user.operands):
                names.add(user.name)  # the same array under another shape
                continue
            for at, name in enumerate(user.operands):
                if user.opcode != "parameter" and name in names:
                    part = self._touched(user, at, self._shapes(called))
                    if part is None:
                        return None
                    total += part
        return total

    def _shapes(self, computation: str) -> dict[str, tuple[Shape, ...]]:
        return {instruction.name: instruction.shapes for instruction in self.computations[computation]}

    def _walk(self, computation: str, times: int, fused: bool) -> Iterator[Met]:
        instructions = self.computations.get(computation, [])
        shapes = self._shapes(computation) if instructions else {}
        for instruction in instructions:
            yield Met(instruction, shapes, times, fused)
            turns = self._turns(instruction, instructions) if instruction.opcode == "while" else 1
            inside = fused or instruction.opcode not in ("while", "conditional", "call", "async-start")
            for called in _called(instruction):
                yield from self._walk(called, times * turns, inside)

    def _turns(self, loop: Instruction, around: list[Instruction]) -> int:
        """How often a loop turns: as the compiler says, or by its condition `counter < constant`, which JAX counts from 0."""
        said = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if said:
            return int(said.group(1))
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        tests = self.computations.get(condition.group(1), []) if condition else []
        whole = [i for i in tests if i.shapes and i.shapes[0].dtype in ("s32", "s64", "u32", "u64")]
        constants = {i.name: int(i.arguments) for i in whole if i.opcode == "constant" and i.arguments.isdigit()}
        counters = [i.name for i in whole if i.opcode == "get-tuple-element"]
        compared = [i for i in tests if i.opcode == "compare" and "direction=LT" in i.attributes]
        if len(compared) == 1 and compared[0].operands[0] in counters and compared[0].operands[1] in constants:
            return constants[compared[0].operands[-1]]
        self.unknown_loops += 1
        return 1


def product_flops(met: Met) -> int:
    """Multiplications and additions of a matrix product or convolution, padding left out; 0 for all else."""
    instruction = met.instruction
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (met.shapes[name][0] for name in instruction.operands[:2])
    out = instruction.shapes[0].sizes
    if instruction.opcode == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        places = [int(place) for place in contracted.group(1).split(",") if place] if contracted else []
        return 2 * math.prod(out) * math.prod(left.sizes[place] for place in places)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels, f"a convolution without dimension labels: {instruction.name}"
    of_left, of_right, of_out = labels.groups()
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    parts = dict(part.split("=") for part in window.group(1).split()) if window else {}
    pairs = 1
    for place, axis in enumerate(sorted(label for label in of_out if label.isdigit())):
        numbers = {key: value.split("x")[place] for key, value in parts.items()}
        pairs *= _valid_pairs(
            left.sizes[of_left.index(axis)], right.sizes[of_right.index(axis)], out[of_out.index(axis)], numbers
        )
    return 2 * pairs * out[of_out.index("b")] * out[of_out.index("f")] * right.sizes[of_right.index("i")]


def _passes(met: Met) -> int:
    precision = re.search(r"operand_precision=\{(\w+)", met.instruction.attributes)
    if precision is None or met.instruction.opcode not in ("dot", "convolution"):
        return 1
    return PASSES.get(precision.group(1), 1) if met.shapes[met.instruction.operands[0]][0].dtype == "f32" else 1


def _valid_pairs(size: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Pairs of an output and a kernel position along one axis that meet an input and no padding or dilation."""
    stride, left_step = int(window.get("stride", 1)), int(window.get("lhs_dilate", 1))
    kernel_step, padding = int(window.get("rhs_dilate", 1)), int(window.get("pad", "0_0").split("_")[0])
    spread = (size - 1) * left_step + 1
    count = 0
    for k in range(kernel):
        first = k * kernel_step - padding
        if left_step == 1:
            low, high = max(-(first // stride), 0), min((spread - 1 - first) // stride, out - 1)
            count += max(high - low + 1, 0)
        else:
            places = (o * stride + first for o in range(out))
            count += sum(0 <= place < spread and place % left_step == 0 for place in places)
    return count


def _bytes(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.bytes for shape in shapes)


def _called(instruction: Instruction) -> list[str]:
    if instruction.opcode in COLLECTIVES or instruction.opcode.startswith(("all-reduce", "reduce", "sort", "scatter")):
        return []  # they call an addition or a comparison of two numbers
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    more = re.findall(r"%?([\w.\-]+)", branches.group(1)) if branches else []
    return _CALLED.findall(instruction.attributes) + more


def _closing(text: str, start: int) -> int:
    """The place of the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return len(text)


def _instruction(line: str) -> Instruction:
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
    result_end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result, call = rest[:result_end], rest[result_end:].strip()
    opening = call.index("(")
    closing = _closing(call, opening)
    arguments = call[opening + 1 : closing]
    # before compilation names have no sign before them, and then no shapes around them
    operands = re.findall(r"%([\w.\-]+)" if "%" in arguments else r"[A-Za-z_][\w.\-]*", arguments)
    name, attributes = name.removeprefix("%"), call[closing + 1 :]
    return Instruction(name, shapes_of(result), call[:opening], tuple(operands), arguments, attributes)


def shapes_of(result: str) -> tuple[Shape, ...]:
    """`bf16[8,4]{1,0}` or a tuple of such -> its arrays."""
    return tuple(
        Shape(dtype, tuple(int(size) for size in sizes.split(",") if size), "S(1)" in layout)
        for dtype, sizes, layout in _ARRAY.findall(result)
    )
