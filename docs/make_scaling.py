"""Makes the table and the picture of results.md, how cost grows, from plans.

contrique-jax plan --config configs/contrique_resnet50.py --topology v5e:16x16 --config.data.batch_size=8192 --out plan.json
python docs/make_scaling.py plan.json ...   # adds or replaces these plans in scaling.json, then makes both anew
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
FIGURES, TEXT, PICTURE = HERE / "scaling.json", HERE / "results.md", HERE / "images" / "scaling.png"
BEGIN, END = "<!-- made by make_scaling.py -->", "<!-- end -->"
SERIES, SHARE = "v5p", 32  # the kind of chip and the images a chip of the series with growing batch
EXCHANGES = {
    "gradients": ("gradients",),
    "projections": ("loss: projections",),
    "sums of the loss": ("loss: class sums", "loss: denominators", "loss: sums"),  # the compiler joins some of them
}
PARTS = {
    "work": "arithmetic or memory, the longer",
    "exchange_bytes": "exchanges: bytes",
    "exchange_delay": "exchanges: delay",
}
COLOURS = ("#4c78a8", "#f58518", "#e45756")


def summed(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan with its collectives summed by purpose: [number, bytes] a step."""
    sums: dict[str, list[int]] = {}
    for one in plan.pop("collectives"):
        entry = sums.setdefault(one["purpose"], [0, 0])
        entry[0] += one["times"]
        entry[1] += one["times"] * one["bytes"]
    return plan | {"exchanges": sums}


def key(plan: dict[str, Any]) -> tuple[int, int, str, int]:
    return plan["devices"], plan["batch_size"], plan["topology"], plan["accumulation"]


def megabytes(plan: dict[str, Any], purposes: tuple[str, ...]) -> float:
    return sum(plan["exchanges"].get(purpose, [0, 0])[1] for purpose in purposes) / 1e6


def table(plans: list[dict[str, Any]]) -> str:
    head = [
        "chips",
        "topology",
        "images a step",
        "a chip",
        "memory [GB]",
        "TFLOP",
        "of it, float32 passes",
        "traffic [GB]",
    ]
    head += [
        "gradients [MB]",
        "projections [MB]",
        "sums of the loss [MB]",
        "exchanges",
        "step [ms]",
        "images/s",
        "compiled in [s]",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + " ---: |" * len(head)]
    for plan in plans:
        memory = (
            f"{plan['bytes_per_chip'] / 1e9:.2f}"
            if plan["fits"]
            else f"over {plan['bytes_per_chip'] / 1e9:.1f}: no fit"
        )
        cells = [
            plan["devices"],
            plan["topology"],
            plan["batch_size"],
            f"{plan['batch_size'] / plan['devices']:g}"
            + (f" in {plan['accumulation']} parts" if plan["accumulation"] > 1 else ""),
            memory,
        ]
        if plan["fits"]:
            passes = plan["float32_pass_flops_per_chip"] / 1e12
            cells += [f"{plan['flops_per_chip'] / 1e12 + passes:.3f}", f"{passes:.3f}"]
            cells += [f"{plan['bytes_moved_per_chip'] / 1e9:.1f}"]
            cells += [f"{megabytes(plan, purposes):.1f}" for purposes in EXCHANGES.values()]
            cells += [sum(number for number, _ in plan["exchanges"].values())]
            cells += [f"{1000 * plan['step_seconds']:.1f}", f"{plan['images_per_second']:,.0f}"]
        else:
            cells += [""] * 9
        lines.append("| " + " | ".join(map(str, [*cells, f"{plan['compile_seconds']:.0f}"])) + " |")
    return "\n".join(lines)


def draw(plans: list[dict[str, Any]]) -> None:
    series = [
        plan
        for plan in plans
        if plan["topology"].startswith(SERIES) and plan["fits"] and plan["batch_size"] == SHARE * plan["devices"]
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = [f"{plan['devices']}\n{plan['topology']}" for plan in series]
    floor = [0.0] * len(series)
    for (part, label), colour in zip(PARTS.items(), COLOURS, strict=True):
        heights = []
        for plan in series:
            times = plan["step_seconds_by_part"]
            heights.append(1000 * (max(times["arithmetic"], times["memory"]) if part == "work" else times[part]))
        left.bar(names, heights, bottom=floor, label=label, color=colour)
        floor = [low + high for low, high in zip(floor, heights, strict=True)]
    left.set(
        ylabel="milliseconds a step, at the chip's peaks",
        xlabel="chips",
        title=f"{SERIES}, {SHARE} images a chip: time",
    )
    left.set_ylim(top=1.35 * max(floor))
    left.legend(loc="upper right")
    chips = [plan["devices"] for plan in series]
    first = series[0]
    for name, label in (("flops_per_chip", "operations a chip"), ("bytes_moved_per_chip", "bytes moved in a chip")):
        right.plot(chips, [plan[name] / first[name] for plan in series], "o-", label=f"{label}, against one chip")
    many = [plan for plan in series if plan["devices"] > 1]
    for label, purposes in EXCHANGES.items():
        gigabytes = [megabytes(plan, purposes) / 1e3 for plan in many]
        right.plot([plan["devices"] for plan in many], gigabytes, "s--", label=f"{label} exchanged [GB]")
    right.set(xscale="log", yscale="log", xlabel="chips", title=f"{SERIES}, {SHARE} images a chip: work and exchanges")
    right.set_xticks(chips, [str(count) for count in chips])
    right.minorticks_off()
    right.set_ylim(top=1000)
    right.legend(fontsize=8, loc="upper left")
    figure.savefig(PICTURE, dpi=110)


def main(paths: list[str]) -> None:
    stored = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else []
    plans = {key(plan): plan for plan in stored}
    plans |= {
        key(plan): summed(plan) for plan in (json.loads(Path(path).read_text(encoding="utf-8")) for path in paths)
    }
    ordered = [plans[place] for place in sorted(plans)]
    FIGURES.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    before, rest = TEXT.read_text(encoding="utf-8").split(BEGIN)
    TEXT.write_text(f"{before}{BEGIN}\n\n{table(ordered)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    draw(ordered)


if __name__ == "__main__":
    main(sys.argv[1:])
