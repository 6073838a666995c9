"""Training progress: metrics.jsonl, TensorBoard events and a progress bar."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar
from tqdm import tqdm

from contrique_jax.errors import UserError, disk_message
from contrique_jax.io.outputs import atomic_write
from contrique_jax.io.regular import read_bytes


def _step_of(line: str) -> int:
    """The step of a line of metrics, 0 if a crash left it damaged."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else 0
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return 0


class Metrics:
    """Writes one line a step to `D/metrics.jsonl` and events to `D/tensorboard`; a bar, or plain lines without a terminal.

    A resumed run drops what an interrupted one wrote past its checkpoint, so the file reads as one uninterrupted run.
    """

    def __init__(self, workdir: Path, *, first: int, last: int, images_per_step: int):
        """`first`: steps done when this process starts; `last`: steps of the whole run."""
        self.path = workdir / "metrics.jsonl"
        self.last, self.images_per_step = last, images_per_step
        self._keep(first)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - open for the run's length
        (workdir / "tensorboard").mkdir(exist_ok=True)
        # in this thread: tensorboardX's own writer thread dies on a full disk and leaves its callers waiting
        self._events = EventsWriter(str(workdir / "tensorboard" / "events"))
        restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._events.write_event(event_pb2.Event(wall_time=time.time(), step=first + 1, session_log=restart))
        self._bar = tqdm(total=last, initial=first, unit="step", disable=None, dynamic_ncols=True)
        self._begun = time.monotonic()
        self._since: tuple[float, int] | None = None  # when and after which step the first row came: compiling is over
        self._last = (self._begun, first)

    def _keep(self, steps: int) -> None:
        """Keeps the lines of the first `steps` steps: written beside, then renamed."""
        if not self.path.exists():
            return
        found = read_bytes(self.path).decode(errors="replace").splitlines(keepends=True)
        lines = [line for line in found if 0 < _step_of(line) <= steps]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")

    def write(self, rows: list[dict[str, float]]) -> None:
        """Rows of consecutive steps, each with at least `step` and `loss`; the last one feeds the bar and TensorBoard.

        The rows of the first call have no rate: its time is the compiler's.
        """
        if not rows:
            return
        last, now = rows[-1], (time.monotonic(), int(rows[-1]["step"]))
        if self._since is not None:
            seconds, steps = (new - old for new, old in zip(now, self._last, strict=True))
            last["images_per_second"] = round(steps * self.images_per_step / max(seconds, 1e-9), 3)
        try:
            self._file.writelines(json.dumps(row) + "\n" for row in rows)
            self._file.flush()
            for name, value in last.items():
                if name != "step":
                    event = event_pb2.Event(wall_time=time.time(), step=int(last["step"]), summary=scalar(name, value))
                    self._events.write_event(event)
            self._events.flush()
        except OSError as error:
            sentence = disk_message(error, str(self.path))
            raise (UserError(sentence) if sentence else error) from error
        self._show(last, now)
        self._since = self._since or now
        self._last = now

    def _show(self, row: dict[str, float], now: tuple[float, int]) -> None:
        time_now, step = now
        said = f"loss {row['loss']:.4f}, learning rate {row['learning_rate']:.3g}"
        if self._since is None:
            said += f", compiled and begun in {time_now - self._begun:.0f} s"
        else:
            said += f", {row['images_per_second']:.1f} images/s"
        if self._bar.disable:
            if self._since is not None:
                per_step = (time_now - self._since[0]) / (step - self._since[1])
                said += f", {tqdm.format_interval(per_step * (self.last - step))} left"
            print(f"step {step}/{self.last}: {said}", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        self._bar.close()
        self._file.close()
        self._events.close()
