"""`contrique-jax bulk` on this machine: killed again and again, beside `score`, and what a million images would cost.

Kills: 20,000 images of 64 x 48, one in a hundred broken; the command gets SIGKILL ten times at random points and is
given again; then every image must stand in the results once, and the printed counts must add up.
Speed: `score`, and `bulk` with 1 and 2 workers, on one folder, in turns, each from its start to its end and less what the
same command takes on a tenth of the folder: CPU seconds, which other programs on the machine disturb less, of all processes.

  pip install ".[beam]"
  python benchmarks/bulk.py kills          # prints what became of 20,000 images
  python benchmarks/bulk.py speed          # prints seconds an image
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

BROKEN_EACH = 100


def make(folder: Path, count: int, height: int, width: int, coarse: int = 8) -> list[str]:
    """Smooth random images, JPEG, a thousand a subfolder; of a hundred one is empty, cut off or text -> the names."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(count):
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (height // coarse, width // coarse, 3), dtype=np.uint8))
        image = small.resize((width, height), Image.Resampling.BICUBIC)
        if height > 100:  # the grain of photographs, by which they compress as they do
            grain = rng.normal(0, 8, (height, width, 3))
            image = Image.fromarray(np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8))
        image.save(path, quality=85)
        if i % BROKEN_EACH == 37:
            whole = path.read_bytes()
            path.write_bytes((b"", whole[: len(whole) // 2], b"no image")[i // BROKEN_EACH % 3])
        names.append(str(path))
    return names


def command(verb: str, *words: object) -> list[str]:
    return [sys.executable, "-m", f"contrique_jax.{verb}", *map(str, words)]


def done(out: Path) -> int:
    return len(list((out / "done").glob("[0-9]*.json"))) if out.exists() else 0


def tally(out: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each image stands among the scored and among the broken ones."""
    import pyarrow.parquet

    scored: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for table in sorted(out.glob("scores-*.parquet")):
        scored.update(pyarrow.parquet.read_table(table, columns=["path"]).column("path").to_pylist())
    for table in sorted(out.glob("broken-*.csv")):
        with open(table, newline="", encoding="utf-8") as stream:
            broken.update(row["path"] for row in csv.DictReader(stream))
    return scored, broken


def kills(place: Path, count: int, times: int, workers: int) -> None:
    names = make(place / "tiny", count, 48, 64)
    out, chance = place / "scores", random.Random(0)
    words = command("bulk", place / "tiny", "--out", out, "--shard-images", 250, "--workers", workers)
    shards = -(-count // 250)
    for kill in range(times):
        begun, before = time.monotonic(), done(out)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # at its start, or once it has done some more shards, and then somewhere within the next
        most = max(1, (shards - before) // (times - kill + 1))
        wanted = 0 if kill % 4 == 0 else before + chance.randint(1, most)
        while process.poll() is None and done(out) < wanted:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 6 if not wanted else 3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"kill {kill + 1}: {time.monotonic() - begun:.1f} s after its start, {done(out)} of {shards} shards done")
    last = subprocess.run(words, capture_output=True, text=True)
    print(last.stdout.strip().replace(str(place), "."))
    assert last.returncode == 0, last.stderr
    scored, broken = tally(out)
    both = scored + broken
    assert both == Counter(names), "not every image stands in the results once"
    said = [int(number) for number in re.findall(r"(\d+) (?:images found|scored|broken|skipped)", last.stdout)]
    found, now_scored, now_broken, skipped, was_scored, was_broken = said[:6]
    assert found == count == now_scored + now_broken + skipped and skipped == was_scored + was_broken
    assert (now_scored + was_scored, now_broken + was_broken) == (len(scored), len(broken))
    assert len(broken) == len(range(37, count, BROKEN_EACH))
    left = [str(path) for path in out.rglob(".*")]
    print(
        f"{times} kills: {len(both)} images, each once: {len(scored)} scored, {len(broken)} broken; files left over: {left}"
    )


def timed(words: list[str]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU of it and all of its processes. `score` writes no text to be read."""
    before, begun = os.times(), time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - begun, cpu


def speed(place: Path, count: int, height: int, width: int, rounds: int, shard: int) -> None:
    make(place / "all", count, height, width)
    tenth = place / "tenth"
    tenth.mkdir()
    for path in sorted((place / "all").rglob("*.jpg"))[: count // 10]:
        os.link(path, tenth / path.name)
    kinds = {"score": None, "bulk, 1 worker": 1, "bulk, 2 workers": 2}
    seen: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for turn in range(rounds + 1):
        for kind, workers in kinds.items():
            both = []
            for folder in ("tenth", "all") if turn else ("tenth",):  # the first turn compiles
                out = place / f"{kind[-9:].replace(' ', '')}-{turn}-{folder}"
                if workers is None:
                    words = command("score", place / folder, "--out", f"{out}.csv", "--why")
                else:
                    words = command("bulk", place / folder, "--out", out, "--workers", workers, "--shard-images", shard)
                both.append(timed(words))
            if turn:
                seen[kind].append((both[1][0] - both[0][0], both[1][1] - both[0][1]))
                start = both[0][1] - (both[1][1] - both[0][1]) / 9
                print(f"{kind}: {both[1][0]:.1f} s, {both[1][1]:.1f} s of CPU; start {start:.1f} s of CPU", flush=True)
    images = count - count // 10
    for kind, found in seen.items():
        wall, cpu = (sorted(values)[len(values) // 2] for values in zip(*found, strict=True))
        print(
            f"{kind}: {height} x {width}: {images / wall:.1f} images/s, {1000 * cpu / images:.1f} ms of CPU an image "
            f"({cpu / images * 1e6 / 3600:.1f} core-hours a million; median of {rounds})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "speed"))
    parser.add_argument("--images", type=int, help="default: 20,000 to be killed, 1,000 to be timed")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--times", type=int, default=10, help="kills")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shard-images", type=int, default=100, help="of timed runs")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if flags.what == "kills":
            kills(Path(folder), flags.images or 20_000, flags.times, flags.workers)
        else:
            speed(Path(folder), flags.images or 1000, *flags.size, flags.rounds, flags.shard_images)


if __name__ == "__main__":
    main()
