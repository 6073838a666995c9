"""The parts of benchmarks/gpu.sh that need Python: what the machine is, whether its numbers are right, what feeds it.

python benchmarks/gpu.py pack --pristine PHOTOS/clean --authentic PHOTOS/mine --out .gpu --megabytes 50
python benchmarks/gpu.py devices                      # versions, and the two ceilings: products and copies
python benchmarks/gpu.py losses --kit .gpu            # 20 steps of one training on the CPU and on the accelerator
python benchmarks/gpu.py augment --kit .gpu           # distortions and views: the device's beside the host's, and its time
python benchmarks/gpu.py loader --kit .gpu            # images a second that the loader delivers, and a core's share
python benchmarks/gpu.py layers                       # an inverted residual block's layers one by one
python benchmarks/gpu.py weights RUN FILE.npz         # a run's newest weights, small enough to carry
python benchmarks/gpu.py model FILE.npz FOLDER        # a model folder of them
python benchmarks/gpu.py kernels TRACE                # what a profile's time went to
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import functools
import gzip
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from contrique_jax.augment.host_views import to_canvas
from contrique_jax.config import Config, DataConfig
from contrique_jax.data.decode import read
from contrique_jax.data.image_files import list_images
from contrique_jax.errors import UserError, run_verb
from contrique_jax.io.machine import available_cores

ROOT = Path(__file__).parents[1]
# dense bf16 TFLOP/s and memory GB/s of the makers' data sheets, by what the device calls itself
DATA_SHEETS = {"H200": (989, 4800), "H100": (989, 3350), "A100": (312, 2039), "L4": (121, 300)}
LEAST_MEMORY = 12e9  # bytes: a ResNet-50 step of 64 images of 256 pixels
LOSSES_AGREE = {"float32": 1e-3, "bfloat16": 2e-2}  # relative, over 20 steps


_held: list[IO[str]] = []  # open files, so that their locks last as long as this process


def turn(lock: Path | None) -> None:
    """Waits until this process is alone on the accelerator among those that share the file; it is, until it ends."""
    if lock is not None and not _held:
        _held.append(open(lock, "w"))  # noqa: SIM115
        fcntl.flock(_held[0], fcntl.LOCK_EX)


@contextlib.contextmanager
def paused(pid_file: Path | None) -> Iterator[None]:
    """Context: the process whose number the file holds stands still, if it lives; its work on the accelerator has ended."""
    pids = pid_file.read_text().split() if pid_file is not None and pid_file.exists() else []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it goes on if this process is ended meanwhile
    with contextlib.suppress(ProcessLookupError):
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)
            time.sleep(2)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            for pid in pids:
                os.kill(int(pid), signal.SIGCONT)


# here


def pack(options: argparse.Namespace) -> None:
    """Photographs as WebP files that fit `--megabytes`, half of it for each kind, drawn evenly from the sorted files."""
    for kind in ("pristine", "authentic"):
        folder = options.out / kind
        folder.mkdir(parents=True)
        paths = list_images([str(getattr(options, kind))])
        room, count, known = options.megabytes * 1e6 / 2, 0, collections.deque[int](maxlen=50)
        order = np.random.default_rng(0).permutation(len(paths))
        for number in order:
            image = read(paths[number])
            if kind == "pristine":
                image = to_canvas(image)
            else:
                small = Image.fromarray(image)
                small.thumbnail((448, 448), Image.Resampling.LANCZOS)
                image = np.asarray(small)
            file = io.BytesIO()
            Image.fromarray(image).save(file, "WEBP", quality=85, method=6)
            if file.tell() > room:
                break
            room -= file.tell()
            known.append(file.tell())
            (folder / f"{number:05}.webp").write_bytes(file.getvalue())
            count += 1
        print(f"{kind}: {count} of {len(paths)} photographs, {statistics.mean(known) / 1e3:.0f} kB each")


# there


def devices(options: argparse.Namespace) -> None:
    """Names, versions and measured ceilings. Raises UserError if no accelerator is there or it is too small."""
    import jax
    import jax.extend
    import jax.numpy as jnp
    import jaxlib

    try:
        device = jax.devices(options.platform)[0]
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"no {options.platform} device is visible to jax {jax.__version__} ({why}); see `nvidia-smi`: with a driver of "
            "580 or newer install jax[cuda13], with one of 525 or newer jax[cuda12]."
        ) from error
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    if options.platform != "cpu" and memory < LEAST_MEMORY:
        raise UserError(
            f"{device.device_kind}: {memory / 1e9:.1f} GB of its memory are free for jax, and {LEAST_MEMORY / 1e9:.0f} GB are "
            "needed; end what else runs on it, or name another by CUDA_VISIBLE_DEVICES."
        )
    print(
        f"{device.device_kind}, {memory / 1e9:.1f} GB for jax; {available_cores()} cores; Python {sys.version.split()[0]}"
    )
    platform_version = jax.extend.backend.get_backend(options.platform).platform_version
    versions = {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "backend": platform_version}
    for name in ("flax", "optax", "orbax.checkpoint", "torch"):
        with contextlib.suppress(ImportError):
            versions[name] = __import__(name, fromlist=["_"]).__version__
    print(", ".join(f"{name} {' '.join(str(version).split())}" for name, version in versions.items()))

    side, copied = options.side, options.side**2 * 16

    @jax.jit
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return a @ b

    key = jax.random.key(0)
    a, b = (jax.random.normal(k, (side, side), jnp.bfloat16) for k in jax.random.split(key))
    tflops = 2 * side**3 / seconds_of(lambda: product(a, b)) / 1e12
    big = jax.random.normal(key, (copied // 4,), jnp.float32)
    step = jax.jit(lambda x: x + 1)
    gbs = 2 * copied / seconds_of(lambda: step(big)) / 1e9
    print(f"measured: {tflops:.0f} TFLOP/s in a bf16 product of side {side}, {gbs:.0f} GB/s read and written")
    sheet = next((peaks for name, peaks in DATA_SHEETS.items() if name in device.device_kind), (tflops, gbs))
    print(f"ceilings used below: {sheet[0]:.0f} TFLOP/s, {sheet[1]:.0f} GB/s")
    if options.peaks:
        options.peaks.write_text(f"--peak-tflops {sheet[0]:.3f} --peak-gbs {sheet[1]:.1f}\n")


def seconds_of(run) -> float:
    """The median of seven runs, each of four calls, after two that warm up."""
    import jax

    jax.block_until_ready([run(), run()])
    times = []
    for _ in range(7):
        start = time.perf_counter()
        jax.block_until_ready([run() for _ in range(4)])
        times.append((time.perf_counter() - start) / 4)
    return statistics.median(times)


def config_of(options: argparse.Namespace, **changes: object) -> Config:
    """The paper's data settings on the kit's photographs, or smaller ones for a trial."""
    data = DataConfig(
        str(options.kit / "pristine"), str(options.kit / "authentic"), batch_size=options.images,
        height=options.canvas, width=options.canvas * 4 // 3, view_size=options.view,
        loader="threads", cache_gigabytes=16.0,
    )  # fmt: skip
    return Config(data=dataclasses.replace(data, **changes))  # type: ignore[arg-type]


def pipeline_of(config: Config, batch: int):
    from contrique_jax.data.broken import BrokenLog
    from contrique_jax.data.pipeline import Pipeline
    from contrique_jax.data.sources import CachedSource, open_source
    from contrique_jax.recipes.contrique import recipe

    canvas = (config.data.height, config.data.width)
    sources = {
        role: CachedSource(open_source(getattr(config.data, role), role=role, field=role, canvas=canvas), 16 << 30)
        for role in ("pristine", "authentic")
    }
    return Pipeline(config, recipe, sources, rows=range(batch), broken=BrokenLog())


def losses(options: argparse.Namespace) -> None:
    """20 steps of a small training on both platforms; raises UserError if the losses do not agree."""
    folder = options.out / "losses"
    folder.mkdir(parents=True, exist_ok=True)
    for role in ("pristine", "authentic"):
        paths = list_images([str(options.kit / role)])[:64]
        np.save(folder / f"{role}.npy", np.stack([to_canvas(read(path), 96, 128) for path in paths]))
    runs = {}
    dtypes = ("float32",) if options.platform == "cpu" else ("float32", "bfloat16")  # which a CPU emulates
    for platform, dtype in (("cpu", "float32"), *((options.platform, dtype) for dtype in dtypes)):
        name = f"{platform}_{dtype}_{len(runs)}"
        flags = [
            f"--config={ROOT / 'configs' / 'contrique_resnet50.py'}:small", f"--workdir={folder / name}",
            *(f"--config.data.{role}=arrays:{folder / role}.npy" for role in ("pristine", "authentic")),
            "--config.model.base_width=32", "--config.optim.learning_rate=1e-4",
            "--config.data.height=96", "--config.data.width=128", "--config.data.view_size=64",
            "--config.data.loader=threads", f"--config.model.compute_dtype={dtype}",
            "--config.train.steps=20", "--config.train.checkpoint_every=20", "--config.train.log_every=20",
        ]  # fmt: skip
        environment = os.environ | {"JAX_PLATFORMS": ",".join(dict.fromkeys((platform, "cpu")))}
        log = open(folder / f"{name}.log", "w")  # noqa: SIM115 - as long as the process lives
        command = [sys.executable, "-m", "contrique_jax.main", *flags]
        runs[name] = (dtype, log, subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    found = {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the trainings end with this process
    try:
        codes = {name: process.wait() for name, (_, _, process) in runs.items()}
    finally:
        for _, log, process in runs.values():
            process.kill()
            log.close()
    for name, code in codes.items():
        if code:
            raise UserError(f"{name}: the training ended with {code}: {(folder / f'{name}.log').read_text()[-800:]}")
        lines = (folder / name / "metrics.jsonl").read_text().splitlines()
        found[name] = np.array([json.loads(line)["loss"] for line in lines])
    reference = next(iter(found.values()))
    print(f"20 losses on the CPU, float32: {reference[0]:.5f} .. {reference[-1]:.5f}")
    worst = []
    for name, (dtype, _, _) in list(runs.items())[1:]:
        apart = np.abs(found[name] / reference - 1)
        ends = f"{found[name][0]:.5f} .. {found[name][-1]:.5f}"
        print(f"{name}: {ends}, at most {apart.max():.1e} apart (first step {apart[0]:.1e})")
        worst += [name] if apart.max() > LOSSES_AGREE[dtype] else []
    if worst:
        raise UserError(f"losses do not agree with the CPU's: {', '.join(worst)}.")


def augment(options: argparse.Namespace) -> None:
    """Distortion and views of one batch on the device: equal to the host's within a code? How long?"""
    import jax

    from contrique_jax.training import mesh
    from contrique_jax.training.step import make_finish

    config = config_of(options, augment_on="device")
    rows = next(pipeline_of(config, options.images).batches(0, 1))
    run = mesh.start(options.images, 1)
    placed = run.place(rows)
    start = time.perf_counter()
    finish = jax.jit(make_finish(config, run)).lower(placed).compile()
    print(f"distortions and views on the device compiled in {time.perf_counter() - start:.0f} s", flush=True)
    host = next(pipeline_of(config_of(options), options.images).batches(0, 1))
    turn(options.turn)
    views, classes = jax.device_get(finish(placed))
    np.testing.assert_array_equal(classes, host.classes)
    apart = np.abs(views.astype(np.int16) - host.views)
    apart = np.minimum(apart, 256 - apart)  # hue, and Lab's a and b, go round
    kinds = np.where(classes < 125, classes // 5 + 1, np.where(classes == 125, 0, -1))
    shares = {int(kind): float((apart[kinds == kind] <= 1).mean()) for kind in np.unique(kinds)}
    print(f"within one code of the host's: {(apart <= 1).mean():.5f} of all values; equal: {(apart == 0).mean():.5f}")
    low = sorted(shares.items(), key=lambda item: item[1])[:5]
    print("lowest by type (0 undistorted, -1 authentic): " + ", ".join(f"{kind}: {share:.4f}" for kind, share in low))
    times = []
    with paused(options.pause):
        for _ in range(options.repeats):
            start = time.perf_counter()
            jax.block_until_ready(finish(placed))
            times.append(time.perf_counter() - start)
        if options.profile:
            with jax.profiler.trace(str(options.profile)):
                jax.block_until_ready(finish(placed))
    print(f"distortions and views of {options.images} images: {1e3 * statistics.median(times):.1f} ms", flush=True)
    if (apart <= 1).mean() < 0.99:
        raise UserError("device distortions are not within one code of the host's on 99 % of the values.")


def loader(options: argparse.Namespace) -> None:
    """Images a second that the threads loader delivers once everything is decoded, by where the distortions are taken."""
    for where in ("device", "host"):
        batches = pipeline_of(config_of(options, augment_on=where), options.images).batches(0, 10**6)
        warm = -(
            -max(len(list_images([str(options.kit / role)])) for role in ("pristine", "authentic"))
            // (options.images // 2)
        )
        for _ in range(warm + 1):
            next(batches)
        with paused(options.pause):
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < options.seconds:
                next(batches)
                count += 1
            rate = count * options.images / (time.perf_counter() - start)
        batches.close()  # type: ignore[attr-defined]
        print(
            f"loader, distortions on the {where}: {rate:.0f} images/s, {rate / available_cores():.0f} a core",
            flush=True,
        )


def layers(options: argparse.Namespace) -> None:
    """Milliseconds of the layers of an inverted residual block, in bf16, depthwise ones in both formulations."""
    import jax
    import jax.numpy as jnp

    from contrique_jax.networks.convolution import convolve
    from contrique_jax.networks.depthwise import LAX, TAPS

    keys, side = jax.random.split(jax.random.key(0), 3), options.side
    x = jax.random.normal(keys[0], (options.images, side, side, 96), jnp.bfloat16)
    pointwise = jax.random.normal(keys[1], (1, 1, 96, 24), jnp.bfloat16)

    def both(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, 1, 0), x, kernel)
        return pull(y)

    runs = {"1x1, 96 to 24": (lambda x, k: convolve(x, k, 1, 0), pointwise), "1x1, with gradients": (both, pointwise)}
    for size in (3, 5):
        kernel = jax.random.normal(keys[2], (size, size, 1, 96), jnp.bfloat16)
        pads = ((size // 2, size // 2),) * 2
        for name, own in (("library", LAX), ("taps", TAPS)):
            runs[f"depthwise {size}x{size}, {name}"] = (lambda x, k, own=own, p=pads: own.value(x, k, 1, p), kernel)
            runs[f"depthwise {size}x{size}, {name}, gradients"] = (
                lambda x, k, own=own, p=pads: own.gradients(x, k, x, 1, p),
                kernel,
            )
    compiled = {name: jax.jit(run).lower(x, kernel).compile() for name, (run, kernel) in runs.items()}
    turn(options.turn)
    with paused(options.pause):
        for name, (_, kernel) in runs.items():
            seconds = seconds_of(functools.partial(compiled[name], x, kernel))
            print(f"{options.images}x{side}x{side}x96, {name}: {1e3 * seconds:.2f} ms", flush=True)


def weights(options: argparse.Namespace) -> None:
    """A run's newest weights in one file: parameters in float16, statistics in float32, the architecture as JSON."""
    from flax.traverse_util import flatten_dict

    from contrique_jax.training.checkpoint import load_for_inference

    model, variables = load_for_inference(options.run_folder)
    flat = flatten_dict(variables, sep="/")
    arrays = {name: np.asarray(x, np.float16 if name.startswith("params") else np.float32) for name, x in flat.items()}
    part = options.file.with_name(f".{options.file.name}")
    np.savez(part, model=json.dumps(dataclasses.asdict(model)), **arrays)
    part.replace(options.file)


def model(options: argparse.Namespace) -> None:
    """A model folder of what `weights` wrote."""
    from flax.traverse_util import unflatten_dict

    from contrique_jax.config import ModelConfig
    from contrique_jax.networks.model_folder import save_model

    with np.load(options.file) as stored:
        config = ModelConfig(**json.loads(str(stored["model"])))
        variables = unflatten_dict({n: np.asarray(stored[n], np.float32) for n in stored if n != "model"}, sep="/")
    save_model(options.run_folder, config, variables, provenance={"weights": options.file.name})


def kernels(options: argparse.Namespace) -> None:
    """The largest shares of a trace's time on the device, by kernel."""
    for path in sorted(options.trace.rglob("*.trace.json.gz")):
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
        names = {
            (event["pid"], event.get("tid")): event["args"]["name"]
            for event in events
            if event.get("ph") == "M" and event["name"] in ("process_name", "thread_name")
        }
        busy: dict[str, float] = collections.defaultdict(float)
        count: dict[str, int] = collections.defaultdict(int)
        for event in events:
            process, thread = (
                names.get((event.get("pid"), None), ""),
                names.get((event.get("pid"), event.get("tid")), ""),
            )
            if event.get("ph") == "X" and "device" in process.lower() and "stream" in thread.lower():
                busy[event["name"]] += event["dur"]
                count[event["name"]] += 1
        total = sum(busy.values()) or 1.0
        print(f"\n{path.parent.name}: {total / 1e3:.1f} ms busy in {sum(count.values())} kernels")
        for name, spent in sorted(busy.items(), key=lambda item: -item[1])[: options.most]:
            print(f"{spent / 1e3:9.2f} ms {spent / total:6.1%} {count[name]:6} x {name[:110]}")


def main(argv) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)

    def verb(function, **arguments) -> None:
        sub = verbs.add_parser(function.__name__, help=function.__doc__.split("\n")[0])
        sub.set_defaults(run=function)
        for name, (kind, default) in arguments.items():
            positional = name in ("trace", "run_folder", "file")
            sub.add_argument(
                name if positional else f"--{name}", type=kind, **({} if positional else {"default": default})
            )

    kit = {"kit": (Path, Path(".gpu")), "platform": (str, "cuda")}
    sizes = {"images": (int, 512), "canvas": (int, 384), "view": (int, 256)}
    verb(pack, pristine=(Path, None), authentic=(Path, None), out=(Path, None), megabytes=(float, 50.0))
    verb(devices, platform=(str, "cuda"), side=(int, 8192), peaks=(Path, None))
    verb(losses, out=(Path, Path(".")), **kit)
    verb(augment, turn=(Path, None), pause=(Path, None), repeats=(int, 7), profile=(Path, None), **kit, **sizes)
    verb(loader, pause=(Path, None), seconds=(float, 5.0), **kit, **sizes)
    verb(layers, turn=(Path, None), pause=(Path, None), images=(int, 256), side=(int, 64))
    verb(weights, run_folder=(Path, None), file=(Path, None))
    verb(model, file=(Path, None), run_folder=(Path, None))
    verb(kernels, trace=(Path, None), most=(int, 25))
    options = parser.parse_args(argv)
    options.run(options)


if __name__ == "__main__":
    sys.exit(run_verb(main))
