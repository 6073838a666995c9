"""Breaks tiny trainings and scorings in every way that machines do, and prints of how many tries each one survived.

  python benchmarks/crash.py            # all of it: an hour on two cores, more if they are shared
  python benchmarks/crash.py --quick    # one or two tries of each
  python benchmarks/crash.py --only killed,full_disk --jobs 2 --seed 7

A try survives if the command ends as it should (exit code and sentence, never a traceback) and the same command then goes on to
the numbers of a run that nothing broke: all losses bit for bit, or the whole csv. What does not is printed with what was said.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from crash_bench import STEPS, Bench, end, losses, reach, refusal, saved_step

# what every Python of the bench imports first: time.time() a day ahead, a day behind, or either by chance at every look
CLOCK = """
import os, random, time
tell, way, looks = time.time, os.environ.get("CLOCK_JUMPS"), []
def jumping():
    looks.append(0)
    day = {"f": 86400, "b": -86400, "r": random.randrange(-86400, 86400)}[way]
    return tell() + (day if len(looks) > 100 else 0)
if way:
    time.time = jumping
"""

ONCE = threading.Lock()  # around what tries of several threads share


def killed(bench: Bench, chance: random.Random) -> str | None:
    workdir = bench.new()
    job = bench.start(bench.train(workdir))
    time.sleep(chance.uniform(0, bench.seconds))
    job.kill()
    end(job)
    return bench.resumed(workdir)


def terminated_one_of_two(bench: Bench, chance: random.Random, tries: int) -> Iterator[str | None]:
    """One run of two processes, stopped by a signal to either of them and resumed, again and again."""
    flags = f"--config.train.steps={8 * tries + 8}"
    whole, workdir = bench.new(), bench.new()
    for job in bench.together(2, whole, flags):
        end(job)
    for number in range(1, tries + 1):
        jobs = bench.together(2, workdir, flags)
        reach(workdir, len(losses(workdir)) + chance.randint(2, 5), *jobs)
        chance.choice(jobs).send_signal(signal.SIGTERM)
        ends = [end(job) for job in jobs]
        saved = saved_step(workdir)
        good = [code for code, _ in ends] == [0, 0] and saved == len(losses(workdir)) > 0
        if number == tries and good:
            ends = [end(job) for job in bench.together(2, workdir, flags)]
            good = not any(code for code, _ in ends) and losses(workdir) == losses(whole)
        yield None if good else f"codes and words {[(code, said[-300:]) for code, said in ends]}, saved {saved}"


def other_numbers_of_processes(bench: Bench, chance: random.Random, tries: int) -> Iterator[str | None]:
    """Killed on some processes of a device each, resumed on others: up to the checkpoint bit for bit what as many processes
    give that nothing breaks; the first loss after it to rounding; the others as near as rounding, which training makes
    grow, leaves runs that nothing breaks (on 1 and on 4 processes a thousandth after 15 steps)."""
    few = ["--config.optim.learning_rate=0.0005", "--config.data.batch_size=8"]  # four devices divide it
    whole: dict[int, list[float]] = {}
    for count in (1, 2, 4):
        workdir = bench.new()
        for job in bench.together(count, workdir, *few):
            end(job)
        whole[count] = losses(workdir)
    for before, after in ([(1, 2), (2, 4), (4, 1)] * tries)[:tries]:
        workdir = bench.new()
        jobs = bench.together(before, workdir, *few)
        reach(workdir, chance.randint(4, 10), *jobs)
        jobs[-1].kill()
        begun = [end(job) for job in jobs] and len(losses(workdir)) >= 4
        saved = saved_step(workdir)
        ends = [end(job) for job in bench.together(after, workdir, *few)]
        found, expected = losses(workdir), whole[before]
        good = begun and saved and len(found) == STEPS and not any(code for code, _ in ends)
        apart = np.abs(np.divide(found, expected) - 1) if good else np.full(STEPS, np.inf)
        good = good and not apart[:saved].any() and apart[saved] <= 1e-5 and apart.max() <= 1e-2
        words = [(code, said[-300:]) for code, said in ends]
        yield None if good else f"{before} to {after}, saved {saved}, relatively {apart} apart: {words}"


def mounted(place: Path, size: int, remount: bool = False) -> bool:
    """A tmpfs of so many bytes at `place`, if this process may."""
    options = f"{'remount,' if remount else ''}size={size}"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
    return done.returncode == 0


def on_a_full_disk(
    bench: Bench, size: int, command: Callable[[Path], list[str]], checked: Callable[[Path], str | None]
) -> str | None:
    """The command with a disk of `size` bytes, then the same with enough; without mounts, with files of `size` at most."""
    place = bench.new()
    place.mkdir()
    disk = mounted(place, size)
    try:
        code, said = bench.run(command(place), **({} if disk else {"file_limit": size}))
        fault = refusal(code, said, "no space left", "there is no space for it") if code else None
        if disk:
            mounted(place, 1 << 28, remount=True)
        return fault or checked(place)
    finally:
        if disk:
            ctypes.CDLL(None).umount(str(place).encode())


def full_disk(bench: Bench, chance: random.Random) -> str | None:
    size = int(bench.bytes * chance.uniform(0.002, 1.0))
    return on_a_full_disk(
        bench, size, lambda place: bench.train(place / "run"), lambda place: bench.resumed(place / "run")
    )


def vanished_source(bench: Bench, chance: random.Random) -> str | None:
    workdir, clean = bench.new(), bench.new()
    shutil.copytree(bench.folder / "clean", clean)
    command = bench.train(workdir, clean=clean)
    job = bench.start(command)
    reach(workdir, chance.randint(2, 9), job)
    clean.rename(f"{clean}.away")
    code, said = end(job)
    Path(f"{clean}.away").rename(clean)
    fault = refusal(code, said, "cannot be read") if code else None  # all may have been read already
    return fault or bench.resumed(workdir, command)


def truncated_checkpoint(bench: Bench, chance: random.Random) -> str | None:
    workdir = bench.new()
    job = bench.start(bench.train(workdir))
    reach(workdir, chance.randint(7, 12), job)
    job.send_signal(signal.SIGTERM)
    end(job)
    newest = workdir / "checkpoints" / str(saved_step(workdir))
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    chosen = chance.choices(files, [path.stat().st_size for path in files])[0]  # a random byte of all
    os.truncate(chosen, chance.randrange(chosen.stat().st_size))
    code, said = bench.run(bench.train(workdir))
    if code or losses(workdir) != bench.losses:
        return f"{chosen.relative_to(newest)}: ended by {code}, {said[-600:]}"
    aside = workdir / f"damaged_checkpoint_{newest.name}"
    return (
        None if aside.exists() == ("a damaged checkpoint" in said) else f"{chosen}: it does not say so: {said[-600:]}"
    )


def jumping_clock(bench: Bench, chance: random.Random) -> str | None:
    (bench.folder / "hidden" / "sitecustomize.py").write_text(CLOCK)
    workdir, way = bench.new(), chance.choice("fbr")
    code, said = bench.run(bench.train(workdir), CLOCK_JUMPS=way)
    if code:
        return f"it ended by {code}: {said[-600:]}"
    return None if losses(workdir) == bench.losses else "the losses are others"


def two_runs_in_one_workdir(bench: Bench, chance: random.Random) -> str | None:
    workdir = bench.new()
    first = bench.start(bench.train(workdir))
    time.sleep(chance.uniform(0, bench.seconds / 3))
    ends = sorted([end(bench.start(bench.train(workdir))), end(first)])
    if [code for code, _ in ends] == [0, 0]:  # one after the other
        return None if losses(workdir) == bench.losses else "the losses are others"
    fault = refusal(*ends[1], "another process is writing")
    return fault or (None if losses(workdir) == bench.losses else "the losses are others")


def scored(bench: Bench) -> bytes:
    whole = bench.folder / "whole.csv"
    with ONCE:
        if not whole.exists():
            for _ in range(2):  # the second has its programs compiled
                begun = time.monotonic()
                code, said = bench.run(bench.score(whole))
                bench.score_seconds = time.monotonic() - begun
                assert code == 0, said
    return whole.read_bytes()


def scored_again(bench: Bench, out: Path) -> str | None:
    if out.exists() and out.read_bytes() != scored(bench):
        return "a csv is there that is not whole"
    code, said = bench.run(bench.score(out))
    return None if code == 0 and out.read_bytes() == scored(bench) else f"again: {code}, {said[-600:]}"


def killed_scoring(bench: Bench, chance: random.Random) -> str | None:
    out = bench.folder / f"scores{bench.new().name}.csv"
    scored(bench)
    job = bench.start(bench.score(out))
    time.sleep(chance.uniform(0, bench.score_seconds))
    job.kill()
    end(job)
    return scored_again(bench, out)


def full_disk_scoring(bench: Bench, chance: random.Random) -> str | None:
    size = 4096 * chance.randrange(1, 3) if os.geteuid() == 0 else chance.randrange(len(scored(bench)))
    return on_a_full_disk(
        bench, size, lambda place: bench.score(place / "s.csv"), lambda place: scored_again(bench, place / "s.csv")
    )


# name -> what it is, tries, those of --quick; those with `tries` as an argument make them one after the other
TRIES: dict[str, tuple[Callable[..., object], str, int, int]] = {
    "killed": (killed, "SIGKILL at a random moment, resumed: losses bit-equal", 20, 2),
    "terminated": (terminated_one_of_two, "SIGTERM to one of two processes: both save, exit 0, go on bit-equal", 20, 1),
    "processes": (
        other_numbers_of_processes,
        "killed on 1, 2, 4 processes, resumed on 2, 4, 1: the next loss to 1e-5, all to 1e-2", 6, 1,
    ),
    "full_disk": (full_disk, "disk full at some write: one sentence; with space the same command ends bit-equal", 10, 2),
    "vanished": (
        vanished_source, "photographs gone while training: one sentence, saved; bit-equal once they are back", 5, 1,
    ),
    "truncated": (
        truncated_checkpoint, "newest checkpoint cut off at a random byte: said, the one before taken", 20, 2,
    ),
    "clock": (
        jumping_clock,
        "Python's clock jumps by up to a day, once or at every look: bit-equal, without a second start", 6, 1,
    ),
    "two_runs": (
        two_runs_in_one_workdir, "two runs on one workdir: one refuses in one sentence, one is bit-equal", 5, 1,
    ),
    "killed_score": (killed_scoring, "score, SIGKILL at a random moment: no half csv; again: the same csv", 10, 1),
    "full_score": (full_disk_scoring, "score, disk full: one sentence, no half csv; again: the same csv", 5, 1),
}  # fmt: skip
IN_TURN = (terminated_one_of_two, other_numbers_of_processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="names: " + ", ".join(TRIES))
    parser.add_argument("--jobs", type=int, default=1, help="tries at a time")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    names = flags.only.split(",") if flags.only else list(TRIES)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print(
            f"disk: {'tmpfs' if os.geteuid() == 0 else 'RLIMIT_FSIZE'}; a whole run takes {bench.seconds:.0f} s",
            flush=True,
        )
        print("| what | survived of tried | minutes |\n|---|---|---|", flush=True)
        for name in names:
            function, what, tries, few = TRIES[name]
            tries, begun = few if flags.quick else tries, time.monotonic()
            chances = [random.Random(f"{flags.seed} {name} {i}") for i in range(tries)]
            if function in IN_TURN:
                faults = function(bench, chances[0], tries)
            else:
                each = functools.partial(function, bench)
                faults = ThreadPoolExecutor(flags.jobs).map(each, chances)
            good = 0
            for i, fault in enumerate(faults, 1):  # type: ignore[arg-type, var-annotated]
                print(f"{name} {i} of {tries}: {fault or 'survived'}", file=sys.stderr, flush=True)
                good += fault is None
            print(f"| {what} | {good} of {tries} | {(time.monotonic() - begun) / 60:.1f} |", flush=True)


if __name__ == "__main__":
    main()
