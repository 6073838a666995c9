"""Views per second of the training step at 256x256, beside a plain PyTorch step of the same network (ResNet-50) and loss.

On a CPU both run in float32: PyTorch in its default layout and channels-last. On a GPU both run in bf16: PyTorch
channels-last, autocast and compiled. Ours reports its operations, traffic and memory, and with the chip's peaks what share
of the roofline bound (the larger of operations over peak and bytes over bandwidth) it reaches. The programs take turns in
one process, so that a noisy machine is noisy for all; the ratio is of medians. A turn is several steps, as in a training,
and its first is not timed: it finds the memory as the other program left it.

  python benchmarks/train_step.py            # 8 images, 16 views
  python benchmarks/train_step.py --images 32 64 128 256 --peak-tflops 989 --peak-gbs 3350 --profile traces    # an H100
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
import jax
import numpy as np
from gpu import paused, turn

from contrique_jax.config import Config, DataConfig, ModelConfig
from contrique_jax.planning.hlo_text import Module, product_flops
from contrique_jax.training import mesh
from contrique_jax.training.step import init_state, make_step

STEPS = 2  # timed ones of a turn


def ours(images: int, views: np.ndarray, classes: np.ndarray, model: ModelConfig):
    """-> (a function that runs one step and waits, its operations, the compiled program, seconds of compilation)."""
    config = Config(data=DataConfig(batch_size=images), model=model)
    run = mesh.start(images, devices=1)
    state = run.replicate(init_state(config, 1000))
    placed = run.place((views.swapaxes(0, 1), classes))
    start = time.perf_counter()
    traced = make_step(config, run, 1000).trace(state, placed)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - start
    cell = [state]

    def step() -> None:
        cell[0], measures = compiled(cell[0], placed)
        jax.block_until_ready((cell[0], measures))

    return step, flops_of(traced), compiled, seconds


def flops_of(traced: jax.stages.Traced) -> int:
    """Operations of the step's products and convolutions, as lowered for a CPU: a GPU's libraries hide theirs."""
    text = traced.lower(lowering_platforms=("cpu",)).as_text(dialect="hlo")
    return sum(met.times * product_flops(met) for met in Module(text).met)


def theirs(views: np.ndarray, classes: np.ndarray, *, channels_last: bool, gpu: bool):
    """The plain PyTorch step -> a function that runs one step and waits."""
    import torch
    from torch_contrique import TorchContrique, dense_loss

    device = torch.device("cuda" if gpu else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = TorchContrique().to(device, memory_format=layout)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=1e-4)
    x = [
        torch.tensor(view).permute(0, 3, 1, 2).to(device).float().div(255).contiguous(memory_format=layout)
        for view in views
    ]
    labels = torch.tensor(np.tile(np.repeat(classes, 4), 2)).to(device)
    forward = torch.compile(model, dynamic=False) if gpu else model

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu):
            z = torch.cat([forward(x[0]), forward(x[1])])
        dense_loss(z, labels).backward()
        optimiser.step()
        if gpu:
            torch.cuda.synchronize()

    return step


def batch_of(images: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Random views uint8 [2, images, side, side, 3] and the classes of as many synthetic as authentic images."""
    generator = np.random.default_rng(0)
    views = generator.integers(0, 256, (2, images, side, side, 3), dtype=np.uint8)
    half = images // 2
    classes = np.stack([generator.integers(0, 126, half), 126 + np.arange(half)], axis=1).reshape(-1).astype(np.int32)
    return views, classes


def measure(images: int, compiled: Future, options: argparse.Namespace) -> None:
    """Times all contestants at one batch and prints a line for each."""
    gpu, side = jax.default_backend() == "gpu", options.view
    contestants = {}
    if not options.no_torch and images <= options.torch_up_to:
        if "torch" in sys.modules:
            sys.modules["torch"]._dynamo.reset()  # each batch a program of its own
        batch = batch_of(images, side)
        if not gpu:
            contestants["PyTorch, default layout"] = theirs(*batch, channels_last=False, gpu=False)
        name = "PyTorch, channels-last" + (", autocast, compiled" if gpu else "")
        contestants[name] = theirs(*batch, channels_last=True, gpu=gpu)
        for run in contestants.values():  # PyTorch compiles now, while XLA does
            run()
    step, flops, program, compile_seconds = compiled.result()
    contestants = {"contrique_jax": step} | contestants
    turn(options.turn)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with paused(options.pause):
        for run in contestants.values():  # warm up
            run()
            run()
        for _ in range(options.rounds):
            for name, run in contestants.items():
                run()
                for _ in range(STEPS):
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
        if options.profile:
            with jax.profiler.trace(str(options.profile / f"{options.encoder}_{images}")):
                for _ in range(3):
                    step()
    if options.program:
        options.program.mkdir(parents=True, exist_ok=True)
        with gzip.open(options.program / f"{options.encoder}_{images}.txt.gz", "wt") as file:
            file.write(program.as_text())
    typical = {name: statistics.median(seconds) for name, seconds in times.items()}
    device = jax.devices()[0]
    print(
        f"\n{device.device_kind}; {options.encoder}, {2 * images} views of {side}x{side}; compiled in {compile_seconds:.0f} s"
    )
    for name, seconds in typical.items():
        ratio = seconds / typical["contrique_jax"]
        print(
            f"{name:<44}{2 * images / seconds:8.1f} views/s   {1e3 * seconds:7.1f} ms   ours is {ratio:.2f} x as fast"
        )
    moved, memory = Module(program.as_text()).main_memory_bytes(), program.memory_analysis()
    planned = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use", planned)
    print(
        f"a step of ours: {flops / 1e12:.3g} TFLOP, {moved / 1e9:.3g} GB of traffic, {peak / 1e9:.3g} GB held at most"
    )
    if options.peak_tflops and options.peak_gbs:
        bounds = {"arithmetic": flops / options.peak_tflops / 1e12, "memory": moved / options.peak_gbs / 1e9}
        name = max(bounds, key=lambda bound: bounds[bound])
        share = bounds[name] / typical["contrique_jax"]
        print(
            f"roofline: {1000 * bounds['arithmetic']:.1f} ms of arithmetic, {1000 * bounds['memory']:.1f} ms of memory; "
            f"the step reaches {share:.1%} of the longer, {name}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=[8],
        help="images a step, two views each; several, rising: one after another",
    )
    parser.add_argument("--rounds", type=int, default=4, help="turns of each")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="the chip's dense bf16 peak, for the bound")
    parser.add_argument("--peak-gbs", type=float, default=0.0, help="its memory's GB/s, for the bound")
    parser.add_argument(
        "--profile", type=Path, help="a folder for traces of three steps of ours, for TensorBoard or Perfetto"
    )
    parser.add_argument("--encoder", default="resnet50", help="with another than resnet50 say --no-torch")
    parser.add_argument("--view", type=int, default=256, help="side of a view [pixels]")
    parser.add_argument("--program", type=Path, help="a folder for the compiled programs as text")
    parser.add_argument("--turn", type=Path, help="a file by which processes take turns on the accelerator")
    parser.add_argument(
        "--pause", type=Path, help="a file with the number of a process to pause while something is timed"
    )
    parser.add_argument("--torch-up-to", type=int, default=10**6, metavar="N", help="no PyTorch at larger batches")
    parser.add_argument("--no-torch", action="store_true", help="time ours alone")
    options = parser.parse_args()
    dtype = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    model = ModelConfig(encoder=options.encoder, compute_dtype=dtype)
    with ThreadPoolExecutor(len(options.images)) as pool:
        programs = [pool.submit(ours, images, *batch_of(images, options.view), model) for images in options.images]
        while programs:
            measure(options.images[-len(programs)], programs.pop(0), options)
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()


if __name__ == "__main__":
    main()
