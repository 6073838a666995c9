"""Time and peak memory of the loss with its gradient, N = 1,024 to 65,536 projections of 128 numbers, on a CPU.

Four contestants, each to the size that fits into --gigabytes:
  blockwise            ours, contrique_jax.losses.nt_xent.nt_xent
  dense JAX            the ten lines of contrique_jax.losses.nt_xent.dense_nt_xent, jitted
  dense PyTorch        integer classes, masks by comparison (torch_contrique.dense_loss)
  original's PyTorch   as the original program: one-hot label matrices, and from them an N x N float mask, built on the host at
                       every step

Every (contestant, N) has a fresh process. Time is the best of up to ten runs within 20 s, compilation left out;
core seconds, the processor time of all threads, depend less on what else the machine does. Memory is measured,
not planned: the high-water mark of the process's resident memory during the first run at full size (VmHWM, reset just
before, after everything is imported, compiled and warm, and free heap pages are handed back), less what was resident then,
less the gradient. It takes Linux. Losses and gradients of all contestants must agree.

  python benchmarks/loss.py                       # 5 minutes; needs torch and matplotlib
  python benchmarks/loss.py --largest 4096 --out /tmp/loss.png
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WIDTH, TEMPERATURE, SYNTHETIC, PATCHES = 128, 0.1, 126, 4
SIZES = [1 << power for power in range(10, 17)]
Run = Callable[[], tuple[float, np.ndarray]]  # -> loss, gradient


def batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(z [count, WIDTH], classes [count]): two views, half the images synthetic, each authentic one a class of its own."""
    generator = np.random.default_rng(0)
    half = count // (2 * PATCHES) // 2
    images = np.stack([generator.integers(0, SYNTHETIC, half), SYNTHETIC + np.arange(half)], axis=1).reshape(-1)
    z = generator.standard_normal((count, WIDTH)).astype(np.float32)
    return z, np.tile(np.repeat(images, PATCHES), 2).astype(np.int32)


def in_jax(count: int, *, dense: bool) -> Run:
    import jax
    import jax.numpy as jnp

    from contrique_jax.config import LossConfig
    from contrique_jax.losses.nt_xent import dense_nt_xent, nt_xent

    z, classes = map(jnp.asarray, batch(count))

    def blockwise(z: jax.Array) -> jax.Array:
        return nt_xent(
            z,
            classes,
            num_classes=SYNTHETIC + count // (2 * PATCHES) // 2,
            temperature=TEMPERATURE,
            block_size=LossConfig().block_size,
        )

    def whole(z: jax.Array) -> jax.Array:
        return dense_nt_xent(z, classes, TEMPERATURE)

    compiled = jax.jit(jax.value_and_grad(whole if dense else blockwise)).lower(z).compile()

    def run() -> tuple[float, np.ndarray]:
        value, gradient = jax.block_until_ready(compiled(z))
        return float(value), np.asarray(gradient)

    return run


def in_torch(count: int, *, original: bool) -> Run:
    import torch
    from torch_contrique import dense_loss

    numbers, labels = batch(count)
    z, classes = torch.tensor(numbers, requires_grad=True), torch.tensor(labels.astype(np.int64))

    def run() -> tuple[float, np.ndarray]:
        z.grad = None
        loss = original_loss(z, classes) if original else dense_loss(z, classes, TEMPERATURE)
        loss.backward()
        return loss.item(), z.grad.numpy()

    return run


def original_loss(z, classes):
    """What the original computes and keeps: sparse times dense label matrices, and two N x N float masks."""
    import torch
    import torch.nn.functional as F

    one_hot = F.one_hot(classes, SYNTHETIC + len(z) // (2 * PATCHES) // 2).float()
    positives = (one_hot.to_sparse() @ one_hot.T).fill_diagonal_(0)
    others = torch.ones(len(z), len(z)).fill_diagonal_(0)
    unit = F.normalize(z, dim=1)
    similarity = unit @ unit.T / TEMPERATURE
    attraction = (similarity * positives).sum(1) / positives.sum(1)
    return ((torch.exp(similarity) * others).sum(1).log() - attraction).mean()


CONTESTANTS: dict[str, Callable[[int], Run]] = {
    "blockwise": lambda count: in_jax(count, dense=False),
    "dense JAX": lambda count: in_jax(count, dense=True),
    "dense PyTorch": lambda count: in_torch(count, original=False),
    "original's PyTorch": lambda count: in_torch(count, original=True),
}


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process [bytes]."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) * 1024


def measure(name: str, count: int) -> dict[str, float]:
    """One contestant at one size, in this process."""
    CONTESTANTS[name](256)()  # libraries, thread pools
    run = CONTESTANTS[name](count)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before, seconds, core_seconds = resident("VmRSS"), [], []
    while len(seconds) < 10 and sum(seconds) < 20:
        start, core_start = time.perf_counter(), time.process_time()
        loss, gradient = run()
        seconds.append(time.perf_counter() - start)
        core_seconds.append(time.process_time() - core_start)
        if len(seconds) == 1:
            peak = resident("VmHWM") - before - gradient.nbytes
    result = {"seconds": min(seconds), "core_seconds": min(core_seconds), "bytes": max(peak, 0)}
    return result | {"loss": loss, "gradient_norm": float(np.linalg.norm(gradient))}


def measured(name: str, count: int) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--largest", str(count)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} at N = {count} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def tournament(largest: int, gigabytes: float) -> dict[str, dict[int, dict[str, float]]]:
    """All contestants at all sizes, size by size, so that a noisy machine is noisy for all; prints as it goes."""
    results: dict[str, dict[int, dict[str, float]]] = {name: {} for name in CONTESTANTS}
    print(f"{'N':>6}  {'contestant':20} {'seconds':>9} {'core s':>9} {'MB':>9}")
    for count in (size for size in SIZES if size <= largest):
        for name, of_name in results.items():
            before = of_name.get(count // 2)
            # four times the last peak: what grows with N x N
            if count > SIZES[0] and (before is None or 4 * before["bytes"] > gigabytes * 1e9):
                continue
            of_name[count] = one = measured(name, count)
            times = f"{one['seconds']:9.3f} {one['core_seconds']:9.3f}"
            print(f"{count:6}  {name:20} {times} {one['bytes'] / 1e6:9.1f}", flush=True)
            ours = results["blockwise"][count]
            for what in ("loss", "gradient_norm"):
                if not math.isclose(one[what], ours[what], rel_tol=1e-4):
                    sys.exit(f"{name} at N = {count} disagrees about the {what}: {one[what]} and ours {ours[what]}")
    return results


def draw(results: dict[str, dict[int, dict[str, float]]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    panels[0].set(title="time of loss and gradient", ylabel="seconds")
    panels[1].set(title="peak memory beyond inputs and outputs", ylabel="MB")
    for panel, what, unit in zip(panels, ("seconds", "bytes"), (1, 1e6), strict=True):
        for (name, of_name), marker in zip(results.items(), "osD^", strict=True):
            # under a page nothing was seen to grow: at the foot of the picture
            values = [max(one[what], 4096) / unit if what == "bytes" else one[what] for one in of_name.values()]
            panel.plot(list(of_name), values, marker=marker, label=name, linewidth=2.5 if name == "blockwise" else 1.5)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        ticks = sorted({count for of_name in results.values() for count in of_name})
        panel.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=30)
        panel.set_xlabel("projections N (width 128)")
        panel.grid(alpha=0.3)
    panels[1].axhline(256, color="grey", linestyle=":", linewidth=1)
    panels[1].annotate("256 MB", (SIZES[0], 256), xytext=(0, 3), textcoords="offset points", color="grey")
    panels[0].legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="largest N")
    parser.add_argument("--gigabytes", type=float, default=6.0, help="a contestant stops before it would take more")
    parser.add_argument("--out", type=Path, default=Path("docs/images/loss.png"), help="the picture")
    parser.add_argument("--one", choices=CONTESTANTS, help="measure this one at N = --largest, here, and print JSON")
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(measure(flags.one, flags.largest)))
        return
    results = tournament(flags.largest, flags.gigabytes)
    at = max(results["original's PyTorch"])
    ours, theirs = results["blockwise"][at], results["original's PyTorch"][at]
    print(
        f"N = {at}: {ours['seconds'] / theirs['seconds']:.3f} of the original's time, "
        f"{ours['core_seconds'] / theirs['core_seconds']:.3f} of its core seconds, "
        f"{ours['bytes'] / 1e6:.0f} MB against {theirs['bytes'] / 1e6:.0f} MB"
    )
    draw(results, flags.out)
    print(flags.out)


if __name__ == "__main__":
    main()
