"""What `crash.py` breaks: tiny trainings and scorings, and the same that nothing broke."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
STEPS, PHOTOGRAPHS, LONGEST = 15, 24, 900  # LONGEST: seconds a command may take


class Bench:
    """A folder with photographs, a run and a csv that nothing broke, and what starts commands."""

    def __init__(self, folder: Path):
        self.folder, self.count, self.score_seconds = folder, 0, 0.0
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": f"{folder / 'hidden'}{os.pathsep}{ROOT}",
        }  # fmt: skip
        (folder / "hidden").mkdir()  # where PyTorch is installed, tensorboardX would import it for two seconds
        (folder / "hidden" / "torch.py").write_text("raise ImportError\n")
        for name in ("clean", "own"):
            (folder / name).mkdir()
            for i in range(PHOTOGRAPHS):
                chance = np.random.default_rng([len(name), i])
                smooth = Image.fromarray(chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120))
                # without flat areas: where values tie under the max-pool, rounding decides on the gradient
                noisy = 30 + 0.75 * np.asarray(smooth) + chance.normal(0, 6, (120, 160, 3))
                Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / name / f"{i:02}.png")
        rows = "".join(
            f"{i:02}.png,{5 * i}\n" for i in range(PHOTOGRAPHS)
        )  # of classes: nothing to distort, quick to start
        (folder / "clean" / "list.csv").write_text("path,class\n" + rows)
        self.run(self.train(self.new()))  # fills the cache of compiled programs
        begun, whole = time.monotonic(), self.new()
        self.run(self.train(whole))
        self.seconds, self.losses = time.monotonic() - begun, losses(whole)
        self.bytes = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
        assert len(self.losses) == STEPS, "the run that nothing breaks does not end"

    def new(self) -> Path:
        self.count += 1
        return self.folder / f"{self.count:03}"

    def train(self, workdir: Path, *flags: str, clean: Path | None = None) -> list[str]:
        sources = [f"--config.data.pristine={clean or self.folder / 'clean'}/list.csv"]
        sources += [
            f"--config.data.authentic={self.folder / 'own'}",
            f"--config.train.steps={STEPS}",
            "--config.data.batch_size=4",
        ]
        often = ["--config.train.checkpoint_every=3", "--config.train.log_every=1", "--config.train.wait_seconds=600"]
        config = f"--config={ROOT / 'tests' / 'tiny_config.py'}"
        return ["train", config, f"--workdir={workdir}", *sources, *often, *flags]

    def score(self, out: Path) -> list[str]:
        return ["score", str(self.folder / "own"), "--out", str(out)]

    def start(self, command: list[str], file_limit: int | None = None, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "contrique_jax.cli", *command],
            env=self.environment | environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            preexec_fn=None if file_limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, -1)),
        )  # fmt: skip

    def run(self, command: list[str], **options: object) -> tuple[int, str]:
        return end(self.start(command, **options))  # type: ignore[arg-type]

    def together(self, count: int, workdir: Path, *flags: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        joined = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}"] if count > 1 else []
        own = [[f"--process_id={i}"] if joined else [] for i in range(count)]
        return [self.start(self.train(workdir, *flags, *joined, *each)) for each in own]

    def resumed(self, workdir: Path, command: list[str] | None = None) -> str | None:
        """What is wrong with the run in `workdir` once the same command has gone on with it."""
        code, said = self.run(command or self.train(workdir))
        if code:
            return f"resuming ended by {code}: {said[-600:]}"
        return None if losses(workdir) == self.losses else "the losses are others"


def end(job: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        said = job.communicate(timeout=LONGEST)[1]
    except subprocess.TimeoutExpired:
        job.kill()
        said = "it stood still; " + job.communicate()[1]
    return job.returncode, said


def losses(workdir: Path) -> list[float]:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line)["loss"] for line in lines]


def saved_step(workdir: Path) -> int:
    """Of the newest checkpoint that is whole, 0 if there is none."""
    names = [place.name for place in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def reach(workdir: Path, step: int, *jobs: subprocess.Popen[str]) -> None:
    """Waits until the run has written down that step, or a job has ended."""
    until = time.monotonic() + LONGEST
    while len(losses(workdir)) < step and all(job.poll() is None for job in jobs) and time.monotonic() < until:
        time.sleep(0.05)


def refusal(code: int, said: str, *words: str) -> str | None:
    """What is wrong with a command that should have ended by one sentence with these words."""
    sentence = next((line for line in said.splitlines() if line.startswith("error: ")), "")
    if code == 2 and "Traceback" not in said and any(word in sentence for word in words):
        return None
    return f"it ended by {code}: {said[-600:]}"
